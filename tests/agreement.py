"""Every kernel test runs on every implementation: they must give and raise the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def _outcome(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return call(), None
    except Exception as error:
        return None, error


def agree(native: Callable[[], T], specified: Callable[[], T]) -> tuple[T, T]:
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
