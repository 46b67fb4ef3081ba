from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sprat.benchmarks.load import Answer, Load, LoadProcess, Target, drive
from sprat.errors import InvalidInput, QueueFull, SetupError
from sprat.values import Timings

TEXTS = ("a", "b", "c")


class Calls:
    """Answers after a while, and remembers what was asked and how much was in flight."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, texts: Sequence[str]) -> Answer:
        self.batches.append(list(texts))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.002)
        self.in_flight -= 1
        return Answer(Timings(1_000_000, 2_000_000, 3_000_000, 7_000_000), 5)


async def test_load_sends_every_text_once_in_order() -> None:
    calls = Calls()
    result = await drive(calls, TEXTS, Load(1, calls=4))
    assert calls.batches == [["a"], ["b"], ["c"], ["a"]]
    assert (result.calls, result.texts, result.output_tokens) == (4, 4, 20)
    assert result.server_ms == {"tokenize": 1.0, "queue": 2.0, "infer": 3.0, "total": 7.0}


async def test_load_fills_calls_from_the_start_again() -> None:
    calls = Calls()
    result = await drive(calls, TEXTS, Load(2, texts_per_call=2, calls=3))
    assert calls.batches == [["a", "b"], ["c", "a"], ["b", "c"]]
    assert result.texts == 6
    assert len(result.latencies_ms) == 3
    assert all(each >= 2 for each in result.latencies_ms)


async def test_load_keeps_as_many_calls_in_flight_as_asked() -> None:
    calls = Calls()
    result = await drive(calls, TEXTS, Load(5, calls=20))
    assert calls.most_in_flight == 5
    assert result.calls == 20
    assert result.elapsed_s < 20 * 0.002 * 5
    assert result.calls_per_s == 20 / result.elapsed_s


async def test_load_ends_in_time_and_finishes_what_is_in_flight() -> None:
    result = await drive(Calls(), TEXTS, Load(3, seconds=0.05))
    assert 0.05 <= result.elapsed_s < 1
    assert result.calls >= 3


async def test_load_waits_as_told_when_it_is_refused() -> None:
    answers = iter([QueueFull("full", retry_after_s=0.02), None, None])

    async def call(texts: Sequence[str]) -> Answer:
        if (error := next(answers)) is not None:
            raise error
        return Answer(Timings())

    result = await drive(call, TEXTS, Load(1, calls=3))
    assert (result.calls, result.refused) == (2, 1)
    assert result.elapsed_s >= 0.02


async def test_load_ends_at_the_first_error() -> None:
    ended = []

    async def call(texts: Sequence[str]) -> Answer:
        if texts[0] == "b":
            raise InvalidInput("texts[0]: no", field="texts[0]")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(texts[0])
        raise AssertionError

    with pytest.raises(InvalidInput, match="no"):
        await drive(call, TEXTS, Load(3))
    assert sorted(ended) == ["a", "c"]


async def test_load_without_an_answer_has_no_server_timings() -> None:
    result = await drive(Calls(), TEXTS, Load(1, calls=0))
    assert (result.calls, result.server_ms, result.latencies_ms) == (0, {}, [])


def test_load_process_that_cannot_read_its_target_is_noticed() -> None:
    # No client can be made for this address.
    target = Target("unix:/no/such/socket", "sing", "tickets", TEXTS)  # type: ignore[arg-type]
    with (
        pytest.raises(SetupError, match="the load generator ended with status 1"),
        LoadProcess(target) as load,
    ):
        load.run(Load(1, calls=1))
