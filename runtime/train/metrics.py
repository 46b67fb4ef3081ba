"""The figures of an evaluation, for many resamples of its rows at once.

Rows stand in ascending order of confidence everywhere, and a sample is a row of ascending indices
into them: what needs the order (calibration error, risk and coverage) needs no further sorting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.manifest import Interval
from sprat.train.report import ReliabilityBin
from sprat.values import IntArray

BINS = 15
RESAMPLES = 1000
RISKS = (0.01, 0.05)
"""Shares of wrong answers for which the coverage is reported."""

MOST_POINTS = 100
"""Of a curve in a report."""

_CHUNK = 2_000_000
"""Rows of all samples in memory at once: bounds the memory to some 200 MB."""

Floats = npt.NDArray[np.float64]
Picks = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered to N rows, in ascending order of confidence.

    Attributes
    ----------
    targets, answers : int32[N]
        Right and given labels, from 0 to ``labels`` - 1.
    confidence : float64[N]
        That the answer is right, in [0, 1].
    lines : int64[N]
        In the data file.
    labels : int
        How many there are.
    """

    targets: IntArray
    answers: IntArray
    confidence: Floats
    lines: npt.NDArray[np.int64]
    labels: int

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right, bool[N]."""
        right_n: npt.NDArray[np.bool_] = self.targets == self.answers
        return right_n


@dataclass(frozen=True, slots=True)
class Rows(Answered):
    """The same, with what the probabilities of all labels are worth.

    Attributes
    ----------
    nll : float64[N]
        Negative logarithm of the right label's probability, in nats.
    brier : float64[N]
        Squared distance between the probabilities and the one-hot truth, in [0, 2].
    """

    nll: Floats
    brier: Floats


def figures(rows: Rows, picks_rn: Picks, threshold: float) -> dict[str, Floats]:
    """Every figure of R samples of the rows.

    Parameters
    ----------
    picks_rn : int[R, N]
        Ascending indices of each sample.
    threshold : float
        Confidence at which an answer counts as sure.

    Returns
    -------
    dict of str to float64[R]
        `sprat.train.report.Report` says what each is. Beside them ``label_f1``, float64[R, K].
    """
    right_rn = rows.right[picks_rn]
    confidence_rn = rows.confidence[picks_rn]
    sure_rn = confidence_rn >= threshold
    risk_rn = risks(right_rn)
    aurc_r = risk_rn.mean(axis=1)
    covered = coverages(confidence_rn, risk_rn, RISKS)
    f1_rk, occurs_rk = label_f1(rows, picks_rn)
    return {
        "accuracy": right_rn.mean(axis=1),
        "label_f1": f1_rk,
        "macro_f1": f1_rk.sum(axis=1) / occurs_rk.sum(axis=1),
        "ece": calibration_error(confidence_rn - right_rn),
        "nll": rows.nll[picks_rn].mean(axis=1),
        "brier": rows.brier[picks_rn].mean(axis=1),
        "aurc": aurc_r,
        "e_aurc": aurc_r - least_risk_areas(right_rn),
        **{
            f"coverage_at_risk_{risk * 100:g}": covered_r
            for risk, covered_r in zip(RISKS, covered, strict=True)
        },
        "above": sure_rn.mean(axis=1),
        "wrong_above": (sure_rn & ~right_rn).mean(axis=1),
    }


def ascending(confidence_n: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows in ascending order of confidence: int64[N].

    Rows of equal confidence come in random order: the order of the file, often sorted by label,
    would put the right ones into one bin and the wrong ones into another.
    """
    shuffled = rng.permutation(len(confidence_n))
    return shuffled[np.argsort(confidence_n[shuffled], kind="stable")]


