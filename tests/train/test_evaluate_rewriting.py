"""Figures of what tiers rewrite: as they are served, and by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sprat.train.evaluate_rewriting import NOTHING, TierRewritings, evaluate_rewriting
from sprat.train.evaluate_transform import Rewritten, right_answers
from sprat.train.wanted import Wanted

SCHEMA = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'


def wanted(*targets: str) -> Wanted:
    lines = tuple(range(11, 11 + len(targets)))
    return Wanted(targets, targets, ({},) * len(targets), lines, "rows.jsonl")


def tier(
    name: str, answers: list[str], confidence: list[float] | None, **more: float | None
) -> TierRewritings:
    given = tuple(Rewritten(each.rstrip("~"), not each.endswith("~")) for each in answers)
    accept_at, cost_ms = more.get("accept_at", 0.0), more.get("cost_ms", 1.0)
    sure = None if confidence is None else np.array(confidence)
    assert cost_ms is not None
    return TierRewritings(name, "llama", accept_at, given, sure, cost_ms)


WANTED = wanted("alpha", "beta", "gamma", "delta")
SMALL = tier(
    "small", ["alpha", "beta", "gamm", "dxxxx"], [0.95, 0.5, 0.7, 0.2], accept_at=0.55, cost_ms=1
)
LARGE = tier(
    "large", ["alpha", "beta", "gamma", "delt~"], [0.9, 0.9, 0.9, 0.0], accept_at=0.3, cost_ms=4
)


def test_rewriting_of_a_cascade_is_judged_as_it_is_served() -> None:
    report, answers = evaluate_rewriting([SMALL, LARGE], WANTED)
    # Above the band the first tier answers; what is unsound is passed on, and abstained from.
    assert [each.text for each in answers] == ["alpha", "beta", "gamm", ""]
    assert answers[3] is NOTHING
    figures = {name: each.value for name, each in report.metrics.items()}
    assert figures["exact_match"] == figures["right"] == 0.5
    assert figures["edit_similarity"] == pytest.approx((1 + 1 + 0.8 + 0) / 4)
    assert (figures["coverage"], figures["wrong"]) == (0.75, pytest.approx(1 / 3))
    assert (figures["above"], figures["wrong_above"]) == (0.5, 0.0)
    assert figures["cost_ratio"] == pytest.approx((4 + 2 * 4) / (4 * 4))
    assert figures["auroc"] == 1.0
    assert figures["ece"] == pytest.approx((0.05 + 0.1 + 0.7) / 3)
    assert report.best_tier == "large"
    assert [(each.asked, each.answers, each.accuracy) for each in report.shares] == [
        (1.0, 0.5, 0.5),
        (0.5, 0.25, 1.0),
    ]
    assert report.wrong_lines == (14, 13)
    assert report.incomplete == 0
    for each in report.metrics.values():
        assert each.low <= each.value <= each.high


def test_rewriting_of_each_tier_by_itself_answers_everything() -> None:
    report, _ = evaluate_rewriting([SMALL, LARGE], WANTED)
    alone, answers = evaluate_rewriting([replace(LARGE, accept_at=0.0)], WANTED)
    assert report.tiers["large"] == alone
    assert [each.text for each in answers] == ["alpha", "beta", "gamma", "delt"]
    assert alone.metrics["right"].value == 0.75
    assert alone.incomplete == 1
    assert not {"coverage", "wrong", "cost_ratio"} & alone.metrics.keys()
    assert (alone.tiers, alone.shares) == ({}, ())


def test_rewriting_without_a_calibration_has_no_figures_of_confidences() -> None:
    report, _ = evaluate_rewriting([tier("language", ["alpha", "beta", "x", "y"], None)], WANTED)
    assert report.metrics["right"].value == 0.5
    assert not {"ece", "auroc", "above", "wrong_above"} & report.metrics.keys()
    assert report.whole is None


@pytest.mark.parametrize("answers", [["alpha", "beta", "gamma", "delta"], ["x"] * 4])
def test_rewriting_that_is_all_alike_has_no_auroc(answers: list[str]) -> None:
    report, _ = evaluate_rewriting([tier("language", answers, [0.5] * 4)], WANTED)
    assert "auroc" not in report.metrics
    assert report.metrics["ece"].value == 0.5


def test_rewriting_auroc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    # With ties, as a curve that is level makes them.
    confidence = rng.random(200).round(1).tolist()
    right = rng.random(200) < confidence
    answers = ["yes" if each else "no" for each in right]
    report, _ = evaluate_rewriting([tier("language", answers, confidence)], wanted(*["yes"] * 200))
    auroc = report.metrics["auroc"]
    assert auroc.value == pytest.approx(roc_auc_score(right, confidence))
    assert auroc.low < auroc.value < auroc.high


def test_rewriting_that_nobody_answers() -> None:
    report, answers = evaluate_rewriting(
        [tier("language", ["alpha"] * 4, [0.5] * 4, accept_at=0.9)], WANTED
    )
    assert set(answers) == {NOTHING}
    values = {name: each.value for name, each in report.metrics.items()}
    assert values == dict.fromkeys(values, 0.0)


def test_rewriting_is_right_from_a_similarity_on() -> None:
    near = [Rewritten("alphx"), Rewritten("bexx"), Rewritten("gamma", False), Rewritten("delta ")]
    assert right_answers(near, WANTED).tolist() == [False, False, False, True]
    assert right_answers(near, WANTED, right_at=0.8).tolist() == [True, False, False, True]
    assert right_answers(near, WANTED, right_at=0.5).tolist() == [True, True, False, True]


def test_rewriting_of_json_is_right_as_a_value() -> None:
    rows = wanted('{"n":1,"m":2}', '{"n":1}')
    given = [Rewritten('{"m": 2, "n": 1}'), Rewritten('{"n": true}')]
    assert right_answers(given, rows, schema=SCHEMA).tolist() == [True, False]
    report, _ = evaluate_rewriting(
        [TierRewritings("language", "llama", 0.0, tuple(given), np.array([0.9, 0.2]), 1.0)],
        rows,
        schema=SCHEMA,
    )
    assert report.metrics["schema_valid"].value == 0.5
    assert (report.right_at, report.threshold) == (1.0, 0.9)
