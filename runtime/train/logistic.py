"""Logistic regression on few columns, for calibrations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.head import sigmoid

_Floats = npt.NDArray[np.float64]


def platt_aims(truth_n: npt.NDArray[np.bool_]) -> _Floats:
    """What a calibration on N rows aims at: float64[N] (Platt, 1999).

    Of n true rows each counts as (n + 1) / (n + 2) true, of m others each as 1 / (m + 2), so that
    few rows never make anything certain.

    Parameters
    ----------
    truth_n : bool[N]
    """
    true = int(truth_n.sum())
    return np.where(truth_n, (true + 1) / (true + 2), 1 / (len(truth_n) - true + 2))


def fit_logistic(design_nd: _Floats, aim_n: _Floats, start_d: _Floats, ridge_d: _Floats) -> _Floats:
    """Parameters with the least negative log-likelihood and penalty.

    Newton's method, with a ridge where the problem is flat, and halved steps where one would
    overshoot.

    Parameters
    ----------
    design_nd : float64[N, D]
        What each row has; for a bias, a column of ones.
    aim_n : float64[N]
        Probabilities that are aimed at, in [0, 1].
    start_d : float64[D]
        Where to start.
    ridge_d : float64[D]
        Half of it, times the square of the parameter, is added to the sum of the losses; 0 for what
        is free.

    Returns
    -------
    float64[D]
    """

    def loss(parameters: _Floats) -> float:
        logits = design_nd @ parameters
        penalty = (ridge_d * np.square(parameters)).sum() / 2
        return float((np.logaddexp(0, logits) - aim_n * logits).sum() + penalty)

    parameters = start_d
    damping = np.diag(ridge_d) + 1e-9 * np.eye(len(start_d))
    for _ in range(100):
        p_n = sigmoid(design_nd @ parameters)
        gradient = design_nd.T @ (p_n - aim_n) + ridge_d * parameters
        curvature = (design_nd * (p_n * (1 - p_n))[:, None]).T @ design_nd + damping
        step = np.linalg.solve(curvature, gradient)
        before = loss(parameters)
        while loss(parameters - step) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        parameters = parameters - step
        if np.abs(step).max() <= 1e-9 * max(1.0, np.abs(parameters).max()):
            break
    return parameters
