"""Fit a linear head on frozen sentence vectors: weights, bias, and their temperature."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.errors import SetupError
from sprat.progress import Progress, Silent
from sprat.train.calibrate import fit_temperature, nll
from sprat.values import FloatArray, IntArray

REGULARIZATION = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Inverse strengths of the L2 penalty to choose from (scikit-learn's C), strongest first."""

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
class Head:
    """A fitted head: ``vectors @ weight.T + bias`` are logits.

    Attributes
    ----------
    weight : float32[K, D]
    bias : float32[K]
    chosen : Candidate
        Its temperature calibrates this head.
    candidates : tuple of Candidate
        All that were tried, in order.
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
    threads: int,
    progress: Progress | None = None,
) -> Head:
    """Fit a multinomial logistic regression, choose its regularization, calibrate it.

    Every row is scored by a head that was fitted on the other folds. On these scores each strength
    of regularization gets its temperature and is judged by the likelihood that remains; the
    search goes from strong to weak and ends when it gets worse. The head itself is then fitted on
    all rows, with the chosen strength and its temperature. So no row is spent on calibration
    alone, and the temperature errs, if at all, on the side of caution: the final head has seen
    more rows than those whose scores it was fitted on.

    Nothing here is random: the same input gives the same head.

    Parameters
    ----------
    vectors_nd : float32[N, D]
        L2-normalized sentence vectors.
    targets_n : int32[N]
        Labels from 0 to K - 1, K from 2; each in at least two folds.
    folds_n : int32[N]
        Fold of each row, from 0; two or more. See `sprat.train.split.assign_folds`.
    threads : int
        Most compute threads, from 1.
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
    with threadpool_limits(limits=threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        candidates: list[Candidate] = []
        for strength in REGULARIZATION:
            progress.phase(f"try C={strength:g} on {folds_n.max() + 1} folds")
            logits_nk = _out_of_fold(vectors_nd, targets_n, folds_n, strength)
            temperature = fit_temperature(logits_nk, targets_n)
            loss = nll(logits_nk, targets_n, temperature)
            candidates.append(Candidate(strength, temperature, loss))
            if loss > min(c.nll for c in candidates):
                break
        chosen = min(candidates, key=lambda c: c.nll)
        progress.phase(f"fit the head on {len(targets_n)} rows with C={chosen.regularization:g}")
        weight, bias = _coefficients(_fit(vectors_nd, targets_n, chosen.regularization))
    return Head(weight, bias, chosen, tuple(candidates))


def _out_of_fold(
    vectors_nd: FloatArray, targets_n: IntArray, folds_n: IntArray, strength: float
) -> FloatArray:
    logits_nk = np.empty((len(targets_n), targets_n.max() + 1), np.float32)
    for fold in range(folds_n.max() + 1):
        out = folds_n == fold
        weight, bias = _coefficients(_fit(vectors_nd[~out], targets_n[~out], strength))
        logits_nk[out] = vectors_nd[out] @ weight.T + bias
    return logits_nk


def _fit(vectors_nd: FloatArray, targets_n: IntArray, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAX_STEPS).fit(
        vectors_nd, targets_n
    )


def _coefficients(model: Any) -> tuple[FloatArray, FloatArray]:
    """Weight and bias with one row a label, where scikit-learn keeps one row for two labels."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight = np.concatenate([-weight, weight]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return _float32(weight), _float32(bias)


def _float32(array: npt.NDArray[np.floating[Any]]) -> FloatArray:
    return np.ascontiguousarray(array, np.float32)
