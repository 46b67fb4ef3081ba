"""Turns of adapters: those in use go on for a while, then whoever waits longest has its turn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from sprat.scheduler import turns
from sprat.scheduler.turns import TURN_NS, next_of


@dataclass
class Work:
    adapter: str
    fits: bool = True
    submitted_ns: int = field(default_factory=time.perf_counter_ns)


def find(waiting: list[Work], in_use: str | None) -> Work | None:
    return next_of(waiting, in_use, lambda w: w.fits and in_use in (None, w.adapter))


def test_turns_nothing_waits() -> None:
    assert find([], None) is None
    assert find([], "red") is None


def test_turns_the_first_that_waits_starts() -> None:
    works = [Work("red"), Work("red")]
    assert find(works, None) is works[0]
    assert find(works, "red") is works[0]


def test_turns_work_under_the_adapter_in_use_passes_another() -> None:
    works = [Work("blue"), Work(""), Work("red", fits=False), Work("red"), Work("red")]
    assert find(works, "red") is works[3]


def test_turns_nobody_passes_for_ever() -> None:
    works = [Work("blue", submitted_ns=time.perf_counter_ns() - TURN_NS - 1), Work("red")]
    assert find(works, "red") is None
    assert find(works, None) is works[0]


def test_turns_nobody_passes_what_only_lacks_room() -> None:
    works = [Work("red", fits=False), Work("red")]
    assert find(works, "red") is None


@pytest.mark.parametrize("turn_ns", [0, 10**12])
def test_turns_are_as_long_as_stated(monkeypatch: pytest.MonkeyPatch, turn_ns: int) -> None:
    monkeypatch.setattr(turns, "TURN_NS", turn_ns)
    works = [Work("blue", submitted_ns=time.perf_counter_ns() - 1000), Work("red")]
    assert (find(works, "red") is works[1]) == (turn_ns > 0)