def bootstrap(
    statistics: Callable[..., dict[str, Floats]], sizes: tuple[int, ...], rng: np.random.Generator
) -> dict[str, Floats]:
    """Statistics of 1,000 resamples with replacement (Efron, 1979).

    Parameters
    ----------
    statistics : callable
        From int32[R, n], ascending indices of R samples, one argument for each of ``sizes``, to
        arrays of R rows by name.
    sizes : tuple of int
        Numbers of rows, from 1. What lies in different populations is resampled apart.

    Returns
    -------
    dict of str to float64[1000, ...]
    """
    parts = []
    for count in pieces(sum(sizes)):
        samples = [rng.integers(0, n, (count, n), np.int32) for n in sizes]
        parts.append(statistics(*(np.sort(picks_rn, axis=1) for picks_rn in samples)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bounds(values_r: Floats) -> tuple[float, float]:
    """95 % percentile interval of resampled values."""
    low, high = np.percentile(values_r, [2.5, 97.5])
    return float(low), float(high)


def interval(value: float, values_r: Floats) -> Interval:
    """A figure with the `bounds` of its resampled values."""
    low, high = bounds(values_r)
    return Interval(value=value, low=low, high=high)


def intervals(
    statistics: Callable[..., dict[str, Floats]], sizes: tuple[int, ...], rng: np.random.Generator
) -> dict[str, Interval]:
    """Statistics of all rows, each a number, with the intervals of their resamples.

    See `bootstrap` for the parameters.
    """
    point = statistics(*(np.arange(n)[None] for n in sizes))
    samples = bootstrap(statistics, sizes, rng)
    return {name: interval(float(point[name][0]), samples[name]) for name in point}


def pieces(n: int) -> Iterator[int]:
    """Sizes that add up to `RESAMPLES`; so many samples of n rows are in memory at once."""
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        yield min(step, RESAMPLES - start)


def weights(n: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """How often each of n rows is in each of `RESAMPLES` resamples: int64[R, n], R in all."""
    for size in pieces(n):
        yield rng.multinomial(n, np.full(n, 1 / n), size=size)


def thinned(n: int) -> list[int]:
    """At most `MOST_POINTS` of n indices, evenly spread, with both ends."""
    kept: list[int] = np.linspace(0, n - 1, min(MOST_POINTS, n)).round().astype(int).tolist()
    return kept


def calibration_error(gap_rn: Floats) -> Floats:
    """Expected calibration errors of R samples.

    The mean, over 15 bins with equal numbers of rows (fewer bins for fewer rows), of the distance
    between accuracy and mean confidence: ECE (Naeini et al., 2015) with the adaptive bins of Nixon
    et al. (2019).

    Parameters
    ----------
    gap_rn : float64[R, N]
        Confidence minus right (0 or 1), by ascending confidence.

    Returns
    -------
    float64[R]
        In [0, 1].
    """
    n = gap_rn.shape[1]
    error_r: Floats = np.abs(np.add.reduceat(gap_rn, bin_starts(n), axis=1)).sum(axis=1) / n
    return error_r


def bin_starts(n: int) -> npt.NDArray[np.int64]:
    """First row of each of the bins of `calibration_error`, int64[min(15, n)]."""
    bins = min(BINS, n)
    return np.arange(bins) * n // bins


def reliability(confidence_n: Floats, right_n: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """The bins of `calibration_error`.

    Parameters
    ----------
    confidence_n : float64[N]
        Ascending.
    right_n : bool[N]
        Whether what has this confidence is right.
    """
    if len(confidence_n) == 0:
        return ()
    starts = bin_starts(len(confidence_n))
    return tuple(
        ReliabilityBin(
            n=len(confidence),
            confidence=float(confidence.mean()),
            accuracy=float(right.mean()),
            lowest=float(confidence[0]),
            highest=float(confidence[-1]),
        )
        for confidence, right in zip(
            np.split(confidence_n, starts[1:]), np.split(right_n, starts[1:]), strict=True
        )
    )


def calibration_noise(confidence_n: Floats, rng: np.random.Generator) -> float:
    """Mean calibration error where each answer is right with a chance of exactly its confidence.

    Consistency resampling (Bröcker and Smith, 2007).
    """
    n = len(confidence_n)
    errors = [
        calibration_error(confidence_n - (rng.random((count, n)) < confidence_n))
        for count in pieces(n)
    ]
    return float(np.concatenate(errors).mean())


def calibration_figures(
    confidence_n: Floats, right_n: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[float, float, Floats]:
    """The calibration error of N answers, what perfect confidences would show, and of resamples.

    Resamples repeat rows, which moves their errors up: they are shifted so that their mean is the
    figure.

    Parameters
    ----------
    confidence_n, right_n : float64[N], bool[N]
        In ascending order of confidence; N from 1.

    Returns
    -------
    float, float, float64[R]
    """
    gap_n = confidence_n - right_n
    ece = float(calibration_error(gap_n[None])[0])
    samples = bootstrap(
        lambda picks_rn: {"ece": calibration_error(gap_n[picks_rn])}, (len(gap_n),), rng
    )["ece"]
    noise = calibration_noise(confidence_n, rng)
    return ece, noise, np.maximum(samples + ece - samples.mean(), 0)


def risks(right_rn: npt.NDArray[np.bool_]) -> Floats:
    """Share of wrong answers among the i most confident ones, for i from 1 to N: float64[R, N]."""
    n = right_rn.shape[1]
    wrong_rn = (~right_rn[:, ::-1]).cumsum(axis=1)
    risk_rn: Floats = wrong_rn / np.arange(1, n + 1)
    return risk_rn


def least_risk_areas(right_rn: npt.NDArray[np.bool_]) -> Floats:
    """The least areas under the risk-coverage curves that R samples could have.

    The area is the mean of `risks` (AURC; Geifman and El-Yaniv, 2017). It is least where every
    right answer comes before every wrong one; what it has beyond that is its excess (E-AURC;
    Geifman et al., 2019).

    Parameters
    ----------
    right_rn : bool[R, N]

    Returns
    -------
    float64[R]
    """
    n = right_rn.shape[1]
    hits_r = right_rn.sum(axis=1)
    harmonic = np.concatenate([[0.0], (1 / np.arange(1, n + 1)).cumsum()])
    least_r: Floats = ((n - hits_r) - hits_r * (harmonic[n] - harmonic[hits_r])) / n
    return least_r


def coverages(confidence_rn: Floats, risk_rn: Floats, limits: tuple[float, ...]) -> list[Floats]:
    """Largest shares of rows that a threshold answers with a risk within each limit.

    Rows of one confidence are answered together or not at all.

    Parameters
    ----------
    confidence_rn : float64[R, N]
        Ascending.
    risk_rn : float64[R, N]
        See `risks`.

    Returns
    -------
    list of float64[R]
        For each limit; 0 where no threshold keeps within it.
    """
    r, n = risk_rn.shape
    cut_rn = np.ones((r, n), np.bool_)
    cut_rn[:, :-1] = np.diff(confidence_rn[:, ::-1], axis=1) != 0
    return [
        ((cut_rn & (risk_rn <= limit + 1e-12)) * np.arange(1, n + 1)).max(axis=1) / n
        for limit in limits
    ]


def label_f1(rows: Answered, picks_rn: Picks) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """F1 of every label in R samples, and whether the label occurs there at all.

    Returns
    -------
    f1 : float64[R, K]
        0 where nothing of a label is right.
    occurs : bool[R, K]
        Among the rows or the answers.
    """
    r, k = len(picks_rn), rows.labels
    offset = np.arange(r)[:, None] * k

    def count(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        return np.bincount(values.ravel(), minlength=r * k).reshape(r, k)

    targets_rn = rows.targets[picks_rn] + offset
    hits = count(targets_rn[rows.right[picks_rn]])
    total = count(targets_rn) + count(rows.answers[picks_rn] + offset)
    return 2 * hits / np.maximum(total, 1), total > 0


def auroc(higher_n: Floats, lower_m: Floats, higher_rn: Picks, lower_rm: Picks) -> Floats:
    """How well confidence tells two populations apart: area under the ROC curve, of R samples.

    The chance that a row of the first has the higher confidence of the two; ties count half.

    Parameters
    ----------
    higher_n, lower_m : float64[N], float64[M]
        Confidences of both, ascending.
    higher_rn, lower_rm : int[R, N], int[R, M]
        Ascending indices of R samples of each.

    Returns
    -------
    float64[R]
    """
    m, r = len(lower_m), len(lower_rm)
    counts = np.bincount((lower_rm + np.arange(r)[:, None] * m).ravel(), minlength=r * m)
    # How many of each sample's lower rows come before the j-th of all.
    before = np.concatenate(
        [np.zeros((r, 1)), counts.reshape(r, m).cumsum(axis=1, dtype=np.float64)], axis=1
    )
    won = np.take_along_axis(before, lower_m.searchsorted(higher_n, "left")[higher_rn], axis=1)
    not_lost = np.take_along_axis(
        before, lower_m.searchsorted(higher_n, "right")[higher_rn], axis=1
    )
    area_r: Floats = (won + not_lost).mean(axis=1) / (2 * m)
    return area_r


def scope_figures(
    inside_n: Floats, outside_m: Floats, inside_rn: Picks, outside_rm: Picks
) -> dict[str, Floats]:
    """How well confidence tells rows of the task's labels from rows of none of them.

    ``auroc`` is `auroc`. ``fpr95`` is the share of the other rows that reach the confidence which
    95 % of the task's rows reach (Hendrycks and Gimpel, 2017).

    Parameters
    ----------
    inside_n, outside_m, inside_rn, outside_rm
        See `auroc`.

    Returns
    -------
    dict of str to float64[R]
        ``out_of_scope_auroc`` and ``out_of_scope_fpr95``.
    """
    accepted_from = inside_n[inside_rn[:, len(inside_n) // 20]]
    return {
        "out_of_scope_auroc": auroc(inside_n, outside_m, inside_rn, outside_rm),
        "out_of_scope_fpr95": (outside_m[outside_rm] >= accepted_from[:, None]).mean(axis=1),
    }
