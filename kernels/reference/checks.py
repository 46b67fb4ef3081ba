"""Checks of arguments, alike in every kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    """Refuse what is not an aligned, C-contiguous array of this dtype and number of dimensions.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        Another shape or layout.
    """
    expected = np.dtype(dtype)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(array).__name__}")
    if array.dtype != expected:
        raise TypeError(f"{name}: expected dtype {expected}, got {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected ndim {ndim}, got {array.ndim}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(
            f"{name}: expected an aligned, C-contiguous array, got strides {array.strides}"
        )


def check_ids(name: str, ids_n: npt.NDArray[np.int32], limit: int) -> None:
    """Refuse integers outside [0, limit) and name the first.

    Raises
    ------
    ValueError
        One is out of range.
    """
    for index, value in enumerate(ids_n.tolist()):
        if not 0 <= value < limit:
            raise ValueError(f"{name}[{index}]: expected a value in [0, {limit}), got {value}")


def check_offsets(name: str, offsets: object, total: int) -> None:
    """Refuse what is not an array int64[B + 1] that ascends from 0 to `total`.

    Raises
    ------
    TypeError
        No array, or one of another dtype.
    ValueError
        Another shape, layout or content.
    """
    check_array(name, offsets, np.int64, 1)
    assert isinstance(offsets, np.ndarray)
    values = offsets.tolist()
    if not values:
        raise ValueError(f"{name}: expected at least 1 offset, got 0")
    if values[0] != 0:
        raise ValueError(f"{name}[0]: expected 0, got {values[0]}")
    for index in range(1, len(values)):
        if not values[index - 1] <= values[index] <= total:
            raise ValueError(
                f"{name}[{index}]: expected a value in [{values[index - 1]}, {total}],"
                f" got {values[index]}"
            )
    if values[-1] != total:
        raise ValueError(f"{name}[{len(values) - 1}]: expected {total}, got {values[-1]}")
