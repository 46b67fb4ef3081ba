"""What a cascade answers, as figures: against the tiers alone, and against a plain count."""

from __future__ import annotations

import numpy as np
import pytest

from sprat.bundle_manifest import Calibration
from sprat.calibration import least_confidence
from sprat.train import evaluate_cascade as module
from sprat.train.evaluate import evaluate
from sprat.train.evaluate_cascade import METRICS, SCOPE_METRICS, TierOutput, evaluate_cascade
from sprat.train.page import page
from sprat.train.page_cascade import TITLES
from sprat.train.thresholds import ABSTAINED
from sprat.values import FloatArray, IntArray

LABELS = ("a", "b", "c")
PLAIN = Calibration(temperature=1.0)


def tier(
    name: str,
    logits: FloatArray,
    accept_at: float | None,
    *,
    engine: str = "static",
    cost_ms: float = 1.0,
    outside: FloatArray | None = None,
) -> TierOutput:
    none = np.zeros((0, logits.shape[1]), np.float32)
    return TierOutput(
        name, engine, accept_at, PLAIN, logits, none if outside is None else outside, cost_ms
    )


def sure(labels: list[int], confidence: list[float]) -> FloatArray:
    """Logits whose best label has a probability, the others the rest in equal parts."""
    p = np.tile((1 - np.array(confidence)[:, None]) / 2, (1, 3))
    p[np.arange(len(labels)), labels] = confidence
    return np.log(p).astype(np.float32)


def drawn(n: int, seed: int) -> tuple[FloatArray, FloatArray, IntArray]:
    """Logits of a poor and of a good tier, and the truth."""
    rng = np.random.default_rng(seed)
    targets_n = rng.integers(0, 3, n).astype(np.int32)
    truth_nk = np.eye(3)[targets_n]
    poor, good = (
        (strength * truth_nk + rng.standard_normal((n, 3))).astype(np.float32)
        for strength in (1.5, 4.0)
    )
    return poor, good, targets_n


def test_evaluate_cascade_counts_rows_that_nobody_answers_as_missed() -> None:
    first = sure([0, 1, 1, 0], [0.9, 0.6, 0.6, 0.6])
    second = sure([0, 1, 0, 2], [0.9, 0.8, 0.9, 0.7])
    tiers = [tier("static", first, 0.8), tier("head", second, 0.75, cost_ms=9.0)]
    # Answered: a by the first; b, and wrongly a for c, by the second; the last row by none.
    targets_n = np.array([0, 1, 2, 2], np.int32)
    report, label_n = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=[3, 5, 7, 9])
    assert label_n.tolist() == [0, 1, 0, ABSTAINED]
    assert (report.n, report.accuracy, report.coverage) == (4, 0.5, 0.75)
    assert report.wrong == pytest.approx(1 / 3)
    assert report.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert [(each.support, each.predicted) for each in report.labels] == [(1, 2), (1, 1), (2, 0)]
    assert [(c.label, c.predicted, c.count) for c in report.confusions] == [("c", "a", 1)]
    assert (report.above, report.wrong_above) == (0.5, 0.25)
    assert [each.line for each in report.worst] == [7]
    assert report.best_tier == "head"
    assert report.cost_ratio == pytest.approx((1 + 10 + 10 + 10) / 4 / 9)
    asked = [(share.name, share.asked, share.answers, share.accuracy) for share in report.shares]
    assert asked == [("static", 1.0, 0.25, 1.0), ("head", 0.75, 0.5, 0.5)]
    assert sum(each.n for each in report.reliability) == 3
    # Each answer is a bin of its own: confidences 0.9, 0.8 and 0.9, the last one wrong.
    assert report.ece == pytest.approx((0.1 + 0.2 + 0.9) / 3, abs=1e-6)
    assert set(report.intervals) == set(METRICS)
    assert report.out_of_scope_answered is None


def test_evaluate_cascade_leaves_out_a_tier_and_evaluates_it_all_the_same() -> None:
    poor, good, targets_n = drawn(200, 0)
    tiers = [tier("static", poor, None), tier("head", good, 0.0, cost_ms=5.0)]
    report, label_n = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=range(200))
    assert label_n.tolist() == good.argmax(axis=1).tolist()
    assert (report.coverage, report.cost_ratio) == (1.0, 1.0)
    assert [share.asked for share in report.shares] == [0.0, 1.0]
    # A cascade of one tier is this tier: so are all figures that both have.
    alone = report.tiers["head"]
    assert alone == evaluate(good, targets_n, labels=LABELS, lines=range(200), calibration=PLAIN)
    for name in ("accuracy", "macro_f1", "above", "wrong_above"):
        assert getattr(report, name) == pytest.approx(getattr(alone, name)), name
    assert report.ece == pytest.approx(alone.ece, abs=0.01)
    assert report.tiers["static"].accuracy < alone.accuracy


