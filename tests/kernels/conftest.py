"""One face over all implementations: each call goes to every one, and they must agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree

from sprat.kernels import _array, _text, reference


class EveryUtf8Stream:
    """`Utf8Stream` of every implementation, fed alike."""

    def __init__(self) -> None:
        self._native = _text.Utf8Stream()
        self._specified = reference.Utf8Stream()

    def feed(self, data: Any) -> str:
        got, expected = agree(lambda: self._native.feed(data), lambda: self._specified.feed(data))
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
        got, expected = agree(
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
