"""Checks of arguments, alike in every kernel."""

from __future__ import annotations

import numpy as np


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


def check_int(name: str, value: object, lowest: int, highest: int) -> None:
    """Refuse what is not an int in [lowest, highest]; bool is none.

    Raises
    ------
    TypeError
        No int.
    ValueError
        Out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected int, got {type(value).__name__}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name}: expected an int in [{lowest}, {highest}], got {value}")
