"""Fit a linear head on frozen sentence vectors: weights, bias, and their temperature."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sprat.errors import SetupError
from sprat.progress import Progress, Silent
from sprat.train.calibrate import CalibrationFit, fit_calibration, fit_temperature, nll
from sprat.values import FloatArray, IntArray

ClassWeights = Literal["none", "balanced"]

REGULARIZATION = tuple(2.0**power for power in range(-4, 11))
"""Inverse strengths of the L2 penalty to choose from (scikit-learn's C), strongest first."""

_START = REGULARIZATION.index(16.0)
"""Where the search begins: near the best for sentence vectors, for few rows and for many."""

WHITENING = (0.0, 0.15, 0.3)
"""Exponents to choose from; see `fit_weights`. A half would make all directions equally long: too
much for sentence vectors, whose short directions are mostly noise."""

TOLERANCE = 1e-5
"""Of the optimizer, on the gradient of the mean loss. With scikit-learn's default of 1e-4 weakly
regularized fits end so early that the strength makes no difference to them."""

SEARCH_ROWS = 2000
"""Out-of-fold rows that are enough to compare strengths on. The searched ones are worth more than
their neighbours by many standard errors then, and a fit of ten thousand rows takes seconds."""

MAX_STEPS = 1000
"""Of the optimizer. A fit that is not done by then is judged by its scores like any other."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to fit a head, and what it is worth on rows that its heads have not seen.

    These are the rows of one fold, or of as many as hold 2,000 rows.

    Attributes
    ----------
    regularization : float
        One of `REGULARIZATION`.
    whitening : float
        One of `WHITENING`.
    temperature : float
        The best one for their scores.
    nll : float
        Mean negative log-likelihood of these scores at that temperature, in nats.
    """

    regularization: float
    whitening: float
    temperature: float
    nll: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A fitted head: ``vectors @ weight.T + bias`` are logits.

    Attributes
    ----------
    weight : float32[K, D]
    bias : float32[K]
    calibration : CalibrationFit
        By the scores of ``out_of_fold``.
    chosen : Candidate
    candidates : tuple of Candidate
        All that were tried, in that order.
    out_of_fold : float32[N, K]
        Scores of the training rows by heads that have not seen them, fitted as the chosen one.
    """

    weight: FloatArray
    bias: FloatArray
    calibration: CalibrationFit
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    out_of_fold: FloatArray


def fit_head(
    vectors_nd: FloatArray,
    targets_n: IntArray,
    folds_n: IntArray,
    *,
    class_weights: ClassWeights = "none",
    progress: Progress | None = None,
) -> FittedHead:
    """Fit a multinomial logistic regression, choose its regularization, calibrate it.

    Rows are scored by heads that were fitted on the other folds. On these scores each candidate
    gets its temperature and is judged by the likelihood that remains. At a middle strength of
    regularization whitening goes up for as long as it gets better, then the strength to both sides.
    By heads that are fitted as the best candidate every row is scored, which the calibration is
    fitted on, and the head itself is fitted on all rows. So no row is spent on calibration alone,
    and the confidences err, if at all, on the side of caution: the final head has seen more rows
    than those whose scores they come from.

    One thread computes: the matrices are small, and on a busy machine threads that wait for each
    other take ten times the CPU.

    Nothing here is random: the same input gives the same head.

    Parameters
    ----------
    vectors_nd : float32[N, D]
        L2-normalized sentence vectors.
    targets_n : int32[N]
        Labels from 0 to K - 1, K from 2; each in at least two folds.
    folds_n : int32[N]
        Fold of each row, from 0; two or more. See `sprat.train.split.assign_folds`.
    class_weights : {"none", "balanced"}
        With ``balanced`` the rows of each label count as much as those of any other: rare labels
        are found more often, and common ones less. Temperature and strength are still chosen on
        rows that all count the same, as those to come will.
    progress : Progress, optional
        Told of each candidate that is tried.

    Raises
    ------
    SetupError
        When scikit-learn is not installed.
    """
    with _one_thread():
        return _fit_head(
            *(vectors_nd, targets_n, folds_n, class_weights),
            Silent() if progress is None else progress,
        )


def _fit_head(
    vectors_nd: FloatArray,
    targets_n: IntArray,
    folds_n: IntArray,
    class_weights: ClassWeights,
    progress: Progress,
) -> FittedHead:
    fold_sizes = np.bincount(folds_n)
    searched = 1 + int(np.searchsorted(fold_sizes.cumsum(), min(SEARCH_ROWS, len(folds_n))))
    is_searched_n = folds_n < searched
    tried: dict[tuple[int, int], tuple[Candidate, FloatArray]] = {}

    def fitted(
        vectors_nd: FloatArray, targets_n: IntArray, way: tuple[float, float]
    ) -> tuple[FloatArray, FloatArray]:
        return fit_weights(vectors_nd, targets_n, way[0], class_weights, whitening=way[1])

    def scored(way: tuple[float, float], folds: Iterable[int], logits_nk: FloatArray) -> FloatArray:
        for fold in folds:
            out = folds_n == fold
            weight, bias = fitted(vectors_nd[~out], targets_n[~out], way)
            logits_nk[out] = vectors_nd[out] @ weight.T + bias
        return logits_nk

    def loss(strength: int, whitening: int) -> float:
        if not (0 <= strength < len(REGULARIZATION) and 0 <= whitening < len(WHITENING)):
            return math.inf
        if (strength, whitening) not in tried:
            way = REGULARIZATION[strength], WHITENING[whitening]
            progress.phase(f"try {_named(*way)} on {searched} of {len(fold_sizes)} folds")
            empty_nk = np.empty((len(targets_n), targets_n.max() + 1), np.float32)
            logits_nk = scored(way, range(searched), empty_nk)
            judged = logits_nk[is_searched_n], targets_n[is_searched_n]
            temperature = fit_temperature(*judged)
            candidate = Candidate(*way, temperature, nll(*judged, temperature))
            tried[strength, whitening] = candidate, logits_nk
        return tried[strength, whitening][0].nll

    best, whitening = _START, 0
    while loss(best, whitening + 1) < loss(best, whitening):
        whitening += 1
    for step in (-1, 1):
        while loss(best + step, whitening) < loss(best, whitening):
            best += step
    chosen, logits_nk = tried[best, whitening]
    way = chosen.regularization, chosen.whitening
    progress.phase(f"score all rows with {_named(*way)}")
    out_of_fold = scored(way, range(searched, len(fold_sizes)), logits_nk)
    progress.phase(f"fit the head on {len(targets_n)} rows with {_named(*way)}")
    weight, bias = fitted(vectors_nd, targets_n, way)
    candidates = tuple(candidate for candidate, _ in tried.values())
    calibration = fit_calibration(out_of_fold, targets_n)
    return FittedHead(weight, bias, calibration, chosen, candidates, out_of_fold)


def fit_weights(
    vectors_nd: FloatArray,
    targets_n: IntArray,
    regularization: float,
    class_weights: ClassWeights = "none",
    *,
    whitening: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Fit weights and bias in a given way.

    They have one row a label, where scikit-learn keeps one row for two labels. Other parameters and
    errors as in `fit_head`.

    Parameters
    ----------
    regularization : float
        Inverse strength of the L2 penalty (scikit-learn's C), above 0.
    whitening : float
        The penalty is on weights of vectors whose every principal direction is divided by its
        variance to this power, in [0, 0.5]: the larger, the less it holds back the use of short
        directions. The weights that come out are for the vectors as they are.

    Returns
    -------
    weight : float32[K, D]
    bias : float32[K]
    """
    with _one_thread(), warnings.catch_warnings():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            C=regularization,
            tol=TOLERANCE,
            max_iter=MAX_STEPS,
            class_weight="balanced" if class_weights == "balanced" else None,
        )
        warnings.simplefilter("ignore", ConvergenceWarning)
        stretch_dd = _stretch(vectors_nd, whitening) if whitening else None
        model.fit(vectors_nd if stretch_dd is None else vectors_nd @ stretch_dd, targets_n)
    weight, bias = model.coef_, model.intercept_
    if stretch_dd is not None:
        weight = weight @ stretch_dd
    if len(weight) == 1:
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)


