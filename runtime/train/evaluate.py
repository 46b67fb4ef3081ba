"""How good a classifier is on rows that it has not seen: figures, intervals, where it errs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.manifest import Interval, ReportSummary
from sprat.train.calibrate import log_softmax
from sprat.values import FloatArray, IntArray

METRICS = ("accuracy", "macro_f1", "ece", "nll", "brier")
BINS = 15
RESAMPLES = 1000
CONFIDENT = 0.9
MOST_LISTED = 20
"""Confused pairs and confident wrong answers in a report; the counts cover all."""

_CHUNK = 2_000_000
"""Rows of all samples in memory at once: bounds the memory to some 100 MB."""

_Floats = npt.NDArray[np.float64]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelReport(_Part):
    """How one label fares.

    Attributes
    ----------
    precision, recall, f1 : float
        In [0, 1]; 0 where nothing was predicted or nothing was there.
    support, predicted : int
        Rows that have the label; rows that got it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


class Confusion(_Part):
    """Rows of ``label`` that were answered with ``predicted``."""

    label: str
    predicted: str
    count: int


class WrongAnswer(_Part):
    """A wrong answer with a high confidence: a hard case, or a wrong label in the data.

    Attributes
    ----------
    line : int
        The row's line in the data file.
    """

    line: int
    label: str
    predicted: str
    confidence: float


class ReliabilityBin(_Part):
    """Rows of similar confidence: calibrated answers have ``accuracy`` near ``confidence``.

    Attributes
    ----------
    confidence, accuracy : float
        Means over the bin.
    lowest, highest : float
        The confidences that it spans.
    """

    n: int
    confidence: float
    accuracy: float
    lowest: float
    highest: float


