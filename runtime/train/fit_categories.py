"""Fit one yes-or-no head a category on frozen features: regularization and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Thresholds
from sprat.errors import SetupError
from sprat.head import sigmoid
from sprat.progress import Progress, Silent
from sprat.text.ngrams import ngram_features
from sprat.train.fit import REGULARIZATION, ClassWeights, fit_weights
from sprat.train.logistic import fit_logistic, platt_aims
from sprat.values import FloatArray, IntArray

_START = REGULARIZATION.index(16.0)
_BLOCK = 1024
"""Rows whose n-grams are made at a time, before they become sparse."""

Matrix = Any
"""float32[N, F]: an array, or a sparse matrix of SciPy, which has no types."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows as features: whole texts to learn from, and their windows to be judged by.

    A head learns from whole texts. It is judged as the server will judge: by the highest score
    among the windows of a text.

    Attributes
    ----------
    whole : float32[N, F]
    windows : float32[W, F]
        Of all rows, one row's behind the other's.
    starts : int64[N]
        First window of each row.
    """

    whole: Matrix
    windows: Matrix
    starts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CategoryCandidate:
    """A strength of regularization and what it is worth on rows that its heads have not seen.

    Attributes
    ----------
    regularization : float
        One of `sprat.train.fit.REGULARIZATION`.
    nll : float
        Mean negative log-likelihood of the calibrated out-of-fold scores, in nats.
    """

    regularization: float
    nll: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedCategory:
    """A calibrated head of one category: ``sigmoid(features @ weight + bias)``.

    Attributes
    ----------
    weight : float32[F]
    bias : float
    out_of_fold : float64[N]
        Calibrated probabilities of the training rows by heads that have not seen them.
    candidates : tuple of CategoryCandidate
        All that were tried, strongest regularization first.
    chosen : CategoryCandidate
    """

    weight: FloatArray
    bias: float
    out_of_fold: npt.NDArray[np.float64]
    candidates: tuple[CategoryCandidate, ...]
    chosen: CategoryCandidate


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic calibration: ``sigmoid(slope * score + offset)``."""

    slope: float
    offset: float

    def probabilities(self, scores_n: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities, float64[N]."""
        return sigmoid(self.slope * scores_n.astype(np.float64) + self.offset)


def with_sparse_ngrams(vectors_nd: FloatArray, texts: Sequence[str], buckets: int) -> Matrix:
    """What `sprat.text.ngrams.with_ngrams` gives, as a sparse matrix where there are n-grams.

    Raises
    ------
    SetupError
        When scikit-learn is not installed.
    """
    if buckets == 0:
        return vectors_nd
    try:
        from scipy import sparse
    except ImportError:
        raise SetupError(
            "training needs scikit-learn; install it with: pip install 'sprat[train]'"
        ) from None
    blocks = [
        sparse.csr_matrix(ngram_features(texts[start : start + _BLOCK], buckets))
        for start in range(0, len(texts), _BLOCK)
    ]
    return sparse.hstack([sparse.csr_matrix(vectors_nd), sparse.vstack(blocks)]).tocsr()


def fit_platt(scores_n: npt.NDArray[np.floating], truth_n: npt.NDArray[np.bool_]) -> Platt:
    """The logistic calibration with the least negative log-likelihood (Platt, 1999).

    It aims at `sprat.train.logistic.platt_aims`.

    Parameters
    ----------
    scores_n : float[N]
        Of heads that have not seen the rows.
    truth_n : bool[N]

    Returns
    -------
    Platt
        ``slope`` is at least 0: where scores say the opposite of the truth, they count nothing.
    """
    aim_n = platt_aims(truth_n)
    design_n2 = np.column_stack([scores_n.astype(np.float64), np.ones(len(truth_n))])
    slope, offset = fit_logistic(design_n2, aim_n, np.array([1.0, 0.0]), np.zeros(2)).tolist()
    if slope > 0:
        return Platt(slope, offset)
    return Platt(0.0, float(np.log(aim_n.mean() / (1 - aim_n.mean()))))


def fit_category(
    examples: Examples,
    truth_n: npt.NDArray[np.bool_],
    folds_n: IntArray,
    *,
    class_weights: ClassWeights = "none",
    progress: Progress | None = None,
    name: str,
) -> FittedCategory:
    """Fit a logistic regression for one category, choose its regularization, calibrate it.

    As `sprat.train.fit.fit_head` does for labels that exclude each other. The calibration is
    multiplied into weight and bias.

    Parameters
    ----------
    truth_n : bool[N]
        Which rows belong to the category; both kinds outside of every fold.
    folds_n : int32[N]
        Fold of each row, from 0; two or more.
    class_weights : {"none", "balanced"}
        With ``balanced`` the category's rows count as much as all others together.
    name : str
        Of the category, for ``progress``.

    Raises
    ------
    SetupError
        When scikit-learn is not installed.
    """
    progress = Silent() if progress is None else progress
    tried: dict[int, tuple[CategoryCandidate, Platt, npt.NDArray[np.float64]]] = {}

    def nll(index: int) -> float:
        if not 0 <= index < len(REGULARIZATION):
            return math.inf
        if index not in tried:
            strength = REGULARIZATION[index]
            progress.phase(f"{name}: try C={strength:g} on {folds_n.max() + 1} folds")
            scores_n = _out_of_fold(examples, truth_n, folds_n, strength, class_weights)
            platt = fit_platt(scores_n, truth_n)
            logits_n = platt.slope * scores_n + platt.offset
            loss = float((np.logaddexp(0, logits_n) - truth_n * logits_n).mean())
            tried[index] = CategoryCandidate(strength, loss), platt, scores_n
        return tried[index][0].nll

    best = _START
    for step in (-1, 1):
        while nll(best + step) < nll(best):
            best += step
    chosen, platt, scores_n = tried[best]
    progress.phase(f"{name}: fit the head on {len(truth_n)} rows with C={chosen.regularization:g}")
    weight, bias = fit_binary(examples.whole, truth_n, chosen.regularization, class_weights)
    return FittedCategory(
        weight=(platt.slope * weight).astype(np.float32),
        bias=platt.slope * bias + platt.offset,
        out_of_fold=platt.probabilities(scores_n),
        candidates=tuple(tried[index][0] for index in sorted(tried)),
        chosen=chosen,
    )


def highest(scores_w: npt.NDArray[Any], starts_n: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The highest score among the windows of each row, along the first axis."""
    best: npt.NDArray[Any] = np.maximum.reduceat(scores_w, starts_n, axis=0)
    return best


def due_categories(
    probability_nk: npt.NDArray[np.float64], thresholds: Sequence[Thresholds]
) -> IntArray:
    """The category that a moderator's answer to each row is due to, as the server says it.

    Parameters
    ----------
    probability_nk : float64[N, K]
        Calibrated probability of each category, in [0, 1].
    thresholds : sequence of Thresholds
        K of them.

    Returns
    -------
    int32[N]
        Place of the category; K where none is flagged.
    """
    # None of those that are not flagged, and any that blocks before one that does not.
    severity_nk = np.where(
        probability_nk >= [each.flag_at for each in thresholds], probability_nk, -1.0
    ) + (probability_nk >= [each.block_at or np.inf for each in thresholds])
    worst_n: IntArray = severity_nk.argmax(axis=1).astype(np.int32)
    worst_n[severity_nk.max(axis=1) < 0] = probability_nk.shape[1]
    return worst_n


def _out_of_fold(
    examples: Examples,
    truth_n: npt.NDArray[np.bool_],
    folds_n: IntArray,
    strength: float,
    class_weights: ClassWeights,
) -> npt.NDArray[np.float64]:
    fold_w = np.repeat(folds_n, np.diff(examples.starts, append=examples.windows.shape[0]))
    scores_w = np.empty(len(fold_w), np.float64)
    for fold in range(int(folds_n.max()) + 1):
        kept, out = np.flatnonzero(folds_n != fold), np.flatnonzero(fold_w == fold)
        weight, bias = fit_binary(examples.whole[kept], truth_n[kept], strength, class_weights)
        scores_w[out] = examples.windows[out] @ weight + bias
    return highest(scores_w, examples.starts)


def fit_binary(
    features: Matrix, truth_n: npt.NDArray[np.bool_], strength: float, class_weights: ClassWeights
) -> tuple[npt.NDArray[np.float64], float]:
    """Weight, float64[F], and bias of the score for ``True``, by a logistic regression.

    Parameters
    ----------
    features : float32[N, F]
    truth_n : bool[N]
        Both kinds occur.
    strength : float
        Inverse strength of the regularization.
    class_weights : {"none", "balanced"}
        See `fit_category`.
    """
    weight, bias = fit_weights(features, truth_n.astype(np.int32), strength, class_weights)
    return (weight[1] - weight[0]).astype(np.float64), float(bias[1] - bias[0])
