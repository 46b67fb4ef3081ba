"""What a guard makes of an attempt: for the breaker, and for the day's sums."""

from __future__ import annotations

import asyncio

import pytest

from sprat.endpoints.breaker import FAILURES, Breaker
from sprat.endpoints.guard import Guard
from sprat.endpoints.spending import Caps, Prices, Spending, Usage
from sprat.errors import EndpointError, EngineError, InvalidInput, QueueFull, Retryable

MOST = Usage(100, 50)


def made(*, requests: int | None = None, most_open: int = 8) -> Guard:
    spending = Spending("big", None, caps=Caps(requests=requests), prices=Prices())
    return Guard("big", breaker=Breaker("big"), spending=spending, most_open=most_open)


def fail(guard: Guard, error: BaseException, used: Usage | None = None) -> None:
    with pytest.raises(type(error)), guard.attempt(MOST) as attempt:
        attempt.used = used
        raise error


def test_guard_counts_what_was_used() -> None:
    guard = made()
    with guard.attempt(MOST) as attempt:
        attempt.used = Usage(7, 1)
    spent = guard.spending.spent
    assert (spent.requests, spent.input_tokens, spent.output_tokens) == (1, 7, 1)


def test_guard_counts_the_most_where_nobody_knows() -> None:
    guard = made()
    with guard.attempt(MOST):
        pass
    fail(guard, asyncio.TimeoutError())
    assert guard.spending.spent.input_tokens == 200


@pytest.mark.parametrize("error", [asyncio.TimeoutError(), Retryable("x"), EndpointError("x")])
def test_guard_opens_the_breaker_by_failures(error: Exception) -> None:
    guard = made()
    for _ in range(FAILURES):
        fail(guard, error, Usage(0, 0))
    with pytest.raises(EngineError, match="failed lately"), guard.attempt(MOST):
        raise AssertionError("asked all the same")
    assert guard.spending.spent.requests == FAILURES


@pytest.mark.parametrize("error", [InvalidInput("x", field="y"), asyncio.CancelledError()])
def test_guard_does_not_blame_the_endpoint_for_texts_and_callers(error: BaseException) -> None:
    guard = made()
    for _ in range(2 * FAILURES):
        fail(guard, error)
    assert guard.breaker.state == "closed"


def test_guard_stops_at_the_cap_and_leaves_the_breaker_alone() -> None:
    guard = made(requests=1)
    with guard.attempt(MOST):
        pass
    for _ in range(2 * FAILURES):
        with pytest.raises(QueueFull, match="daily_requests of 1"), guard.attempt(MOST):
            raise AssertionError("asked all the same")
    assert guard.spending.spent.requests == 1
    assert guard.breaker.state == "closed"


def test_guard_has_room_for_so_many_texts() -> None:
    guard = made(most_open=4)
    said = "4 texts are under way or wait, at most 4 may"
    with guard.room(3), guard.room(1), pytest.raises(QueueFull, match=said):
        guard.room(1).__enter__()
    with guard.room(4):
        pass


def test_guard_lets_a_large_call_in_when_nothing_else_is_there() -> None:
    guard = made(most_open=4)
    with guard.room(100), pytest.raises(QueueFull):
        guard.room(1).__enter__()
    with guard.room(1), pytest.raises(QueueFull):
        guard.room(100).__enter__()
