"""The circuit breaker, on a clock of the test's own."""

from __future__ import annotations

import pytest

from sprat.endpoints.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, WINDOW, Breaker
from sprat.errors import EngineError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("big", clock=clock)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        breaker.fail(breaker.begin())
    return breaker


def test_breaker_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.fail(breaker.begin())
    assert breaker.state == "closed"
    breaker.fail(breaker.begin())
    assert breaker.state == "open"
    assert breaker.retry_in_s == FIRST_PAUSE_S
    with pytest.raises(EngineError, match="endpoint big failed lately, and is not asked for 5 s"):
        breaker.begin()


def test_breaker_forgets_a_row_of_failures_with_a_success(breaker: Breaker) -> None:
    for _ in range(FAILURES - 1):
        breaker.fail(breaker.begin())
    breaker.succeed(breaker.begin())
    breaker.fail(breaker.begin())
    assert breaker.state == "closed"


def test_breaker_opens_where_half_of_the_latest_failed(breaker: Breaker) -> None:
    for _ in range(WINDOW // 2 - 1):
        breaker.succeed(breaker.begin())
        breaker.fail(breaker.begin())
    breaker.succeed(breaker.begin())
    assert breaker.state == "closed"
    breaker.fail(breaker.begin())
    assert breaker.state == "open"


def test_breaker_stays_closed_below_that_share(breaker: Breaker) -> None:
    for _ in range(5 * WINDOW):
        breaker.succeed(breaker.begin())
        breaker.succeed(breaker.begin())
        breaker.fail(breaker.begin())
    assert breaker.state == "closed"


def test_breaker_lets_one_probe_through_and_closes(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += FIRST_PAUSE_S
    assert (breaker.state, breaker.retry_in_s) == ("open", 0.0)
    probe = breaker.begin()
    assert breaker.state == "half_open"
    with pytest.raises(EngineError, match="until it did"):
        breaker.begin()
    breaker.succeed(probe)
    assert breaker.state == "closed"
    breaker.fail(breaker.begin())
    assert breaker.state == "closed"


def test_breaker_pauses_twice_as_long_after_each_failed_probe(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    pauses = []
    for _ in range(8):
        clock.now += breaker.retry_in_s
        breaker.fail(breaker.begin())
        pauses.append(breaker.retry_in_s)
    assert pauses[:3] == [2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    clock.now += LONGEST_PAUSE_S
    breaker.succeed(breaker.begin())
    assert opened(breaker).retry_in_s == FIRST_PAUSE_S


def test_breaker_asks_again_at_once_after_an_abandoned_probe(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    clock.now += FIRST_PAUSE_S
    breaker.abandon(breaker.begin())
    assert (breaker.state, breaker.retry_in_s) == ("open", 0.0)
    breaker.succeed(breaker.begin())
    assert breaker.state == "closed"


def test_breaker_ignores_what_was_begun_before_it_moved(breaker: Breaker, clock: Clock) -> None:
    slow = [breaker.begin() for _ in range(3)]
    opened(breaker)
    breaker.succeed(slow[0])
    assert breaker.state == "open"
    clock.now += FIRST_PAUSE_S
    probe = breaker.begin()
    breaker.fail(slow[1])
    breaker.abandon(slow[2])
    assert breaker.state == "half_open"
    breaker.succeed(probe)
    assert breaker.state == "closed"