def test_evaluate_cascade_keeps_the_band_above_thresholds_clear_as_the_server_does() -> None:
    at = 0.8
    inside = (at + least_confidence(at, "ct2")) / 2
    first, second = sure([0], [inside]), sure([1], [0.9])
    for engine, answer in (("static", 0), ("ct2", 1)):
        tiers = [tier("static", first, at, engine=engine), tier("head", second, 0.0)]
        _, label_n = evaluate_cascade(tiers, np.zeros(1, np.int32), labels=LABELS, lines=[1])
        assert label_n.tolist() == [answer]
    # The last tier has nobody to pass on to: its threshold is taken as it is.
    last = [tier("static", first, 0.99), tier("head", first, at, engine="ct2")]
    _, label_n = evaluate_cascade(last, np.zeros(1, np.int32), labels=LABELS, lines=[1])
    assert label_n.tolist() == [0]


def test_evaluate_cascade_without_a_single_answer() -> None:
    poor, good, targets_n = drawn(50, 1)
    tiers = [tier("static", poor, 1.0), tier("head", good, 1.0)]
    report, label_n = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=range(50))
    assert (label_n == ABSTAINED).all()
    none = (report.accuracy, report.coverage, report.wrong, report.ece, report.ece_noise)
    assert none == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert (report.macro_f1, report.reliability, report.worst) == (0.0, (), ())
    assert [share.accuracy for share in report.shares] == [0.0, 0.0]


def test_evaluate_cascade_intervals_hold_the_figures_and_repeat() -> None:
    poor, good, targets_n = drawn(300, 2)
    tiers = [tier("static", poor, 0.8), tier("head", good, 0.5, cost_ms=20.0)]
    report, _ = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=range(300), seed=3)
    for name in METRICS:
        low, high = report.intervals[name]
        assert low <= getattr(report, name) <= high, name
    assert 0 < report.cost_ratio < 1
    assert report.accuracy > report.tiers["static"].accuracy
    again, _ = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=range(300), seed=3)
    assert again == report
    assert module.CascadeReport.model_validate(report.model_dump(mode="json")) == report


def test_evaluate_cascade_rows_out_of_scope() -> None:
    poor, good, targets_n = drawn(60, 4)
    strange = sure([0, 0, 1, 1], [0.99, 0.5, 0.95, 0.5])
    doubtful = sure([0, 0, 1, 1], [0.99, 0.85, 0.95, 0.4])
    tiers = [
        tier("static", poor, 0.9, outside=strange),
        tier("head", good, 0.7, outside=doubtful),
    ]
    report, label_n = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=range(60))
    assert (report.n, len(label_n), report.out_of_scope_rows) == (60, 60, 4)
    assert (report.out_of_scope_answered, report.out_of_scope_above) == (0.75, 0.5)
    assert set(report.intervals) == {*METRICS, *SCOPE_METRICS}
    assert report.tiers["head"].out_of_scope_above == 0.5


def test_evaluate_cascade_as_a_page() -> None:
    first = sure([0, 1, 1, 0], [0.9, 0.6, 0.6, 0.6])
    second = sure([0, 1, 0, 2], [0.9, 0.8, 0.9, 0.7])
    outside = sure([1, 1], [0.95, 0.4])
    tiers = [
        tier("static", first, None, outside=outside),
        tier("finetune", first, 0.8, outside=outside),
        tier("head", second, 0.75, cost_ms=9.0, outside=outside),
    ]
    targets_n = np.array([0, 1, 2, 2], np.int32)
    report, _ = evaluate_cascade(tiers, targets_n, labels=LABELS, lines=[3, 5, 7, 9])
    html = page(report, title="tickets", facts={})
    assert set(TITLES) == {*METRICS, *SCOPE_METRICS}
    for name in TITLES.values():
        assert f"<td>{name}</td>" in html
    for shown in ("left out", "Cost and quality", "cascade: cost", "Reliability"):
        assert shown in html
    # A row of c is answered as a, the other one not at all: neither is right.
    assert "c answered as a: 1 of 2" in html
    assert "c answered as c" not in html
    nobody, _ = evaluate_cascade(
        [tier("static", first, 1.0), tier("head", second, 1.0)],
        targets_n,
        labels=LABELS,
        lines=[3, 5, 7, 9],
    )
    assert "Reliability" not in page(nobody, title="tickets", facts={})
