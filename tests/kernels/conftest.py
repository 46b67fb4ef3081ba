"""One face over all implementations: each call goes to every one, and they must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from sprat.kernels import _array, _text, reference

T = TypeVar("T")


def _outcome(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return call(), None
    except Exception as error:
        return None, error


def _agree(native: Callable[[], T], specified: Callable[[], T]) -> tuple[T, T]:
    """Return both results; when both raise the same error, raise it."""
    got, got_error = _outcome(native)
    expected, expected_error = _outcome(specified)
    assert type(got_error) is type(expected_error), (got_error, expected_error)
    assert str(got_error) == str(expected_error)
    if expected_error is not None:
        raise expected_error
    assert got is not None
    assert expected is not None
    return got, expected


class EveryUtf8Stream:
    """`Utf8Stream` of every implementation, fed alike."""

    def __init__(self) -> None:
        self._native = _text.Utf8Stream()
        self._specified = reference.Utf8Stream()

    def feed(self, data: Any) -> str:
        got, expected = _agree(lambda: self._native.feed(data), lambda: self._specified.feed(data))
        assert got == expected
        return expected

    def flush(self) -> str:
        got, expected = self._native.flush(), self._specified.flush()
        assert got == expected
        return expected


class EveryImplementation:
    """The kernels of `sprat.kernels`, each call made on all implementations and compared."""

    Utf8Stream = EveryUtf8Stream

    @staticmethod
    def pool(*args: Any, **kwargs: Any) -> npt.NDArray[np.float32]:
        got, expected = _agree(
            lambda: _array.pool(*args, **kwargs), lambda: reference.pool(*args, **kwargs)
        )
        assert got.dtype == expected.dtype == np.float32
        assert got.shape == expected.shape
        assert got.flags.c_contiguous
        assert got.flags.writeable
        # Token sums run in the same order; only the norm may be rounded differently.
        np.testing.assert_array_max_ulp(got, expected, maxulp=1)
        return expected


@pytest.fixture(scope="session")
def kernels() -> EveryImplementation:
    return EveryImplementation()
