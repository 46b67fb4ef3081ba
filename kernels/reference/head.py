"""A linear classifier on sentence vectors, from vectors to the best labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_int, check_positive

LANES = 8


def classify_head(
    vectors_bh: npt.NDArray[np.float32],
    weight_kh: npt.NDArray[np.float32],
    bias_k: npt.NDArray[np.float32],
    temperature: float,
    top_k: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Apply a linear head, a temperature and softmax; return the best labels of each row.

    ::

        z[b, k] = sum(vectors[b] * weight[k]) + bias[k]
        p[b, k] = exp((z[b, k] - max(z[b])) / temperature) / sum over j of the same for j

    in float64, rounded to float32 at the end. Labels come in descending order of z; where z is
    equal, in the order of the head, so p never ascends either.

    The product of two float32 values is exact in float64. The products of h = i, i + 8, i + 16...
    are added up for each i < 8, these eight sums in turn, then the bias. This fixes z to the last
    bit, and so the order of the labels, on every machine.

    Parameters
    ----------
    vectors_bh : float32[B, H]
        Sentence vectors.
    weight_kh : float32[K, H]
        A row for each label.
    bias_k : float32[K]
        Added to the score of each label. A label with ``-inf`` has probability 0.
    temperature : float
        Finite, above 0. Above 1 the answers get less sure, below 1 surer.
    top_k : int
        How many labels to return, in [1, K]: more than there are is an error.

    Returns
    -------
    indices_bk : int32[B, top_k]
        Labels, best first. A row in which a z is NaN or ``inf``, or all are ``-inf``, has none
        that is better: the first `top_k`, in order.
    probabilities_bk : float32[B, top_k]
        Their probabilities; NaN in such a row.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, or a value out of range.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2 (temperature).

    Examples
    --------
    >>> import numpy as np
    >>> vectors, weight = np.array([[1, 0]], dtype=np.float32), np.eye(3, 2, dtype=np.float32)
    >>> indices, probabilities = classify_head(vectors, weight, np.zeros(3, np.float32), 0.5, 2)
    >>> indices, probabilities.round(3)
    (array([[0, 1]], dtype=int32), array([[0.787, 0.107]], dtype=float32))
    """
    check_array("vectors_bh", vectors_bh, np.float32, 2)
    check_array("weight_kh", weight_kh, np.float32, 2)
    check_array("bias_k", bias_k, np.float32, 1)
    width, labels = vectors_bh.shape[1], bias_k.shape[0]
    if weight_kh.shape != (labels, width):
        raise ValueError(
            f"weight_kh: expected shape ({labels}, {width}), a row for each of bias_k and a column"
            f" for each of vectors_bh, got {weight_kh.shape}"
        )
    check_positive("temperature", temperature)
    check_int("top_k", top_k, 1, labels)

    shape = (vectors_bh.shape[0], top_k)
    indices_bk, probabilities_bk = np.empty(shape, np.int32), np.empty(shape, np.float32)
    with np.errstate(all="ignore"):
        for row, vector_h in enumerate(vectors_bh.astype(np.float64)):
            products_kh = vector_h * weight_kh.astype(np.float64)
            padded_kh = np.pad(products_kh, ((0, 0), (0, -width % LANES)))
            sums_kl = np.zeros((labels, LANES))
            for at in range(0, width, LANES):
                sums_kl += padded_kh[:, at : at + LANES]
            z_k = np.zeros(labels)
            for lane in range(LANES):
                z_k += sums_kl[:, lane]
            z_k += bias_k
            best = z_k.max()
            if not np.isfinite(best):
                indices_bk[row], probabilities_bk[row] = np.arange(top_k), np.nan
                continue
            powers_k = np.exp((z_k - best) / temperature)
            order_k = np.argsort(-z_k, kind="stable")[:top_k]
            indices_bk[row] = order_k
            probabilities_bk[row] = (powers_k / powers_k.sum())[order_k]
    return indices_bk, probabilities_bk
