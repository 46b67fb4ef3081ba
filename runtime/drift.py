"""Compare traffic with the rows that a bundle was tuned or evaluated on, and say if it differs.

Two things must come together before anything is said: a difference that matters, and one that
chance does not explain.

- How large a difference is says the population stability index (PSI), over bins of confidence, over
  labels, or over the two outcomes of being passed on or not. By the usual reading (Siddiqi, Credit
  Risk Scorecards, 2006) traffic is to be watched from 0.1 on and has drifted from 0.25 on. What few
  rows add to it by chance is taken off first.
- Whether it may be chance says Pearson's test of homogeneity, and of confidences the test of
  Kolmogorov and Smirnov, too. All tests of one comparison share an error of `FALSE_ALARMS`
  (Bonferroni): a window of unchanged traffic raises an alarm of any kind at most that often, if its
  rows have nothing to do with each other. The same text again and again is one row in truth.

What was promised when the thresholds were tuned is put to the test directly, where right answers
are known.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sprat.bundle_manifest import BundleManifest
from sprat.significance import (
    binomial_tail,
    chi_square_tail,
    clopper_pearson,
    kolmogorov_tail,
    paired_difference,
)
from sprat.tuning_manifest import Traffic, Tuning
from sprat.values import Drift, DriftFigure, DriftReference, DriftSubject, Verdict

WATCH = 0.1
DRIFTED = 0.25
KS_WATCH = 0.1
"""From which Kolmogorov-Smirnov statistic on a tier is to be watched: a tenth of the rows has moved
from one side of some confidence to the other."""

FALSE_ALARMS = 0.01
"""How probable any alarm may be in a comparison of unchanged traffic."""

LEAST_ROWS = 100
LEAST_ROWS_A_BIN = 5
"""Fewer rows, altogether or for each bin, are too few to say: Pearson's test is not exact there."""

LEAST_REVIEWED = 30
"""Fewer rows with a right answer are too few to say that a guarantee holds."""

NAMES: dict[DriftSubject, str] = {
    "confidence": "confidence",
    "passed_on": "passed on",
    "labels": "answers by label",
    "agreement": "agreement with the last tier",
    "error": "wrong answers",
    "loss": "lost against the last tier",
}
VERDICTS: dict[Verdict, str] = {
    "stable": "stable",
    "watch": "watch",
    "drifted": "DRIFTED",
    "too_few": "too few rows to say",
    "unknown": "nothing to compare with",
}
"""For people."""

_ORDER: tuple[Verdict, ...] = ("unknown", "too_few", "stable", "watch", "drifted")


class Row(NamedTuple):
    """What tiers made of a row.

    Attributes
    ----------
    bins : tuple of int
        The bin of its confidence in each tier that it reached.
    is_passed_on : bool
        Whether the last of these was not sure enough.
    label : str or None
        The answer, empty for none. None: it is not the cascade's own, since a tier was missed.
    """

    bins: tuple[int, ...]
    is_passed_on: bool
    label: str | None


class Outcome(NamedTuple):
    """What became known of an answer after it had been given.

    Attributes
    ----------
    is_agreed : bool or None
        Of an earlier tier: whether it is the last one's, too. None: the last one was not asked.
    is_right : bool or None
        None: nobody said.
    is_last_right : bool or None
        Of an earlier tier: whether the last one's is right. None: one of both is not known.
    """

    is_agreed: bool | None = None
    is_right: bool | None = None
    is_last_right: bool | None = None


