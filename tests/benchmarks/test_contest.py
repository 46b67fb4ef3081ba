"""A contest is checked before it is timed, and its ratio points the way that its goal does."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from sprat.benchmarks import contest
from sprat.benchmarks.contest import Contest
from sprat.benchmarks.harness import Context
from sprat.store import Store


def context(tmp_path: Path) -> Context:
    return Context(Store(tmp_path), None, True, lambda line: None)


def of(seconds: float, **goal: float) -> Contest:
    """Sleeps against a competitor that sleeps for 4 ms."""
    sleep = time.sleep
    return Contest(
        "sleep", "sleep", "a nap", partial(sleep, seconds), partial(sleep, 0.004), list, **goal
    )


def test_contest_says_how_many_times_as_fast(tmp_path: Path) -> None:
    (standing,) = contest.run(context(tmp_path), [of(0.001, at_least=1.5)])
    assert 1.5 < standing.ratio.value < 4.5
    assert standing.ratio.met
    assert standing.ours_us == pytest.approx(1_100, rel=0.5)
    assert standing.theirs_us == pytest.approx(4_100, rel=0.5)


def test_contest_says_the_share_of_their_time(tmp_path: Path) -> None:
    (standing,) = contest.run(context(tmp_path), [of(0.008, at_most=1.5)])
    assert 1.5 < standing.ratio.value < 3
    assert standing.ratio.met is False


def test_contest_of_different_results_is_not_timed(tmp_path: Path) -> None:
    def differ() -> None:
        raise AssertionError("they differ")

    def never() -> None:
        pytest.fail("timed before it was checked")

    with pytest.raises(AssertionError, match="they differ"):
        contest.run(context(tmp_path), [Contest("c", "c", "x", never, never, differ)])
