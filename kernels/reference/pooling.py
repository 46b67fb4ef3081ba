"""Pooling of token vectors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_bool, check_choice, check_lengths


def pool(
    hidden_bth: npt.NDArray[np.float32],
    lengths_b: npt.NDArray[np.int32],
    mode: Literal["mean", "cls", "last"],
    normalize: bool = True,
) -> npt.NDArray[np.float32]:
    """Pool the token vectors of each row into one vector.

    With n the length of row b::

        mean:  p[b] = (hidden[b, 0] + ... + hidden[b, n - 1]) / n
        cls:   p[b] = hidden[b, 0]
        last:  p[b] = hidden[b, n - 1]

    and, when `normalize` is set, ``p[b] / sqrt(sum(p[b] ** 2))``. Positions from n on are never
    read. Sums over tokens run in float32 in order of position; the norm is taken in float64, so
    that it neither overflows nor vanishes for any finite float32 vector.

    Parameters
    ----------
    hidden_bth : float32[B, T, H]
        Last hidden states, C-contiguous. Read-only arrays are accepted.
    lengths_b : int32[B]
        Tokens of each row, special tokens included, in [1, T].
    mode : {"mean", "cls", "last"}
        Average over the tokens of the row, its first token or its last.
    normalize : bool, default True
        Scale each row to length 1. A zero row stays zero.

    Returns
    -------
    float32[B, H]
        A new array. NaN in a token that is read gives NaN in its row, and in no other.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, a length out of range, or an unknown mode.

    References
    ----------
    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3 (mean and CLS pooling);
    Muennighoff, "SGPT", 2022, section 3 (last token).

    Examples
    --------
    >>> import numpy as np
    >>> hidden = np.array([[[3, 0], [3, 8], [9, 9]]], dtype=np.float32)
    >>> pool(hidden, np.array([2], dtype=np.int32), "mean")
    array([[0.6, 0.8]], dtype=float32)
    """
    check_array("hidden_bth", hidden_bth, np.float32, 3)
    check_array("lengths_b", lengths_b, np.int32, 1)
    check_choice("mode", mode, ("mean", "cls", "last"))
    check_bool("normalize", normalize)
    rows, tokens, width = hidden_bth.shape
    check_lengths("lengths_b", lengths_b, "hidden_bth", rows, tokens)

    pooled_bh = np.empty((rows, width), dtype=np.float32)
    with np.errstate(all="ignore"):
        for row, length in enumerate(lengths_b.tolist()):
            if mode == "cls":
                pooled_bh[row] = hidden_bth[row, 0]
            elif mode == "last":
                pooled_bh[row] = hidden_bth[row, length - 1]
            else:
                total_h = np.zeros(width, dtype=np.float32)
                for hidden_h in hidden_bth[row, :length]:
                    total_h += hidden_h
                pooled_bh[row] = total_h / np.float32(length)
            if normalize:
                wide_h = pooled_bh[row].astype(np.float64)
                norm = np.sqrt(np.sum(wide_h * wide_h))
                if norm != 0:
                    pooled_bh[row] = wide_h / norm
    return pooled_bh
