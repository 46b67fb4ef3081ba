"""Verdicts on traffic: no alarm without drift, drift is found, guarantees are put to the test."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tuned import tuning

from sprat.drift import (
    COLUMNS,
    DRIFTED,
    FALSE_ALARMS,
    KS_WATCH,
    LEAST_ROWS,
    WATCH,
    Counts,
    Reference,
    cells,
    compare,
    homogeneity,
    kolmogorov_smirnov,
    psi,
    psi_by_chance,
)
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import Drift, DriftFigure

ALARMS = ("watch", "drifted")


def promised(traffic: Traffic, rule: str, limit: float) -> Reference:
    return Reference(traffic, tuning(traffic, rule=rule, limit=limit))


def figure(drift: Drift, what: str, tier: str = "") -> DriftFigure:
    (found,) = (each for each in drift.figures if (each.what, each.tier) == (what, tier))
    return found


EDGES = (
    (0.27, 0.43, 0.55, 0.65, 0.75, 0.82, 0.87, 0.92, 0.96),
    (0.3, 0.45, 0.57, 0.66, 0.73, 0.79, 0.84, 0.88, 0.93),
)
"""Of bins of about equally many rows of the usual `World`."""


class World:
    """Traffic of a cascade of two tiers; a shift makes the first one less sure."""

    def __init__(self, labels: int = 20, shift: float = 0.0, skew: float = 1.0) -> None:
        self.names = [f"label {at}" for at in range(labels)]
        weights = np.arange(labels) + 4.0
        if skew != 1.0:
            weights[: labels // 4] *= skew
        self.weights = weights / weights.sum()
        self.shift = shift

    def counts(self, rows: int, rng: Any) -> Counts:
        odds_n = rng.logistic(1.5 - self.shift, 1.2, rows)
        first_n = 1 / (1 + np.exp(-odds_n))
        second_n = 1 / (1 + np.exp(-(odds_n + 1.5 + rng.normal(0, 1, rows))))
        label_n = rng.choice(len(self.names), rows, p=self.weights)
        is_on_n = first_n < 0.8
        abstains_n = is_on_n & (second_n < 0.6)
        bins = [
            np.bincount(np.searchsorted(own, seen, side="right"), minlength=10).tolist()
            for own, seen in zip(EDGES, (first_n, second_n[is_on_n]), strict=True)
        ]
        labels = Counter(self.names[at] for at in label_n[~abstains_n].tolist())
        labels[""] = int(abstains_n.sum())
        passed_on = [int(is_on_n.sum()), int(abstains_n.sum())]
        return Counts(list(EDGES), rows, bins, passed_on, labels)

    def traffic(self, rows: int, rng: Any) -> Traffic:
        """What a tuning would have kept."""
        counts = self.counts(rows, rng)
        return Traffic(
            rows=rows,
            tiers=tuple(
                TierTraffic(name=name, edges=own, counts=tuple(bins), passed_on=passed_on)
                for name, own, bins, passed_on in zip(
                    ("static", "head"), EDGES, counts.bins, counts.passed_on, strict=True
                )
            ),
            labels=dict(counts.labels),
        )


# -- statistics ------------------------------------------------------------------------------


def test_drift_psi_is_the_symmetric_divergence() -> None:
    first, second = [10, 20, 70], [30, 30, 40]
    p, q = (np.array(each) + 0.5 for each in (first, second))
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert psi(first, second) == pytest.approx(expected)
    assert psi(second, first) == pytest.approx(expected)
    assert psi([7, 7], [70, 70]) == pytest.approx(0, abs=1e-3)
    assert math.isfinite(psi([0, 100], [100, 0]))


def test_drift_psi_by_chance_is_what_samples_of_the_same_have() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(10, 20))
    drawn = [
        psi(rng.multinomial(500, shares).tolist(), rng.multinomial(1500, shares).tolist())
        for _ in range(2000)
    ]
    assert np.mean(drawn) == pytest.approx(psi_by_chance(10, 500, 1500), rel=0.05)


def test_drift_homogeneity_is_the_test_of_pearson() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        table = rng.integers(1, 60, (2, rng.integers(2, 30)))
        expected = stats.chi2_contingency(table, correction=False).pvalue
        assert homogeneity(*table.tolist()) == pytest.approx(expected, abs=1e-12)
    assert homogeneity([5, 0, 5], [50, 0, 50]) == pytest.approx(1)


def test_drift_kolmogorov_smirnov_is_that_of_rows_at_edges() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        first, second = rng.integers(0, 10, 300), rng.binomial(9, 0.5, 500)
        exact = stats.ks_2samp(first, second, method="asymp")
        counts = [np.bincount(each, minlength=10).tolist() for each in (first, second)]
        largest, p = kolmogorov_smirnov(*counts)
        assert largest == pytest.approx(exact.statistic)
        assert p == pytest.approx(stats.kstwobign.sf(math.sqrt(300 * 500 / 800) * largest))


# -- verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [120, 400, 2000])
def test_drift_unchanged_traffic_raises_no_more_alarms_than_stated(rows: int) -> None:
    """Against a tuning of its own each time: chance is in both."""
    rng = np.random.default_rng(rows)
    world, windows, alarms = World(), 200, 0
    for _ in range(windows):
        traffic = world.traffic(1500, rng)
        drift = compare(Reference(traffic), world.counts(rows, rng))
        alarms += drift.verdict in ALARMS
    # Of 200 windows 2 are to be expected at most; 8 or more would come once in a thousand times.
    assert alarms <= stats.binom.isf(0.001, windows, FALSE_ALARMS)


def test_drift_less_sure_traffic_is_found_in_500_rows() -> None:
    rng = np.random.default_rng(5)
    traffic = World().traffic(1500, rng)
    for _ in range(20):
        drift = compare(Reference(traffic), World(shift=1.5).counts(500, rng))
        assert drift.verdict == "drifted"
        assert figure(drift, "confidence", "static").verdict == "drifted"
        assert figure(drift, "passed_on", "static").verdict in ALARMS
        assert figure(drift, "labels").tier == ""
        assert drift.note.startswith("traffic is not what the task was evaluated on: train")


def test_drift_a_small_shift_is_watched_in_2000_rows() -> None:
    rng = np.random.default_rng(6)
    traffic = World().traffic(1500, rng)
    drifts = [compare(Reference(traffic), World(shift=0.6).counts(2000, rng)) for _ in range(20)]
    assert {drift.verdict for drift in drifts} == {"watch"}
    assert all(drift.note for drift in drifts)


def test_drift_other_labels_are_found_while_confidences_stay() -> None:
    rng = np.random.default_rng(7)
    traffic = World().traffic(1500, rng)
    drift = compare(Reference(traffic), World(skew=8.0).counts(1000, rng))
    assert figure(drift, "labels").verdict == "drifted"
    assert figure(drift, "confidence", "static").verdict == "stable"


def test_drift_a_new_label_counts() -> None:
    traffic = Traffic(rows=1000, tiers=(), labels={"a": 500, "b": 500})
    counts = Counts([], 1000, [], [], Counter({"a": 350, "b": 350, "c": 300}))
    assert figure(compare(Reference(traffic), counts), "labels").verdict == "drifted"


def test_drift_too_few_rows_say_nothing() -> None:
    rng = np.random.default_rng(8)
    traffic = World(labels=40).traffic(1500, rng)
    few = compare(Reference(traffic), World(labels=40, shift=4.0).counts(LEAST_ROWS - 1, rng))
    assert {each.verdict for each in few.figures} == {"too_few"}
    assert (few.verdict, few.rows, few.note) == ("too_few", LEAST_ROWS - 1, "")
    some = compare(Reference(traffic), World(labels=40).counts(LEAST_ROWS, rng))
    assert figure(some, "confidence", "static").verdict == "stable"
    assert figure(some, "labels").verdict == "too_few"  # 5 rows for each label are 200.
    assert some.verdict == "stable"
    nothing = compare(Reference(traffic), Counts.of(traffic))
    assert (nothing.verdict, nothing.rows) == ("too_few", 0)


def test_drift_small_references_say_nothing_either() -> None:
    rng = np.random.default_rng(9)
    traffic = World().traffic(LEAST_ROWS - 1, rng)
    drift = compare(Reference(traffic), World(shift=4.0).counts(2000, rng))
    assert drift.verdict == "too_few"


@pytest.mark.parametrize(
    ("now", "verdict"),
    [((500, 500), "stable"), ((660, 340), "watch"), ((750, 250), "drifted")],
)
def test_drift_share_of_agreement_is_compared(now: tuple[int, int], verdict: str) -> None:
    traffic = Traffic(rows=2000, tiers=(), labels={}, early=2000, agreed=1000)
    counts = Counts([], 1000, [], [], Counter(), early=1000, agreed=now[0])
    found = figure(compare(Reference(traffic), counts), "agreement")
    assert found.verdict == verdict
    assert (found.share, found.expected) == (now[0] / 1000, 0.5)
    exact = stats.binomtest(now[0], 1000).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert (WATCH, DRIFTED, KS_WATCH) == (0.1, 0.25, 0.1)


def test_drift_share_without_a_reference_is_shown_and_not_judged() -> None:
    """Where the last tier says more than a label, a tuning knows nothing of agreement."""
    traffic = Traffic(rows=2000, tiers=(), labels={})
    counts = Counts([], 1000, [], [], Counter(), early=1000, agreed=900)
    found = figure(compare(Reference(traffic), counts), "agreement")
    assert (found.share, found.expected, found.verdict) == (0.9, None, "too_few")


def test_drift_rows_that_leave_the_window_leave_no_trace() -> None:
    rng = np.random.default_rng(10)
    traffic = World().traffic(500, rng)
    counts = Counts.of(traffic)
    rows = [
        counts.row([0.95], is_passed_on=False, label="a"),
        counts.row([0.3, 0.2], is_passed_on=True, label=""),
        counts.row([0.3], is_passed_on=True, label=None),
    ]
    for row in rows:
        counts.count([row])
    assert (counts.rows, counts.passed_on) == (3, [2, 1])
    assert counts.labels == {"a": 1, "": 1}
    assert [sum(bins) for bins in counts.bins] == [3, 1]
    for row in rows:
        counts.count([row], -1)
    assert +counts.labels == Counter()
    assert (counts.rows, counts.passed_on) == (0, [0, 0])
    assert counts.bins == [[0] * 10, [0] * 10]


# -- guarantees ------------------------------------------------------------------------------


def answers(rows: int, *, last: int = 0, **more: int) -> tuple[Traffic, Counts]:
    """Answers of two tiers, ``last`` of them by the second one, beside a tuning of the same."""
    tier = TierTraffic(name="static", edges=(), counts=(rows,), passed_on=last)
    second = TierTraffic(name="head", edges=(), counts=(max(last, 1),), passed_on=0)
    traffic = Traffic(rows=rows, tiers=(tier, second), labels={"a": rows})
    bins = [[rows], [last]]
    return traffic, Counts([(), ()], rows, bins, [last, 0], Counter({"a": rows}), rows, **more)


def test_drift_error_above_its_limit_ends_the_guarantee() -> None:
    traffic, counts = answers(1000, reviewed=400, wrong=40)
    drift = compare(promised(traffic, "error", 0.05), counts)
    found = figure(drift, "error")
    assert (found.rows, found.share, found.expected) == (400, 0.1, 0.05)
    assert found.p == pytest.approx(stats.binomtest(40, 400, 0.05, "greater").pvalue)
    assert found.verdict == drift.verdict == "drifted"
    assert drift.note == "the guarantee no longer holds: tune again with newer rows"
    assert figure(compare(promised(traffic, "error", 0.09), counts), "error").verdict == ("stable")


def test_drift_error_of_few_rows_is_not_called_good() -> None:
    traffic, counts = answers(1000, reviewed=20, wrong=1)
    assert figure(compare(promised(traffic, "error", 0.05), counts), "error").verdict == ("too_few")
    traffic, counts = answers(1000)
    found = figure(compare(promised(traffic, "error", 0.05), counts), "error")
    assert (found.verdict, found.rows, found.share) == ("too_few", 0, None)
    traffic, counts = answers(1000, reviewed=20, wrong=15)
    found = figure(compare(promised(traffic, "error", 0.05), counts), "error")
    assert found.verdict == "drifted"


def test_drift_error_takes_silence_as_consent_where_nobody_confirms() -> None:
    """Those who correct what is wrong are no sample: 40 of 40 does not mean that all is wrong."""
    traffic, counts = answers(1000, reviewed=40, wrong=40)
    found = figure(compare(promised(traffic, "error", 0.05), counts), "error")
    assert (found.rows, found.share, found.verdict) == (1000, 0.04, "stable")
    found = figure(compare(promised(traffic, "error", 0.02), counts), "error")
    assert found.verdict == "drifted"


def test_drift_error_within_its_limit_is_rarely_taken_for_more() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for wrong in rng.binomial(300, 0.05, 1000).tolist():
        traffic, counts = answers(1000, reviewed=300, wrong=wrong)
        found = figure(compare(promised(traffic, "error", 0.05), counts), "error")
        alarms += found.verdict == "drifted"
    assert alarms <= stats.binom.isf(0.001, 1000, FALSE_ALARMS)


def test_drift_loss_is_of_all_rows_and_against_the_last_tier() -> None:
    """Where a third is answered by the last tier, what the others lose counts for two thirds."""
    traffic, counts = answers(1500, last=500, both_known=300, gained=33, lost=3)
    drift = compare(promised(traffic, "loss", 0.02), counts)
    found = figure(drift, "loss")
    assert found.rows == 300
    assert found.share == pytest.approx(2 / 3 * 0.1)
    assert found.low is not None
    assert found.high is not None
    assert 0.02 < found.low < found.share < found.high < 0.12
    assert found.verdict == "drifted"
    assert drift.note.startswith("the guarantee no longer holds")
    kept = figure(compare(promised(traffic, "loss", 0.06), counts), "loss")
    assert kept.verdict == "stable"


def test_drift_loss_needs_rows_of_which_both_is_known() -> None:
    traffic, counts = answers(1500, last=500)
    found = figure(compare(promised(traffic, "loss", 0.02), counts), "loss")
    assert (found.verdict, found.share) == ("too_few", None)


def test_drift_promises_nothing_of_a_cost() -> None:
    traffic, counts = answers(1000, reviewed=100, wrong=90)
    drift = compare(promised(traffic, "cost", 0.5), counts)
    assert {each.what for each in drift.figures} == {"confidence", "passed_on", "labels"}


def test_drift_cells_fit_their_columns() -> None:
    traffic, counts = answers(1500, last=500, both_known=300, gained=33, lost=3)
    drift = compare(promised(traffic, "loss", 0.02), counts)
    rows = [cells(each) for each in drift.figures]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[-1][:3] == ("lost against the last tier", "300", "6.7%")
    assert rows[-1][4] == "at most 2.0%"
    assert rows[-1][-1] == "DRIFTED"


# -- references ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": (1, 2)}, "2 counts for 2 edges"),
        ({"edges": (0.5, 0.5)}, "expected ascending numbers"),
        ({"passed_on": 7}, "expected at most 6 rows"),
        ({"counts": (1, 2, -3)}, "greater than or equal to 0"),
    ],
)
def test_drift_reference_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    fields = {"name": "static", "edges": (0.5, 0.8), "counts": (1, 2, 3), "passed_on": 2}
    assert TierTraffic.model_validate(fields).rows == 6
    with pytest.raises(ValueError, match=message):
        TierTraffic.model_validate({**fields, **changes})