@dataclass(slots=True)
class Counts:
    """Rows, counted as those of a `sprat.tuning_manifest.Traffic` are.

    Attributes
    ----------
    edges : list of tuple of float
        By tier: between its bins of confidence.
    rows : int
    bins : list of list of int
        By tier, then by bin.
    passed_on : list of int
        By tier; of the last one those that it abstained from.
    labels : Counter of str
        Answers; the empty string for none.
    answered : int
        Answers that were not withheld.
    early, agreed : int
        Answers of earlier tiers whose last tier's answer is known, and those that are the same.
    reviewed, wrong : int
        Answers that somebody gave the right one for, and those that are not.
    both_known, gained, lost : int
        Answers of earlier tiers of which both is known; those that only the last tier, and those
        that only the earlier one has right.
    """

    edges: list[tuple[float, ...]]
    rows: int
    bins: list[list[int]]
    passed_on: list[int]
    labels: Counter[str]
    answered: int = 0
    early: int = 0
    agreed: int = 0
    reviewed: int = 0
    wrong: int = 0
    both_known: int = 0
    gained: int = 0
    lost: int = 0

    @classmethod
    def of(cls, traffic: Traffic) -> Counts:
        """No rows yet."""
        bins = [[0] * len(tier.counts) for tier in traffic.tiers]
        edges = [tier.edges for tier in traffic.tiers]
        return cls(edges, 0, bins, [0] * len(bins), Counter())

    def row(self, confidences: Iterable[float], *, is_passed_on: bool, label: str | None) -> Row:
        """A row by what each tier that it reached is confident of, from the first one on."""
        bins = tuple(map(bisect.bisect_right, self.edges, confidences))
        return Row(bins, is_passed_on, label)

    def count(self, rows: Sequence[Row], sign: int = 1) -> None:
        """Count rows, or with a ``sign`` of -1 take them away again; many at once cost less."""
        self.rows += sign * len(rows)
        reached = rows
        for tier, bins in enumerate(self.bins):
            reached = [row for row in reached if len(row.bins) > tier]
            for at, number in Counter([row.bins[tier] for row in reached]).items():
                bins[at] += sign * number
            left = [row for row in reached if row.is_passed_on or len(row.bins) > tier + 1]
            self.passed_on[tier] += sign * len(left)
        self.answered += sign * len([row for row in rows if not row.is_passed_on])
        for label, number in Counter([row.label for row in rows]).items():
            if label is not None:
                self.labels[label] += sign * number

    def learn(self, outcome: Outcome, sign: int = 1) -> None:
        """Count what became known of an answer, or with a ``sign`` of -1 take it away again."""
        if outcome.is_agreed is not None:
            self.early += sign
            self.agreed += sign * outcome.is_agreed
        if outcome.is_right is None:
            return
        self.reviewed += sign
        self.wrong += sign * (not outcome.is_right)
        if outcome.is_last_right is not None:
            self.both_known += sign
            self.gained += sign * (outcome.is_last_right > outcome.is_right)
            self.lost += sign * (outcome.is_right > outcome.is_last_right)


def psi(counts: Sequence[int], expected: Sequence[int]) -> float:
    """Population stability index of counts against others.

    The sum over bins of (p - q) ln(p / q), p and q being the shares of a bin: the symmetric
    divergence of Kullback and Leibler. Half a row is added to every bin, so that empty ones have a
    logarithm.

    Parameters
    ----------
    counts, expected : sequence of int
        Of the same B bins.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> round(psi([50, 50], [50, 50]), 3), round(psi([80, 20], [50, 50]), 2)
    (0.0, 0.41)
    """
    shares, others = (
        (row + 0.5) / (row + 0.5).sum() for row in np.array([counts, expected], np.float64)
    )
    return float(((shares - others) * np.log(shares / others)).sum())


def psi_by_chance(bins: int, rows: int, expected_rows: int) -> float:
    """Mean of the `psi` of two samples of the same: (B - 1) (1 / n + 1 / m).

    Source: Yurdakul and Naranjo, Statistical properties of the population stability index, 2020.
    """
    return (bins - 1) * (1 / rows + 1 / expected_rows)


def homogeneity(counts: Sequence[int], expected: Sequence[int]) -> float:
    """Probability of counts as different as these where both are samples of the same.

    Pearson's chi-square test of a table of two rows; bins that are empty in both do not count.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(homogeneity([60, 40], [50, 50]), 4)
    0.1552
    """
    table = np.array([counts, expected], np.float64)
    table = table[:, table.sum(axis=0) > 0]
    fitting = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return chi_square_tail(float(((table - fitting) ** 2 / fitting).sum()), table.shape[1] - 1)


