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


def check_bool(name: str, value: object) -> None:
    """Refuse what is not a bool.

    Raises
    ------
    TypeError
        Another type.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected bool, got {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of these strings.

    Raises
    ------
    TypeError
        No str.
    ValueError
        Another str.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected str, got {type(value).__name__}")
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{name}: expected {', '.join(most)} or {last}, got {value!r}")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not an int in [low, high].

    Raises
    ------
    TypeError
        No int, or a bool.
    ValueError
        Another value.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an int in [{low}, {high}], got {value}")


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a finite float above 0.

    Raises
    ------
    TypeError
        No float.
    ValueError
        Another value.
    """
    if not isinstance(value, float):
        raise TypeError(f"{name}: expected float, got {type(value).__name__}")
    if not 0 < value < np.inf:
        raise ValueError(f"{name}: expected a finite float above 0, got {float(value)!r}")


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


def check_lengths(
    name: str, lengths_b: npt.NDArray[np.int32], of: str, rows: int, tokens: int
) -> None:
    """Refuse what is not a length in [1, tokens] for each row of the array `of`.

    Raises
    ------
    ValueError
        Too many or too few, or one out of range.
    """
    if lengths_b.shape[0] != rows:
        raise ValueError(
            f"{name}: expected {rows} lengths, one for each row of {of}, got {lengths_b.shape[0]}"
        )
    for row, length in enumerate(lengths_b.tolist()):
        if not 1 <= length <= tokens:
            raise ValueError(f"{name}[{row}]: expected a length in [1, {tokens}], got {length}")