def _stretch(vectors_nd: FloatArray, power: float) -> FloatArray:
    """The symmetric matrix that divides principal directions by their variance to a power.

    Directions that hardly occur count as if they had a thousandth of the mean variance. The total
    variance stays what it is, so that a strength of regularization means the same as without.

    Returns
    -------
    float32[D, D]
    """
    covariance_dd = np.atleast_2d(np.cov(vectors_nd, rowvar=False))
    variances_d, axes_dd = np.linalg.eigh(covariance_dd)
    # The last term is for vectors that are all the same.
    floor = 1e-3 * variances_d.mean() + np.finfo(np.float32).tiny
    variances_d = np.maximum(variances_d, 0) + floor
    scales_d = variances_d**-power
    scales_d *= math.sqrt(variances_d.sum() / (variances_d * np.square(scales_d)).sum())
    stretch_dd: FloatArray = ((axes_dd * scales_d) @ axes_dd.T).astype(np.float32)
    return stretch_dd


def _named(regularization: float, whitening: float) -> str:
    return f"C={regularization:g}" + (f", whitening {whitening:g}" if whitening else "")


def _one_thread() -> AbstractContextManager[object]:
    """Keeps the libraries that compute to one thread.

    Raises
    ------
    SetupError
        When scikit-learn is not installed, which brings what this needs.
    """
    try:
        import sklearn.exceptions  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise SetupError(
            "training needs scikit-learn; install it with: pip install 'sprat[train]'"
        ) from None
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
