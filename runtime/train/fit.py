"""Fit a linear head on frozen sentence vectors: weights, bias, and their temperature."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from sprat.errors import SetupError
from sprat.progress import Progress, Silent
from sprat.train.calibrate import fit_temperature, nll
from sprat.values import FloatArray, IntArray

REGULARIZATION = (0.0625, 0.25, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
"""Inverse strengths of the L2 penalty to choose from (scikit-learn's C), strongest first."""

_START = REGULARIZATION.index(16.0)
"""Where the search begins: near the best for sentence vectors, for few rows and for many."""

TOLERANCE = 1e-5
"""Of the optimizer, on the gradient of the mean loss. With scikit-learn's default of 1e-4 weakly
regularized fits end so early that the strength makes no difference to them."""

MAX_STEPS = 1000
"""Of the optimizer. A fit that is not done by then is judged by its scores like any other."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A strength of regularization and what it is worth on rows that its heads have not seen.

    Attributes
    ----------
    regularization : float
        One of `REGULARIZATION`.
    temperature : float
        The best one for the out-of-fold scores.
    nll : float
        Mean negative log-likelihood of the out-of-fold scores at that temperature, in nats.
    """

    regularization: float
    temperature: float
    nll: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A fitted head: ``vectors @ weight.T + bias`` are logits.

    Attributes
    ----------
    weight : float32[K, D]
    bias : float32[K]
    chosen : Candidate
        Its temperature calibrates this head.
    candidates : tuple of Candidate
        All that were tried, strongest regularization first.
    """

    weight: FloatArray
    bias: FloatArray
    chosen: Candidate
    candidates: tuple[Candidate, ...]


def fit_head(
    vectors_nd: FloatArray,
    targets_n: IntArray,
    folds_n: IntArray,
    *,
    progress: Progress | None = None,
) -> FittedHead:
    """Fit a multinomial logistic regression, choose its regularization, calibrate it.

    Every row is scored by a head that was fitted on the other folds. On these scores each strength
    of regularization gets its temperature and is judged by the likelihood that remains; from a
    middle strength the search goes to both sides for as long as it gets better. The head itself is
    then fitted on all rows, with the chosen strength and its temperature. So no row is spent on
    calibration alone, and the temperature errs, if at all, on the side of caution: the final head
    has seen more rows than those whose scores it was fitted on.

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
    progress : Progress, optional
        Told of each strength that is tried.

    Raises
    ------
    SetupError
        When scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise SetupError(
            "training needs scikit-learn; install it with: pip install 'sprat[train]'"
        ) from None
    progress = Silent() if progress is None else progress
    tried: dict[int, Candidate] = {}

    def loss(index: int) -> float:
        if not 0 <= index < len(REGULARIZATION):
            return math.inf
        if index not in tried:
            strength = REGULARIZATION[index]
            progress.phase(f"try C={strength:g} on {folds_n.max() + 1} folds")
            tried[index] = _judge(vectors_nd, targets_n, folds_n, strength)
        return tried[index].nll

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = _START
        for step in (-1, 1):
            while loss(best + step) < loss(best):
                best += step
        chosen = tried[best]
        progress.phase(f"fit the head on {len(targets_n)} rows with C={chosen.regularization:g}")
        weight, bias = _fit(vectors_nd, targets_n, chosen.regularization)
    return FittedHead(weight, bias, chosen, tuple(tried[index] for index in sorted(tried)))


def _judge(
    vectors_nd: FloatArray, targets_n: IntArray, folds_n: IntArray, strength: float
) -> Candidate:
    logits_nk = np.empty((len(targets_n), targets_n.max() + 1), np.float32)
    for fold in range(folds_n.max() + 1):
        out = folds_n == fold
        weight, bias = _fit(vectors_nd[~out], targets_n[~out], strength)
        logits_nk[out] = vectors_nd[out] @ weight.T + bias
    temperature = fit_temperature(logits_nk, targets_n)
    return Candidate(strength, temperature, nll(logits_nk, targets_n, temperature))


def _fit(
    vectors_nd: FloatArray, targets_n: IntArray, strength: float
) -> tuple[FloatArray, FloatArray]:
    """Weight and bias with one row a label, where scikit-learn keeps one row for two labels."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAX_STEPS)
    model.fit(vectors_nd, targets_n)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
