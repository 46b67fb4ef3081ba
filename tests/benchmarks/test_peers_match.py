"""Every side gets the same items in turn; answers are checked; ratios are taken within a round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sprat.benchmarks.harness import Context
from sprat.benchmarks.load import Answer, LoadResult
from sprat.benchmarks.peers_match import (
    COLUMNS,
    FIRST,
    LATENCY,
    RATE,
    TOKENS,
    Goal,
    Match,
    judge,
    play,
)
from sprat.errors import QueueFull, SetupError
from sprat.store import Store
from sprat.values import Timings


class Side:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, text: str = "good") -> None:
        self.text = text
        self.items: list[str] = []

    async def __call__(self, items: Sequence[str]) -> Answer:
        self.items += items
        return Answer(Timings(), 3, self.text, first_ms=2.0)


def check(item: str, answer: Answer) -> None:
    if answer.text != "good":
        raise SetupError("an answer is not good")


def match(**sides: Side) -> Match[str]:
    return Match(
        name="work",
        title="some work",
        clients=2,
        calls=3,
        items=("a", "b", "c", "d", "e"),
        sides={name.replace("_", "-"): side for name, side in sides.items()},
        check=check,
        measures=(RATE, FIRST),
        goals=(Goal(RATE, at_least=3.0), Goal(LATENCY, at_most=0.4)),
    )


def context(tmp_path: Path, *, quick: bool = False) -> Context:
    return Context(Store(tmp_path), None, quick, lambda line: None)


async def test_match_gives_every_side_the_same_items(tmp_path: Path) -> None:
    ours, theirs = Side(), Side()
    played = await play(context(tmp_path), match(sprat=ours, llama_server=theirs), "Q8_0")
    # 2 clients warm up with 4 items, then come 5 rounds of 3.
    assert ours.items == theirs.items == [*"abcde" * 3, *"abcd"]
    assert {len(each.rounds) for each in played.figures} == {5}
    assert {name: len(each["rate"]) for name, each in played.raw.items()} == {
        "sprat": 5,
        "llama-server": 5,
    }


async def test_match_that_is_a_trial_has_one_short_round(tmp_path: Path) -> None:
    ours = Side()
    await play(context(tmp_path, quick=True), match(sprat=ours), "Q8_0")
    assert len(ours.items) == 4 + 2


async def test_match_names_who_gave_an_answer_that_is_not_valid(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="some work: llama-server: an answer is not good"):
        await play(context(tmp_path), match(sprat=Side(), llama_server=Side("bad")), "Q8_0")


async def test_match_leaves_out_who_no_goal_is_about_where_an_answer_is_not_valid(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    noted = Context(Store(tmp_path), None, False, said.append)
    ours, peer, other = Side(), Side(), Side("bad")
    played = await play(noted, match(sprat=ours, llama_server=peer, llama_cpp_python=other), "Q8_0")
    assert "llama-cpp-python: an answer is not good; it is left out" in said[0]
    assert len(ours.items) == len(peer.items) > len(other.items)
    assert [row[-1] for row in played.rows] == [None, None]


async def test_match_with_a_refused_call_is_none(tmp_path: Path) -> None:
    class Full(Side):
        async def __call__(self, items: Sequence[str]) -> Answer:
            raise QueueFull("full", retry_after_s=0.001)

    with pytest.raises(SetupError, match="some work: sprat refused 4 calls"):
        await play(context(tmp_path), match(sprat=Full()), "Q8_0")


def load(calls: int, seconds: float, latency: float) -> LoadResult:
    return LoadResult(
        calls=calls,
        elapsed_s=seconds,
        latencies_ms=[latency] * calls,
        first_ms=[latency / 2] * calls,
        output_tokens=10 * calls,
    )


def test_match_is_judged_by_ratios_within_a_round() -> None:
    played = judge(
        match(),
        "Q4_0",
        {
            "sprat": [load(6, 1, 100), load(4, 1, 200), load(8, 1, 400)],
            "llama-server": [load(2, 1, 400), load(1, 1, 400), load(4, 1, 500)],
        },
    )
    rate, latency = played.figures
    assert (rate.name, rate.rounds, rate.value, rate.met) == ("work_rate_q4_0", (3, 4, 2), 3, True)
    assert rate.title == "some work, Q4_0: requests/s, share of llama-server"
    assert (latency.rounds, latency.met) == ((0.25, 0.5, 0.8), False)


def test_match_has_a_row_for_each_measure() -> None:
    played = judge(
        match(), "Q8_0", {"sprat": [load(6, 2, 100)], "llama-cpp-python": [load(1, 1, 8)]}
    )
    assert played.figures == ()
    assert [dict(zip(COLUMNS, row, strict=True)) for row in played.rows] == [
        {
            "work": "some work",
            "weights": "Q8_0",
            "measure": title,
            "sprat": ours,
            "llama-server": None,
            "llama-cpp-python": python,
        }
        for title, ours, python in (
            ("requests/s", 3, 1),
            ("p50 until the first text, ms", 50, 4),
        )
    ]
    assert TOKENS.of(load(6, 2, 100)) == 30
