"""Ragged rows of token ids to the padded arrays that models take."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_ids, check_int, check_offsets

INT32_MAX = 2**31 - 1


def pack(
    ids_n: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    vocabulary_size: int,
    order_m: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    """Pad rows of token ids with zeros to the length of the longest.

    Row b holds ``ids[offsets[b]:offsets[b + 1]]``. With r = order[m], or r = m without `order_m`::

        lengths[m] = offsets[r + 1] - offsets[r]
        ids[m, t]  = ids[offsets[r] + t]  if t < lengths[m], else 0
        mask[m, t] = t < lengths[m]

    Parameters
    ----------
    ids_n : int32[N]
        The ids of all rows, one row after the other; N at most 2**31 - 1.
    offsets : int64[B + 1]
        Where each row starts, and the end of the last: from 0, ascending, to N. Rows may be empty.
    vocabulary_size : int
        In [1, 2**31 - 1]. Every id of a row that is taken has to be in [0, `vocabulary_size`).
    order_m : int32[M], optional
        Which rows to take, in which order, each in [0, B); a row may be taken more than once.
        By default all of them in their order.

    Returns
    -------
    ids_mt : int32[M, T]
        T is the length of the longest row that is taken; 0 without rows.
    mask_mt : bool[M, T]
        True where there is a token.
    lengths_m : int32[M]
        Tokens of each row.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, offsets that do not ascend from 0 to N, a row that is
        not there, or an id outside the vocabulary (the message names the first one of the first
        such row, by its index in `ids_n`).

    Examples
    --------
    >>> import numpy as np
    >>> ids, offsets = np.array([7, 8, 9], dtype=np.int32), np.array([0, 1, 3])
    >>> ids_mt, mask_mt, lengths_m = pack(ids, offsets, 10, np.array([1, 0], dtype=np.int32))
    >>> ids_mt, lengths_m
    (array([[8, 9],
           [7, 0]], dtype=int32), array([2, 1], dtype=int32))
    >>> mask_mt
    array([[ True,  True],
           [ True, False]])
    """
    check_array("ids_n", ids_n, np.int32, 1)
    if ids_n.shape[0] > INT32_MAX:
        raise ValueError(f"ids_n: expected at most {INT32_MAX} ids, got {ids_n.shape[0]}")
    check_offsets("offsets", offsets, ids_n.shape[0])
    check_int("vocabulary_size", vocabulary_size, 1, INT32_MAX)
    rows = offsets.shape[0] - 1
    if order_m is None:
        order_m = np.arange(rows, dtype=np.int32)
    else:
        check_array("order_m", order_m, np.int32, 1)
        check_ids("order_m", order_m, rows)

    taken = [(int(offsets[row]), int(offsets[row + 1])) for row in order_m]
    lengths_m = np.array([end - start for start, end in taken], dtype=np.int32)
    shape = (len(taken), max(lengths_m.tolist(), default=0))
    ids_mt, mask_mt = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.bool_)
    for m, (start, end) in enumerate(taken):
        for index in range(start, end):
            if not 0 <= ids_n[index] < vocabulary_size:
                raise ValueError(
                    f"ids_n[{index}]: expected a value in [0, {vocabulary_size}),"
                    f" got {ids_n[index]}"
                )
        ids_mt[m, : end - start] = ids_n[start:end]
        mask_mt[m, : end - start] = True
    return ids_mt, mask_mt, lengths_m


def length_order(
    lengths_b: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Order rows from the longest to the shortest; rows of one length keep their order.

    Parameters
    ----------
    lengths_b : int32[B]
        Tokens of each row, from 0.

    Returns
    -------
    order_b : int32[B]
        Indices of the rows, longest first.
    inverse_b : int32[B]
        The place of each row: ``inverse[order[i]] == i``, so ``sorted[inverse]`` is in the order of
        the input again.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        An array of another shape or layout, or a length below 0.

    Examples
    --------
    >>> import numpy as np
    >>> length_order(np.array([2, 5, 2], dtype=np.int32))
    (array([1, 0, 2], dtype=int32), array([1, 0, 2], dtype=int32))
    """
    check_array("lengths_b", lengths_b, np.int32, 1)
    for row, length in enumerate(lengths_b.tolist()):
        if length < 0:
            raise ValueError(f"lengths_b[{row}]: expected a length from 0, got {length}")
    order = sorted(range(len(lengths_b)), key=lambda row: -int(lengths_b[row]))
    order_b = np.array(order, dtype=np.int32)
    inverse_b = np.empty_like(order_b)
    inverse_b[order_b] = np.arange(len(order), dtype=np.int32)
    return order_b, inverse_b