def kolmogorov_smirnov(counts: Sequence[int], expected: Sequence[int]) -> tuple[float, float]:
    """Largest difference of two cumulated shares, and how probable it is for samples of the same.

    The test of two samples, at the edges of bins only: the probability is at most too high.

    Returns
    -------
    (float, float)
        Both in [0, 1].

    Examples
    --------
    >>> [round(x, 3) for x in kolmogorov_smirnov([60, 40], [50, 50])]
    [0.1, 0.699]
    """
    table = np.array([counts, expected], np.float64)
    rows, expected_rows = table.sum(axis=1).tolist()
    first, second = np.cumsum(table, axis=1) / table.sum(axis=1, keepdims=True)
    largest = float(np.abs(first - second).max())
    return largest, kolmogorov_tail(
        math.sqrt(rows * expected_rows / (rows + expected_rows)) * largest
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """What the answers of a task are compared with.

    Attributes
    ----------
    traffic : Traffic
        Of a tuning, or of an evaluation.
    tuning : Tuning or None
        What was promised with it; None of an evaluation.
    """

    traffic: Traffic
    tuning: Tuning | None = None

    @property
    def source(self) -> DriftReference:
        """Which rows these were."""
        return "evaluation" if self.tuning is None else "tuning"


def reference(manifest: BundleManifest, parts: Sequence[tuple[str, float]]) -> Reference | str:
    """What answers of some tiers of a bundle are compared with; or why there is nothing.

    The rows that the thresholds were verified on; of a tier that answers alone, the held-out rows
    that it was evaluated on.

    Parameters
    ----------
    parts : sequence of (str, float)
        Name and threshold of each tier that takes part.
    """
    tuning = manifest.tuning
    own = [(tier.name, tier.accept_at) for tier in manifest.tiers]
    traffic = None if tuning is None else tuning.traffic
    counted = [] if traffic is None else [tier.name for tier in traffic.tiers]
    if traffic is not None and list(parts) == own and counted == [name for name, _ in own]:
        return Reference(traffic, tuning)
    if len(parts) == 1:
        (tier,) = (tier for tier in manifest.tiers if tier.name == parts[0][0])
        if tier.traffic is not None:
            return Reference(tier.traffic)
        return (
            f"tier {tier.name} comes from a version that kept no rows to compare with: train the "
            "bundle again"
        )
    if tuning is None:
        return "the thresholds were not tuned: run sprat tune, which keeps rows to compare with"
    if list(parts) != own:
        return "the tiers and thresholds that are served are not those of the tuning"
    return "the bundle was tuned by a version that kept no rows to compare with: tune it again"


def compare(compared_with: Reference, counts: Counts) -> Drift:
    """Compare rows with those of a reference, and what was promised with what is known of them.

    Parameters
    ----------
    compared_with : Reference
    counts : Counts
        Of the rows.
    """
    traffic, tuning = compared_with.traffic, compared_with.tuning
    figures = []
    for at, tier in enumerate(traffic.tiers):
        figures.append(_spread("confidence", tier.name, counts.bins[at], tier.counts))
        if tier.passed_on is None:
            continue
        passed_on, reached = counts.passed_on[at], sum(counts.bins[at])
        expected = (tier.passed_on, tier.rows - tier.passed_on)
        figures.append(_share("passed_on", tier.name, (passed_on, reached - passed_on), expected))
    if traffic.labels:
        names = sorted({*traffic.labels, *counts.labels})
        expected_labels = [traffic.labels.get(name, 0) for name in names]
        figures.append(_spread("labels", "", [counts.labels[n] for n in names], expected_labels))
    if counts.early:
        agreed = counts.agreed, counts.early - counts.agreed
        expected = (traffic.agreed, traffic.early - traffic.agreed)
        figures.append(_share("agreement", "", agreed, expected))
    if tuning is not None and tuning.rule == "error":
        figures.append(_error(counts, tuning.limit))
    if tuning is not None and tuning.rule == "loss":
        figures.append(_loss(counts, tuning.limit))
    tests = sum(each.p is not None for each in figures)
    judged = tuple(_judged(each, FALSE_ALARMS / max(1, tests)) for each in figures)
    worst = max((each.verdict for each in judged), key=_ORDER.index)
    return Drift(
        worst,
        counts.rows,
        judged,
        _note(judged, compared_with.source),
        compared_with.source,
        traffic.rows,
    )


def _spread(
    what: DriftSubject, tier: str, counts: Sequence[int], expected: Sequence[int]
) -> DriftFigure:
    """Counts over bins or labels against those of the tuning."""
    rows, expected_rows = sum(counts), sum(expected)
    figure = DriftFigure(what, tier, rows, "too_few")
    bins = sum(map(bool, map(max, counts, expected)))
    if min(rows, expected_rows) < max(LEAST_ROWS, LEAST_ROWS_A_BIN * bins):
        return figure
    p = homogeneity(counts, expected)
    ks = None
    if what == "confidence":
        ks, ks_p = kolmogorov_smirnov(counts, expected)
        p = min(1.0, 2 * min(p, ks_p))
    chance = psi_by_chance(bins, rows, expected_rows)
    return replace(figure, psi=psi(counts, expected), chance=chance, ks=ks, p=p)


def _share(
    what: DriftSubject, tier: str, counts: tuple[int, int], expected: tuple[int, int]
) -> DriftFigure:
    """The first of two counts as a share, and both against those of the tuning."""
    rows, expected_rows = sum(counts), sum(expected)
    figure = _spread(what, tier, counts, expected)
    if expected_rows:
        figure = replace(figure, expected=expected[0] / expected_rows)
    if not rows:
        return figure
    low, high = clopper_pearson(counts[0], rows)
    return replace(figure, share=counts[0] / rows, low=low, high=high)


def _error(counts: Counts, limit: float) -> DriftFigure:
    """The share of wrong answers against its limit, by an exact binomial test.

    Where nobody confirmed an answer, those who were content said nothing: then all other answers
    are taken as right, which is the least that may be wrong.
    """
    wrong, rows = counts.wrong, counts.reviewed
    if rows == wrong > 0:
        rows = max(counts.answered, wrong)
    figure = DriftFigure("error", "", rows, "too_few", expected=limit)
    if not rows:
        return figure
    low, high = clopper_pearson(wrong, rows)
    p = binomial_tail(wrong, rows, limit)
    return replace(figure, share=wrong / rows, low=low, high=high, p=p)


def _loss(counts: Counts, limit: float) -> DriftFigure:
    """What is lost against the last tier: on the rows that it did not answer, times their share."""
    early = 1 - sum(counts.bins[-1]) / max(1, counts.rows)
    figure = DriftFigure("loss", "", counts.both_known, "too_few", expected=limit)
    if not counts.both_known or early <= 0:
        return figure
    difference = paired_difference(counts.gained, counts.lost, counts.both_known)
    low, high = (early * difference.inv_cdf(tail) for tail in (0.025, 0.975))
    share = early * (counts.gained - counts.lost) / counts.both_known
    return replace(figure, share=share, low=low, high=high, p=difference.cdf(limit / early))


def _judged(figure: DriftFigure, level: float) -> DriftFigure:
    """A figure with its verdict, where chance may give as much with a probability of ``level``."""
    verdict: Verdict = "stable"
    if figure.p is None:
        verdict = "too_few"
    elif figure.psi is None:
        if figure.p <= level:
            verdict = "drifted"
        elif figure.rows < LEAST_REVIEWED:
            verdict = "too_few"
    elif figure.p <= level:
        more = figure.psi - (figure.chance or 0)
        if more >= DRIFTED:
            verdict = "drifted"
        elif more >= WATCH or (figure.ks or 0) >= KS_WATCH:
            verdict = "watch"
    return replace(figure, verdict=verdict)


def _note(figures: Sequence[DriftFigure], source: DriftReference) -> str:
    what, again = "thresholds were tuned", "tune"
    if source == "evaluation":
        what, again = "task was evaluated", "train"
    broken = {each.what for each in figures if each.verdict == "drifted"}
    if broken & {"error", "loss"}:
        return "the guarantee no longer holds: tune again with newer rows"
    if broken:
        return f"traffic is not what the {what} on: {again} again with newer rows"
    if any(each.verdict == "watch" for each in figures):
        return f"traffic moves away from what the {what} on: collect newer rows"
    return ""


COLUMNS = (
    "figure",
    "rows",
    "now",
    "95 % interval",
    "reference",
    "PSI",
    "by chance",
    "KS",
    "verdict",
)


def cells(figure: DriftFigure) -> tuple[str, ...]:
    """A figure as a row of a table with `COLUMNS`."""

    def number(value: float | None, form: str = ".3f") -> str:
        return "" if value is None else format(value, form)

    name = NAMES.get(figure.what, figure.what)
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f"{figure.low:.1%} to {figure.high:.1%}"
    limit = "at most " if figure.what in ("error", "loss") else ""
    return (
        f"{figure.tier}: {name}" if figure.tier else name,
        f"{figure.rows:,}",
        number(figure.share, ".1%"),
        interval,
        limit + number(figure.expected, ".1%") if figure.expected is not None else "",
        number(figure.psi),
        number(figure.chance),
        number(figure.ks),
        VERDICTS[figure.verdict],
    )
