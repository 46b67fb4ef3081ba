"""The same calls to several servers in turn, checked, and what came of it as figures and rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from sprat import measure
from sprat.benchmarks.harness import Cell, Context, Figure, figure
from sprat.benchmarks.load import Answer, Call, Item, Load, LoadResult, drive
from sprat.errors import SetupError

OURS = "sprat"
PEER = "llama-server"
COLUMNS = ("work", "weights", "measure", OURS, PEER, "llama-cpp-python")
"""Of the table. What llama-bench gives stands under llama-server."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of one load.

    Attributes
    ----------
    name, title : str
        As in `Figure`.
    of : callable
        Takes it from a load's result.
    """

    name: str
    title: str
    of: Callable[[LoadResult], float]


RATE = Measure("rate", "requests/s", lambda result: result.calls_per_s)
LATENCY = Measure("p50", "p50, ms", lambda result: measure.median(result.latencies_ms))
TOKENS = Measure(
    "tokens", "answer tokens/s", lambda result: result.output_tokens / result.elapsed_s
)
FIRST = Measure("first", "p50 until the first text, ms", lambda r: measure.median(r.first_ms))


@dataclass(frozen=True, slots=True)
class Goal:
    """How a measure of ours has to compare with the one of another side.

    Attributes
    ----------
    against : str
        The other side.
    at_least, at_most : float or None
        Bound of ours divided by theirs.
    """

    measure: Measure
    at_least: float | None = None
    at_most: float | None = None
    against: str = PEER


@dataclass(frozen=True, slots=True)
class Match(Generic[Item]):
    """Work for several servers.

    Attributes
    ----------
    name, title : str
        As in `Figure`.
    clients : int
        Calls in flight.
    calls : int
        In a round.
    items : sequence of Item
        One for each call, in order; from the first again when all were used.
    sides : dict of str to Call
        Who does it: `OURS`, and others.
    check : callable
        Raises SetupError where an answer to an item is not valid.
    measures : tuple of Measure
        Rows of the table.
    goals : tuple of Goal
        Those without a side of theirs are left out.
    """

    name: str
    title: str
    clients: int
    calls: int
    items: Sequence[Item]
    sides: dict[str, Call[Item]]
    check: Callable[[Item, Answer], None]
    measures: tuple[Measure, ...]
    goals: tuple[Goal, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """Figures of a match, its rows under `COLUMNS`, and every round of each side."""

    figures: tuple[Figure, ...]
    rows: tuple[tuple[Cell, ...], ...]
    raw: dict[str, dict[str, list[float]]]


async def play(context: Context, match: Match[Item], weights: str) -> Played:
    """Every side in turn, on the same items; the first round warms up and is not measured.

    Parameters
    ----------
    weights : str
        Type of the model's weights, for titles.

    Raises
    ------
    SetupError
        An answer of a side that a goal is about is not valid, or a call was refused. Another side
        is left out then.
    """
    needed = {OURS, *(goal.against for goal in match.goals)}
    results: dict[str, list[LoadResult]] = {name: [] for name in match.sides}
    items = itertools.cycle(match.items)
    calls = match.clients if context.quick else match.calls
    for number in range(context.rounds + 1):
        batch = list(itertools.islice(items, calls if number else 2 * match.clients))
        # Who comes first changes: what a machine does over time then favours nobody.
        order = list(results)[:: 1 if number % 2 else -1]
        for name in order:
            call = _checked(match, name)
            try:
                result = await drive(call, batch, Load(match.clients, calls=len(batch)))
            except SetupError as error:
                if name in needed:
                    raise
                context.say(f"{error.message}; it is left out")
                del results[name]
                continue
            if result.refused:
                raise SetupError(f"{match.title}: {name} refused {result.refused} calls")
            if number:
                results[name].append(result)
        if number:
            rates = ", ".join(f"{n} {r[-1].calls_per_s:.2f}" for n, r in results.items())
            context.say(f"{match.title}, {weights}: round {number}: {rates} requests/s")
    return judge(match, weights, results)


def _checked(match: Match[Item], name: str) -> Call[Item]:
    async def call(items: Sequence[Item]) -> Answer:
        answer = await match.sides[name](items)
        try:
            match.check(items[0], answer)
        except SetupError as error:
            raise SetupError(f"{match.title}: {name}: {error.message}") from None
        return answer

    return call


def judge(match: Match[Item], weights: str, results: dict[str, list[LoadResult]]) -> Played:
    """Ratios within each round against the goals, and medians of the rounds as rows."""
    values = {
        name: {each.name: [each.of(result) for result in rounds] for each in match.measures}
        for name, rounds in results.items()
    }
    figures = []
    for goal in match.goals:
        if goal.against not in results:
            continue
        mine, other = ([goal.measure.of(r) for r in results[s]] for s in (OURS, goal.against))
        figures.append(
            figure(
                f"{match.name}_{goal.measure.name}_{weights.lower()}",
                f"{match.title}, {weights}: {goal.measure.title.partition(',')[0]}, "
                f"share of {goal.against}",
                "",
                [a / b for a, b in zip(mine, other, strict=True)],
                at_least=goal.at_least,
                at_most=goal.at_most,
            )
        )
    rows = tuple(
        (
            match.title,
            weights,
            each.title,
            *(
                measure.median(values[name][each.name]) if name in values else None
                for name in COLUMNS[3:]
            ),
        )
        for each in match.measures
    )
    return Played(tuple(figures), rows, values)
