"""Figures of found spans, by hand and against simulations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tagged import make_bookings

from sprat.tagger import Span
from sprat.train.evaluate_spans import (
    METRICS,
    SpanReport,
    evaluate_spans,
    shown_spans,
    span_findings,
)
from sprat.train.spans import GoldSpan, SpanDataset


@dataclass
class Judge:
    """What `evaluate_spans` asks of a tagger."""

    fields: tuple[str, ...] = ("name", "people", "time")

    def confidence(self, score: float) -> float:
        return score


def dataset(*spans: list[tuple[int, int, str]]) -> SpanDataset:
    n = len(spans)
    gold = tuple(tuple(GoldSpan(*each) for each in row) for row in spans)
    return SpanDataset(("x" * 30,) * n, gold, ((),) * n, tuple(range(1, n + 1)), "rows.jsonl")


def evaluate(found: list[list[Span]], data: SpanDataset) -> SpanReport:
    return evaluate_spans(found, data, Judge())  # type: ignore[arg-type]


def test_evaluate_spans_counts_exact_matches() -> None:
    data = dataset(
        [(0, 4, "name"), (5, 9, "time")],
        [(0, 4, "name")],
        [(3, 6, "time")],
        [],
        [],
    )
    report = evaluate(
        [
            [Span("name", 0, 4, 0.9), Span("time", 5, 8, 0.6)],  # one right, one misplaced
            [Span("time", 0, 4, 0.5)],  # misnamed
            [],  # missed
            [],  # nothing there, nothing found
            [Span("name", 1, 2, 0.3)],  # invented
        ],
        data,
    )
    assert (report.n, report.spans, report.predicted, report.right) == (5, 4, 4, 1)
    assert (report.precision, report.recall, report.micro_f1) == (0.25, 0.25, 0.25)
    assert report.whole_rows == 0.2
    assert (report.misplaced, report.misnamed) == (1, 1)
    name, _, time = report.fields
    assert (name.label, name.precision, name.recall, name.f1) == ("name", 0.5, 0.5, 0.5)
    assert (name.support, name.predicted) == (2, 2)
    assert (time.precision, time.recall, time.f1) == (0, 0, 0)
    # Four bins of one span each.
    assert report.ece == pytest.approx((0.1 + 0.6 + 0.5 + 0.3) / 4)


def test_evaluate_spans_without_any() -> None:
    report = evaluate([[], []], dataset([], []))
    assert (report.micro_f1, report.precision, report.recall, report.ece) == (0, 0, 0, 0)
    assert report.whole_rows == 1
    assert all(low <= getattr(report, m) <= high for m, (low, high) in report.intervals.items())


def test_evaluate_spans_intervals_hold_the_figure_and_narrow_with_rows() -> None:
    def report(rows: int) -> SpanReport:
        data = make_bookings(rows)
        rng = np.random.default_rng(1)
        found = [
            [
                Span(s.field, s.start, s.end + (rng.random() < 0.3), 0.7)
                for s in spans
                if rng.random() < 0.8
            ]
            for spans in data.spans
        ]
        return evaluate_spans(found, data, Judge())  # type: ignore[arg-type]

    few, many = report(50), report(800)
    for each in (few, many):
        for metric in METRICS:
            low, high = each.intervals[metric]
            assert low <= getattr(each, metric) <= high
    widths = [np.subtract(*each.intervals["micro_f1"][::-1]) for each in (few, many)]
    assert widths[0] > 2 * widths[1] > 0
    assert many.ece == pytest.approx(abs(0.7 - many.precision) + many.ece_noise, abs=0.03)
    assert many.summary().metrics["micro_f1"].value == many.micro_f1
    assert report(50) == few


def test_evaluate_spans_noise_is_what_perfect_confidences_show() -> None:
    rng = np.random.default_rng(0)
    eces, noises = [], []
    for _ in range(10):
        scores = rng.uniform(0.2, 1, 100)
        is_right = rng.random(100) < scores
        data = dataset(*[[(0, 4, "name")] if right else [] for right in is_right])
        report = evaluate([[Span("name", 0, 4, float(score))] for score in scores], data)
        eces.append(report.ece)
        noises.append(report.ece_noise)
    assert np.mean(eces) == pytest.approx(np.mean(noises), abs=0.02)


def test_evaluate_spans_reliability_is_what_the_ece_is_made_of() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, 200)
    data = dataset(*[[(0, 4, "name")] if right else [] for right in rng.random(200) < 0.5])
    report = evaluate([[Span("name", 0, 4, float(score))] for score in scores], data)
    gap = sum(abs(b.accuracy - b.confidence) * b.n for b in report.reliability)
    assert gap / 200 == pytest.approx(report.ece)
    assert evaluate([[], []], dataset([], [])).reliability == ()


def test_span_findings_count_what_the_report_counts() -> None:
    data = dataset([(0, 4, "name"), (5, 9, "time")], [(3, 6, "time")], [])
    found = [[Span("time", 5, 9, 0.9), Span("name", 0, 3, 0.9)], [], [Span("name", 1, 2, 0.1)]]
    made = span_findings(found, data, ("name", "people", "time"))
    report = evaluate(found, data)
    assert made.counts.sum(axis=(0, 1)).tolist() == [report.right, report.predicted, report.spans]
    f1 = made.f1(made.names, np.ones((1, 3), np.int64))[0]
    assert f1.tolist() == [report.micro_f1, *(each.f1 for each in report.fields)]
    assert made.shown == ("name 0-3, time 5-9", "(nothing)", "name 1-2")
    assert shown_spans(data.spans[0]) == "name 0-4, time 5-9"


def test_evaluate_spans_judges_the_confidence_in_whole_answers() -> None:
    data = dataset([(0, 4, "name")], [(0, 4, "name")], [])
    found = [[Span("name", 0, 4, 0.9)], [], []]
    sure = np.array([0.9, 0.6, 0.8])
    plain = evaluate(found, data)
    report = evaluate_spans(found, data, Judge(), confidence_n=sure)  # type: ignore[arg-type]
    assert plain.whole is None
    assert "whole_ece" not in plain.summary().metrics
    assert report.whole is not None
    # The second row misses its span.
    assert report.whole.ece.value == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    assert report.summary().metrics == {
        **plain.summary().metrics,
        "whole_ece": report.whole.ece,
    }
