"""Fit the temperature that turns scores into confidences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.values import FloatArray, IntArray

MIN_TEMPERATURE = 0.02
MAX_TEMPERATURE = 50.0


def log_softmax(logits_nk: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """Logarithm of the probabilities of K options, exact where one rounds to 0 or 1.

    Parameters
    ----------
    logits_nk : float32[N, K]
    temperature : float
        Above 0. Logits are divided by it: above 1 it makes the answers less sure, below 1 surer;
        the order of the options never changes.

    Returns
    -------
    float64[N, K]
    """
    scaled = logits_nk.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_p: npt.NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return log_p


def nll(logits_nk: FloatArray, targets_n: IntArray, temperature: float) -> float:
    """Mean negative log-likelihood of the right labels, in nats.

    Parameters
    ----------
    logits_nk : float32[N, K]
    targets_n : int32[N]
    temperature : float
        Above 0.
    """
    log_p = log_softmax(logits_nk, temperature)
    return float(-log_p[np.arange(len(targets_n)), targets_n].mean())


def fit_temperature(logits_nk: FloatArray, targets_n: IntArray) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., 2017).

    The scores must come from a head that has not seen the rows. In the inverse temperature the
    problem is convex with one unknown: Newton's method inside a bracket finds its only minimum.

    As in Platt (1999), the right label of each row counts with a weight of (N + 1) / (N + 2) and
    the others share the rest. Where every answer is right, the likelihood alone would make all
    confidences 1; this way N rows never vouch for more than N rows can. For many rows it changes
    nothing.

    Parameters
    ----------
    logits_nk : float32[N, K]
        Out-of-fold scores; N from 1, K from 2.
    targets_n : int32[N]
        Right labels.

    Returns
    -------
    float
        In [0.02, 50]. It is 50 where the scores say nothing, or the opposite of the truth.
    """
    n, k = logits_nk.shape
    every = np.arange(n)
    doubt = 1 / (n + 2)
    weights = np.full((n, k), doubt / (k - 1))
    weights[every, targets_n] = 1 - doubt
    # Centred, so that the slope loses no digits to a common offset.
    centred = logits_nk - logits_nk.max(axis=1, keepdims=True).astype(np.float64)
    aim = float((weights * centred).sum(axis=1).mean())

    def slope_and_curvature(inverse: float) -> tuple[float, float]:
        p = np.exp(log_softmax(logits_nk, 1 / inverse))
        mean = (p * centred).sum(axis=1)
        variance = (p * np.square(centred)).sum(axis=1) - np.square(mean)
        return float(mean.mean()) - aim, float(variance.mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope_and_curvature(low)[0] >= 0:
        return MAX_TEMPERATURE
    if slope_and_curvature(high)[0] <= 0:
        return MIN_TEMPERATURE
    inverse = 1.0
    while True:
        slope, curvature = slope_and_curvature(inverse)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        step = inverse - slope / curvature if curvature > 0 else high
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            return 1 / following
        inverse = following