class Report(_Part):
    """An evaluation; plain JSON through ``model_dump(mode="json")``, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows.
    accuracy : float
        Share of right answers.
    macro_f1 : float
        Mean F1 over the labels that occur among the rows or the answers.
    ece : float
        Expected calibration error of the best answer's probability, in [0, 1]; see `evaluate`.
    ece_noise : float
        What ``ece`` would be, on average, if the confidences were perfect: the part that comes
        from having so few rows.
    nll : float
        Mean negative log-likelihood of the right label, in nats.
    brier : float
        Mean squared distance between probabilities and the one-hot truth, in [0, 2].
    intervals : dict of str to (float, float)
        95 % bootstrap interval of each of the five.
    confident, confident_wrong : int
        Answers with a probability above 0.9; how many of them are wrong.
    worst : tuple of WrongAnswer
        The most confident wrong answers above 0.9, at most 20.
    labels : tuple of LabelReport
        In the order of the bundle.
    confusions : tuple of Confusion
        The most frequent ones, at most 20.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least confident answers to the most.
    """

    n: int
    accuracy: float
    macro_f1: float
    ece: float
    ece_noise: float
    nll: float
    brier: float
    intervals: dict[str, tuple[float, float]]
    confident: int
    confident_wrong: int
    worst: tuple[WrongAnswer, ...]
    labels: tuple[LabelReport, ...]
    confusions: tuple[Confusion, ...]
    reliability: tuple[ReliabilityBin, ...]

    def interval(self, metric: str) -> Interval:
        """A figure with its interval; ``metric`` is one of `METRICS`."""
        low, high = self.intervals[metric]
        return Interval(value=getattr(self, metric), low=low, high=high)

    def summary(self) -> ReportSummary:
        """What a bundle's manifest says of the evaluation."""
        return ReportSummary(n=self.n, metrics={name: self.interval(name) for name in METRICS[:3]})


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is known of each row, in the order of confidence."""

    targets: IntArray
    answers: IntArray
    confidence: _Floats
    nll: _Floats
    brier: _Floats
    lines: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]


def evaluate(
    logits_nk: FloatArray,
    targets_n: IntArray,
    *,
    labels: Sequence[str],
    lines: Sequence[int],
    temperature: float,
    seed: int = 0,
) -> Report:
    """Evaluate answers against the truth.

    The calibration error is the mean, over 15 bins with equal numbers of rows in the order of
    confidence (fewer bins for fewer rows), of the distance between the bin's accuracy and its mean
    confidence: ECE (Naeini et al., 2015) with the adaptive bins of Nixon et al. (2019). It is
    biased upwards when rows are few. How far is simulated: 1,000 times each answer is right with a
    chance of exactly its confidence, and the mean error that shows is ``ece_noise`` (consistency
    resampling, Bröcker and Smith, 2007). Only what ``ece`` has beyond it speaks against the
    confidences.

    Intervals run from the 2.5th to the 97.5th percentile over 1,000 resamples of the rows with
    replacement (Efron, 1979). Resamples repeat rows, which moves their calibration errors up once
    more; these are shifted so that their mean is the figure, and cut off at 0.

    Parameters
    ----------
    logits_nk : float32[N, K]
        N from 1.
    targets_n : int32[N]
        Right labels as indices into ``labels``.
    labels : sequence of str
        K labels.
    lines : sequence of int
        Line of each row in its file.
    temperature : float
        As in `sprat.train.calibrate.log_softmax`.
    seed : int
        Of the resampling; at least 0.
    """
    rng = np.random.default_rng(seed)
    rows = _judge(logits_nk, targets_n, lines, temperature, rng)
    n, k = len(targets_n), len(labels)
    figures = _statistics(rows, np.arange(n)[None, :], k)[:, 0]
    resamples = _bootstrap(rows, k, rng)
    ece = METRICS.index("ece")
    resamples[ece] += figures[ece] - resamples[ece].mean()
    resamples[ece] = np.maximum(resamples[ece], 0)
    bounds = np.percentile(resamples, [2.5, 97.5], axis=1).T
    confusion_kk = np.bincount(rows.targets * k + rows.answers, minlength=k * k).reshape(k, k)
    sure = rows.confidence > CONFIDENT
    wrong = np.flatnonzero(sure & ~rows.right)[::-1]
    return Report(
        n=n,
        **dict(zip(METRICS, figures.tolist(), strict=True)),
        ece_noise=_ece_noise(rows.confidence, rng),
        intervals={m: (low, high) for m, (low, high) in zip(METRICS, bounds.tolist(), strict=True)},
        confident=int(sure.sum()),
        confident_wrong=len(wrong),
        worst=tuple(
            WrongAnswer(
                line=int(rows.lines[i]),
                label=labels[rows.targets[i]],
                predicted=labels[rows.answers[i]],
                confidence=float(rows.confidence[i]),
            )
            for i in wrong[:MOST_LISTED]
        ),
        labels=_per_label(confusion_kk, labels),
        confusions=_confusions(confusion_kk, labels),
        reliability=_reliability(rows),
    )


def _judge(
    logits_nk: FloatArray,
    targets_n: IntArray,
    lines: Sequence[int],
    temperature: float,
    rng: np.random.Generator,
) -> _Rows:
    log_p = log_softmax(logits_nk, temperature)
    p = np.exp(log_p)
    every = np.arange(len(targets_n))
    answers = log_p.argmax(axis=1).astype(np.int32)
    confidence = p[every, answers]
    truth = np.zeros_like(p)
    truth[every, targets_n] = 1
    # Rows of equal confidence come in random order: the order of the file, often sorted by
    # label, would put the right ones into one bin and the wrong ones into another.
    order = rng.permutation(len(every))
    order = order[np.argsort(confidence[order], kind="stable")]
    return _Rows(
        targets_n[order],
        answers[order],
        confidence[order],
        -log_p[every, targets_n][order],
        np.square(p - truth).sum(axis=1)[order],
        np.asarray(lines, np.int64)[order],
        (answers == targets_n)[order],
    )


def _bootstrap(rows: _Rows, k: int, rng: np.random.Generator) -> _Floats:
    """`METRICS` of every resample: float64[5, 1000]."""
    n = len(rows.targets)
    parts = []
    for count in _pieces(n):
        picks = rng.integers(0, n, (count, n), np.int32)
        # Sorted indices are rows sorted by confidence, as the bins need them.
        picks.sort(axis=1)
        parts.append(_statistics(rows, picks, k))
    return np.concatenate(parts, axis=1)


def _ece_noise(confidence_n: _Floats, rng: np.random.Generator) -> float:
    """Mean calibration error where each answer is right with a chance of its confidence."""
    n = len(confidence_n)
    errors = [_ece(confidence_n - (rng.random((count, n)) < confidence_n)) for count in _pieces(n)]
    return float(np.concatenate(errors).mean())


def _pieces(n: int) -> Iterator[int]:
    """Sizes that add up to `RESAMPLES`; so many samples of n rows are in memory at once."""
    step = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, step):
        yield min(step, RESAMPLES - start)


def _statistics(rows: _Rows, picks_rn: npt.NDArray[np.integer], k: int) -> _Floats:
    """`METRICS` of R samples of the rows, given as ascending indices: float64[5, R]."""
    right_rn = rows.right[picks_rn]
    return np.stack(
        [
            right_rn.mean(axis=1),
            _macro_f1(rows.targets[picks_rn], rows.answers[picks_rn], right_rn, k),
            _ece((rows.confidence - rows.right)[picks_rn]),
            rows.nll[picks_rn].mean(axis=1),
            rows.brier[picks_rn].mean(axis=1),
        ]
    )


def _ece(gap_rn: _Floats) -> _Floats:
    """Calibration errors of R samples, from confidence minus right (0 or 1), by confidence."""
    n = gap_rn.shape[1]
    error_r: _Floats = np.abs(np.add.reduceat(gap_rn, _bin_starts(n), axis=1)).sum(axis=1) / n
    return error_r


def _bin_starts(n: int) -> npt.NDArray[np.int64]:
    bins = min(BINS, n)
    return np.arange(bins) * n // bins


def _macro_f1(
    targets_rn: IntArray, answers_rn: IntArray, right_rn: npt.NDArray[np.bool_], k: int
) -> _Floats:
    r = len(targets_rn)
    offset = np.arange(r)[:, None] * k

    def count(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        return np.bincount(values, minlength=r * k).reshape(r, k)

    hits = count((targets_rn + offset)[right_rn])
    total = count((targets_rn + offset).ravel()) + count((answers_rn + offset).ravel())
    f1 = 2 * hits / np.maximum(total, 1)
    means: _Floats = f1.sum(axis=1) / (total > 0).sum(axis=1)
    return means


def _per_label(
    confusion_kk: npt.NDArray[np.int64], labels: Sequence[str]
) -> tuple[LabelReport, ...]:
    support, predicted = confusion_kk.sum(axis=1), confusion_kk.sum(axis=0)
    hits = confusion_kk.diagonal()
    return tuple(
        LabelReport(
            label=label,
            precision=float(hits[i] / max(1, predicted[i])),
            recall=float(hits[i] / max(1, support[i])),
            f1=float(2 * hits[i] / max(1, support[i] + predicted[i])),
            support=int(support[i]),
            predicted=int(predicted[i]),
        )
        for i, label in enumerate(labels)
    )


def _confusions(
    confusion_kk: npt.NDArray[np.int64], labels: Sequence[str]
) -> tuple[Confusion, ...]:
    counts = confusion_kk.copy()
    np.fill_diagonal(counts, 0)
    ranked = np.argsort(-counts, axis=None, kind="stable")[:MOST_LISTED]
    return tuple(
        Confusion(label=labels[i], predicted=labels[j], count=int(counts[i, j]))
        for i, j in (divmod(int(flat), len(labels)) for flat in ranked)
        if counts[i, j]
    )


def _reliability(rows: _Rows) -> tuple[ReliabilityBin, ...]:
    starts = _bin_starts(len(rows.targets))
    return tuple(
        ReliabilityBin(
            n=len(confidence),
            confidence=float(confidence.mean()),
            accuracy=float(right.mean()),
            lowest=float(confidence[0]),
            highest=float(confidence[-1]),
        )
        for confidence, right in zip(
            np.split(rows.confidence, starts[1:]), np.split(rows.right, starts[1:]), strict=True
        )
    )
