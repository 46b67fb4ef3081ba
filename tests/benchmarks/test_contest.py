"""A contest is checked before it is timed, and its ratio points the way that its goal does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sprat.benchmarks import contest
from sprat.benchmarks.contest import Contest
from sprat.benchmarks.harness import Context
from sprat.store import Store


def context(tmp_path: Path) -> Context:
    return Context(Store(tmp_path), None, True, lambda line: None)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Make a call that takes so many seconds of a clock that nothing else moves."""
    now = 0.0

    def make(seconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += seconds

        return call

    monkeypatch.setattr(contest, "time", SimpleNamespace(perf_counter=lambda: now))
    return make


Takes = Callable[[float], Callable[[], None]]


def test_contest_says_how_many_times_as_fast(tmp_path: Path, takes: Takes) -> None:
    given = Contest("c", "c", "theirs", takes(1e-6), takes(4e-6), list, at_least=3.5)
    (standing,) = contest.run(context(tmp_path), [given])
    assert standing.ratio.value == pytest.approx(4)
    assert standing.ratio.met
    assert standing.ours_us == pytest.approx(1)
    assert standing.theirs_us == pytest.approx(4)


def test_contest_says_the_share_of_their_time(tmp_path: Path, takes: Takes) -> None:
    given = Contest("c", "c", "theirs", takes(8e-6), takes(4e-6), list, at_most=1.5)
    (standing,) = contest.run(context(tmp_path), [given])
    assert standing.ratio.value == pytest.approx(2)
    assert standing.ratio.met is False


def test_contest_of_different_results_is_not_timed(tmp_path: Path) -> None:
    def differ() -> None:
        raise AssertionError("they differ")

    def never() -> None:
        pytest.fail("timed before it was checked")

    with pytest.raises(AssertionError, match="they differ"):
        contest.run(context(tmp_path), [Contest("c", "c", "x", never, never, differ)])
