"""Two ways to compute the same, timed in turn in one process on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sprat import measure
from sprat.benchmarks.harness import Context, Figure, figure

SAMPLE_S = 0.05
"""Least seconds of a timed sample: many calls of what is quick."""
QUICK_SAMPLE_S = 0.001


@dataclass(frozen=True, slots=True)
class Contest:
    """A kernel and its competitor on the same inputs.

    Attributes
    ----------
    name, title : str
        As in `Figure`.
    competitor : str
        Who else computes it.
    ours, theirs : callable
        One call of each.
    check : callable
        Raises AssertionError where their results differ; called before anything is timed.
    at_least : float or None
        Goal: how many times as fast ours has to be.
    at_most : float or None
        Goal for the share of their time that ours takes, instead.
    """

    name: str
    title: str
    competitor: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    check: Callable[[], None]
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rounds of a contest gave.

    Attributes
    ----------
    ours_us, theirs_us : float
        Microseconds a call: medians of rounds.
    ratio : Figure
        Times as fast, or share of their time where the contest says ``at_most``.
    """

    contest: Contest
    ours_us: float
    theirs_us: float
    ratio: Figure


def run(context: Context, contests: Sequence[Contest]) -> list[Standing]:
    """Check every contest, then time each in rounds, ours and theirs in turn."""
    sample_s = sample_seconds(context)
    standings = []
    for contest in contests:
        contest.check()
        rounds = [
            (microseconds(contest.ours, sample_s), microseconds(contest.theirs, sample_s))
            for _ in range(context.rounds)
        ]
        standings.append(_standing(contest, rounds))
        ratio = standings[-1].ratio
        context.say(f"{contest.title}: {ratio.value:.2f} against {contest.competitor}")
    return standings


def _standing(contest: Contest, rounds: Sequence[tuple[float, float]]) -> Standing:
    if contest.at_most is None:
        title = f"{contest.title}: times as fast as {contest.competitor}"
        ratios = [theirs / ours for ours, theirs in rounds]
    else:
        title = f"{contest.title}: share of the time of {contest.competitor}"
        ratios = [ours / theirs for ours, theirs in rounds]
    ratio = figure(
        contest.name,
        title,
        "",
        ratios,
        at_least=contest.at_least,
        at_most=contest.at_most,
    )
    ours, theirs = (measure.median(column) for column in zip(*rounds, strict=True))
    return Standing(contest, ours, theirs, ratio)


def sample_seconds(context: Context) -> float:
    """Least seconds of a timed sample."""
    return QUICK_SAMPLE_S if context.quick else SAMPLE_S


def microseconds(call: Callable[[], object], sample_s: float) -> float:
    """Microseconds a call, of as many calls as fill a sample."""
    call()
    calls = 1
    while True:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        elapsed = time.perf_counter() - started
        if elapsed >= sample_s:
            return elapsed / calls * 1e6
        calls = max(calls + 1, int(calls * min(10.0, 1.2 * sample_s / max(elapsed, 1e-9))))
