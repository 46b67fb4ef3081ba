"""Figures of what the tiers of an extract task find: as it is served, and by themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sprat.calibration import least_confidence
from sprat.tagger import Span
from sprat.train.compare import Findings
from sprat.train.evaluate_extract import MOST_LISTED, value_findings
from sprat.train.evaluate_extract_cascade import TierFound, evaluate_extract_cascade
from sprat.train.evaluate_spans import span_findings
from sprat.train.spans import GoldSpan, SpanDataset

LINES = (11, 12, 13, 14)
WANTED = ('{"name":"Ada"}', '{"name":"Bea","time":"5"}', "{}", "{}")


def by_strings(found: Sequence[str | None]) -> Findings:
    return value_findings([each or "" for each in found], WANTED, needs_value=True)


def tier(
    name: str,
    found: Sequence[str | None],
    sure: Sequence[float] | None,
    *,
    accept_at: float | None = 0.0,
    engine: str = "ct2",
    cost_ms: float = 1.0,
) -> TierFound[str]:
    sure_n = None if sure is None else np.array(sure)
    return TierFound(name, engine, accept_at, tuple(found), sure_n, cost_ms)


HEAD = tier(
    "head",
    ['{"name":"Ada"}', '{"name":"Bea"}', '{"time":"9"}', '{"name":"Leo"}'],
    [0.9, 0.2, 0.7, 0.3],
    accept_at=0.5,
)
REMOTE = tier(
    "remote",
    ['{"name":"Eva"}', '{"name":"Bea","time":"5"}', "{}", None],
    [0.6, 0.8, 0.8, 0.0],
    engine="remote",
    cost_ms=4,
)


def test_extract_cascade_is_judged_as_it_is_served() -> None:
    report, found = evaluate_extract_cascade([HEAD, REMOTE], by_strings, by="strings", lines=LINES)
    # What is not sound is withheld even by the last tier, which has no threshold.
    assert found == ('{"name":"Ada"}', '{"name":"Bea","time":"5"}', '{"time":"9"}', None)
    figures = {name: each.value for name, each in report.metrics.items()}
    assert figures == pytest.approx(
        {
            "micro_f1": 2 * 3 / (4 + 3),
            "precision": 3 / 4,
            "recall": 1.0,
            "exact_match": 0.5,
            "coverage": 0.75,
            "wrong": 1 / 3,
            "cost_ratio": (4 * 1 + 2 * 4) / (4 * 4),
            "whole_ece": (0.1 + 0.2 + 0.7) / 3,
        }
    )
    assert (report.n, report.by, report.best_tier) == (4, "strings", "remote")
    assert [(each.asked, each.answers, each.accuracy) for each in report.shares] == [
        (1.0, 0.5, 0.5),
        (0.5, 0.25, 1.0),
    ]
    assert [(each.field, each.support, each.predicted) for each in report.fields] == [
        ("/name", 2, 2),
        ("/time", 1, 2),
    ]
    # Nothing was there, but nobody said so: that is not right.
    assert report.wrong_lines == (13, 14)
    assert report.summary().metrics == report.metrics
    for each in report.metrics.values():
        assert each.low <= each.value <= each.high


def test_extract_cascade_has_each_tier_alone_where_it_answers_everything() -> None:
    report, _ = evaluate_extract_cascade([HEAD, REMOTE], by_strings, by="strings", lines=LINES)
    head, remote = (
        {name: each.value for name, each in report.tiers[name].metrics.items()}
        for name in ("head", "remote")
    )
    assert head == pytest.approx(
        {
            "micro_f1": 2 * 2 / (4 + 3),
            "precision": 2 / 4,
            "recall": 2 / 3,
            "exact_match": 0.25,
            "whole_ece": (0.1 + 0.2 + 0.7 + 0.3) / 4,
        }
    )
    assert (remote["exact_match"], remote["precision"]) == (0.5, pytest.approx(2 / 3))
    assert report.tiers["head"].n == 4
    # Of equally good tiers the cheapest is the best one.
    again = evaluate_extract_cascade(
        [HEAD, replace(REMOTE, found=HEAD.found)], by_strings, by="strings", lines=LINES
    )[0]
    assert again.best_tier == "head"


@pytest.mark.parametrize(("engine", "answers"), [("ct2", 0.25), ("static", 0.5), ("llama", 0.25)])
def test_extract_cascade_keeps_the_band_of_the_engine(engine: str, answers: float) -> None:
    near = 0.51
    assert near < least_confidence(0.5, "ct2") < 0.9
    head = replace(HEAD, engine=engine, confidence_n=np.array([0.9, 0.2, near, 0.3]))
    report, found = evaluate_extract_cascade([head, REMOTE], by_strings, by="strings", lines=LINES)
    assert report.shares[0].answers == answers
    assert found[2] == (REMOTE if answers == 0.25 else head).found[2]


def test_extract_cascade_abstains_below_the_last_threshold_and_leaves_tiers_out() -> None:
    last = replace(REMOTE, accept_at=0.8)
    report, found = evaluate_extract_cascade(
        [replace(HEAD, accept_at=None), last], by_strings, by="strings", lines=LINES
    )
    assert found == (None, *REMOTE.found[1:3], None)
    assert [(each.accept_at, each.asked, each.answers) for each in report.shares] == [
        (None, 0.0, 0.0),
        (0.8, 1.0, 0.5),
    ]
    assert report.metrics["wrong"].value == 0.0
    assert report.metrics["recall"].value == pytest.approx(2 / 3)
    assert report.wrong_lines == (11, 14)


def test_extract_cascade_that_answers_nothing_has_no_calibration() -> None:
    never = [replace(each, accept_at=1.0) for each in (HEAD, REMOTE)]
    report, found = evaluate_extract_cascade(never, by_strings, by="strings", lines=LINES)
    assert found == (None,) * 4
    assert report.whole is None
    figures = {name: each.value for name, each in report.metrics.items()}
    assert (figures["coverage"], figures["wrong"], figures["micro_f1"]) == (0, 0, 0)
    assert "whole_ece" not in figures
    assert report.wrong_lines == LINES


def test_extract_cascade_of_a_tier_without_calibration_has_no_confidence() -> None:
    report, _ = evaluate_extract_cascade(
        [HEAD, replace(REMOTE, confidence_n=None)], by_strings, by="strings", lines=LINES
    )
    assert report.whole is None
    assert "whole_ece" not in report.metrics | report.tiers["remote"].metrics
    assert "whole_ece" in report.tiers["head"].metrics
    # It is not sure, but the last one: what is sound counts.
    assert report.metrics["coverage"].value == 0.75


def test_extract_cascade_of_taggers_is_judged_by_places() -> None:
    gold = ((GoldSpan(0, 3, "name"),), (GoldSpan(0, 3, "name"),), ())
    data = SpanDataset(("Ada Ada",) * 3, gold, ((),) * 3, (1, 2, 3), "rows.jsonl")
    second = [Span("name", 4, 7, 0.9)]
    first = [Span("name", 0, 3, 0.9)]
    tiers = [
        TierFound("head", "ct2", 0.5, (second, second, []), np.array([0.9, 0.1, 0.1]), 1.0),
        TierFound("finetune", "ct2", 0.4, (first, first, []), np.array([0.9, 0.8, 0.1]), 3.0),
    ]
    report, found = evaluate_extract_cascade(
        tiers,
        lambda spans: span_findings(spans, data, ("name", "time")),
        by="spans",
        lines=data.lines,
    )
    assert found == (second, first, None)
    figures = {name: each.value for name, each in report.metrics.items()}
    assert (figures["micro_f1"], figures["exact_match"]) == (0.5, pytest.approx(1 / 3))
    assert figures["coverage"] == pytest.approx(2 / 3)
    # Fields without a span stand there too.
    assert [(each.field, each.f1) for each in report.fields] == [("name", 0.5), ("time", 0.0)]
    assert report.tiers["finetune"].metrics["exact_match"].value == 1
    shown = span_findings(found, data, ("name",)).shown
    assert shown == ("name 4-7", "name 0-3", "(no answer)")


def test_extract_cascade_report_lists_few_lines_and_no_text() -> None:
    many = 3 * MOST_LISTED
    wanted = ['{"name":"Ada"}'] * many
    tiers = [
        tier(name, ['{"name":"Zoe"}'] * many, [0.5] * many, accept_at=at)
        for name, at in (("head", 0.9), ("finetune", 0.0))
    ]
    report, _ = evaluate_extract_cascade(
        tiers,
        lambda found: value_findings([each or "" for each in found], wanted, needs_value=True),
        by="strings",
        lines=range(1, many + 1),
    )
    assert report.wrong_lines == tuple(range(1, MOST_LISTED + 1))
    document = json.dumps(report.model_dump(mode="json"))
    assert "Ada" not in document
    assert "Zoe" not in document
