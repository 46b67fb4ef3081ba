"""Means over rows of a token-embedding table: the whole forward pass of a static model."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import (
    check_array,
    check_bool,
    check_ids,
    check_offsets,
)

Table: TypeAlias = npt.NDArray[np.int8] | npt.NDArray[np.float16] | npt.NDArray[np.float32]


def embedding_bag(
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    table_vh: Table,
    weights_v: npt.NDArray[np.float32] | None = None,
    normalize: bool = True,
    rows_v: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.float32]:
    """Average the table's rows of each text's tokens.

    Text b has the n tokens ``ids[offsets[b]:offsets[b + 1]]``::

        e[b] = sum over its ids i of (weights[i] * table[rows[i]]) / n

    and, when `normalize` is set, ``e[b] / sqrt(sum(e[b] ** 2))``. Sums over tokens run in float32
    in their order, the norm is taken in float64, as in `pool`. The sum is divided by the number of
    tokens and not by that of their weights, as Model2Vec does.

    Parameters
    ----------
    ids_n : int32[N]
        The tokens of all texts, one text after the other, each in [0, V).
    offsets : int64[B + 1]
        Where each text starts, and the end of the last: from 0, ascending, to N.
    table_vh : int8[V, H], float16[V, H] or float32[V, H]
        A row for each token of the vocabulary; with `rows_v`, any number of rows.
    weights_v : float32[V], optional
        What each token's row is multiplied by: the scale of a quantized table (of all of it, or of
        each row) times the weight of the token. 1 by default.
    normalize : bool, default True
        Scale each vector to length 1. A zero vector stays zero.
    rows_v : int32[V], optional
        The row of each token, where tokens share rows. By default token i has row i.

    Returns
    -------
    float32[B, H]
        A new array; zeros for a text without tokens. NaN or inf in a row of the table or its weight
        gives NaN or inf where that row is used, and nowhere else.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, offsets that do not ascend from 0 to N, or an id or a
        row outside the table.

    References
    ----------
    Tulkens and van Dongen, "Model2Vec", 2024: static models distilled from sentence encoders.

    Examples
    --------
    >>> import numpy as np
    >>> ids, offsets = np.array([0, 1, 1], dtype=np.int32), np.array([0, 2, 3])
    >>> table = np.array([[0, 2], [4, 0]], dtype=np.int8)
    >>> embedding_bag(ids, offsets, table, np.array([1, 0.5], dtype=np.float32), normalize=False)
    array([[1., 1.],
           [2., 0.]], dtype=float32)
    """
    check_array("ids_n", ids_n, np.int32, 1)
    check_offsets("offsets", offsets, ids_n.shape[0])
    vocabulary = check_table(table_vh, weights_v, rows_v)
    check_bool("normalize", normalize)
    check_ids("ids_n", ids_n, vocabulary)

    vectors_bh = np.zeros((offsets.shape[0] - 1, table_vh.shape[1]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for vector_h, start, end in zip(vectors_bh, offsets[:-1], offsets[1:], strict=True):
            if start == end:
                continue
            for token in ids_n[start:end]:
                row = token if rows_v is None else rows_v[token]
                row_h = table_vh[row].astype(np.float32)
                vector_h += row_h if weights_v is None else row_h * weights_v[token]
            vector_h /= np.float32(end - start)
            if normalize:
                wide_h = vector_h.astype(np.float64)
                norm = np.sqrt(np.sum(wide_h * wide_h))
                if norm != 0:
                    vector_h[:] = wide_h / norm
    return vectors_bh


def check_table(table_vh: Any, weights_v: Any, rows_v: Any) -> int:
    """Refuse what is no table with its weights and rows; see `embedding_bag`.

    Returns
    -------
    int
        How many tokens it is for.

    Raises
    ------
    TypeError, ValueError
        As `embedding_bag` raises them.
    """
    dtype = getattr(table_vh, "dtype", None)
    kinds = (np.float16, np.float32)
    check_array("table_vh", table_vh, next((k for k in kinds if dtype == k), np.int8), 2)
    vocabulary, of = table_vh.shape[0], "row of table_vh"
    if rows_v is not None:
        check_array("rows_v", rows_v, np.int32, 1)
        check_ids("rows_v", rows_v, vocabulary)
        vocabulary, of = rows_v.shape[0], "value of rows_v"
    if weights_v is not None:
        check_array("weights_v", weights_v, np.float32, 1)
        if weights_v.shape[0] != vocabulary:
            raise ValueError(
                f"weights_v: expected {vocabulary} weights, one for each {of},"
                f" got {weights_v.shape[0]}"
            )
    return int(vocabulary)
