"""Calibration as it is served: logits, divided by a fitted temperature, as probabilities."""

from __future__ import annotations

import numpy as np

from sprat.values import FloatArray


def softmax(logits_bk: FloatArray, temperature: float) -> FloatArray:
    """Probabilities of K options for each of B rows.

    Parameters
    ----------
    logits_bk : float32[B, K]
        Finite; K from 1.
    temperature : float
        Above 0. Logits are divided by it: above 1 it makes the answers less sure, below 1 surer;
        the order of the options never changes.

    Returns
    -------
    float32[B, K]
        Each row sums to 1.

    Examples
    --------
    >>> softmax(np.array([[0.0, 2.0]], np.float32), 2.0).round(3)
    array([[0.269, 0.731]], dtype=float32)
    """
    # The largest logit goes first: no exponent is positive, so nothing overflows.
    weights = np.exp((logits_bk - logits_bk.max(axis=1, keepdims=True)) / np.float32(temperature))
    probabilities: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return probabilities
