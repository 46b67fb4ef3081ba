"""Storms of starts, stops, steps and failing batches: nobody is harmed, nothing is left behind.

On a tiny model in float32, every answer is known from a run alone; llama.cpp is watched.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from llamas import run, text_of
from watched import Watched

from sprat.engine import llama_lib
from sprat.engine.base import Choice, Progress, Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import Chooser
from sprat.engine.llama_lane import NO_CELLS, Lane, Row
from sprat.values import FloatArray, Grammar, IntArray, Sampling

SCHEMA = '{"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"]}'
HEADS = [np.arange(20 * n, 20 * n + 40, dtype=np.int32) % 200 + 10 for n in range(4)]
MOST_STEPS = 5000


@dataclass
class Storm:
    """An engine, requests, and what each is answered alone."""

    engine: LlamaEngine
    watched: Watched
    starts: list[Start]
    alone: list[str]


@pytest.fixture(scope="module")
def storm(tiny: Path) -> Iterator[Storm]:
    with pytest.MonkeyPatch.context() as patch:
        watched = Watched()
        patch.setattr(llama_lib, "load", lambda: watched)
        engine = LlamaEngine(
            tiny, context_length=512, sequence_limit=5, cells=1792, choice_cells=512, threads=1
        )
    draw = random.Random(4)
    grammar = engine.compile(Grammar("json_schema", SCHEMA))
    starts = []
    for number in range(24):
        shared = draw.choice([0, 40])
        head = HEADS[number % len(HEADS)][:shared]
        tail = np.array([draw.randrange(3, 250) for _ in range(draw.choice([3, 30, 150]))])
        start = Start(
            number,
            np.concatenate([head, tail]).astype(np.int32),
            Sampling(max_tokens=draw.choice([1, 5, 40, 300])),
            shared=shared,
            grammar=grammar if number % 3 == 0 else None,
            lookup=number % 2 == 0,
        )
        starts.append(start)
    alone = []
    for start in starts:
        engine.start(replace(start, shared=0, lookup=False))
        alone.append(text_of(run(engine)[start.sequence]))
    yield Storm(engine, watched, starts, alone)
    engine.close()


def check(engine: LlamaEngine) -> None:
    """What holds between any two steps."""
    live = set(engine._live.values())
    queued = [*engine._running, *engine._filling]
    assert len(queued) == len(live)
    assert set(queued) == live
    placed = []
    for lane in engine._lanes:
        assert [s.place for s in lane._occupants] == list(range(len(lane._occupants)))
        placed += lane._occupants
        prefixes = engine._prefixes[lane]
        assert sorted([*prefixes._free, *prefixes._kept.values()]) == list(lane.spare)
        makers = [*prefixes._makers.values()]
        assert all(maker in live and maker.position < maker.shared for maker in makers)
    assert set(placed) == live
    assert len(placed) == len(live)


def check_empty(engine: LlamaEngine) -> None:
    """Nothing is left but kept prefixes."""
    check(engine)
    assert not engine.busy()
    for lane in engine._lanes:
        prefixes = engine._prefixes[lane]
        assert not prefixes._makers
        kept = {place: len(key[1]) // 4 - 1 for key, place in prefixes._kept.items()}
        for place in range(lane.places + len(lane.spare)):
            last = lane._lib.llama_memory_seq_pos_max(lane._memory, place)
            assert last == kept.get(place, -1)


@pytest.mark.parametrize("seed", range(6))
def test_llama_storm_every_answer_is_that_of_a_run_alone(storm: Storm, seed: int) -> None:
    engine, draw = storm.engine, random.Random(seed)
    waiting = [*storm.starts]
    draw.shuffle(waiting)
    texts = dict.fromkeys(range(len(storm.starts)), "")
    ended: dict[int, str] = {}
    stopped: set[int] = set()
    steps = 0
    while waiting or engine.busy():
        for start in waiting[:]:
            if draw.random() < 0.5 and engine.has_room(len(start.prompt) + 300):
                engine.start(start)
                waiting.remove(start)
                check(engine)
        if engine.busy() and draw.random() < 0.05:
            number = draw.choice([*engine._live])
            engine.stop(number)
            stopped.add(number)
            check(engine)
        for progress in engine.step(max_tokens=draw.choice([1, 7, 64]), threads=1):
            assert progress.error is None
            assert progress.sequence not in ended
            texts[progress.sequence] += progress.text
            if progress.finish_reason:
                ended[progress.sequence] = progress.finish_reason
        check(engine)
        steps += 1
        assert steps < MOST_STEPS, "somebody starves"
    assert ended.keys() | stopped == {*texts}
    assert {n: texts[n] for n in ended} == {n: storm.alone[n] for n in ended}
    check_empty(engine)


@pytest.mark.parametrize("status", [NO_CELLS, 2, -1, -3])
def test_llama_storm_batches_that_fail_harm_nobody_else(
    storm: Storm, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, draw = storm.engine, random.Random(status)
    real = Lane.decode
    failing: list[bool] = []

    def decode(lane: Lane, rows: Sequence[Row], *, threads: int) -> int:
        failing.append(draw.random() < 0.05)
        return status if failing[-1] else real(lane, rows, threads=threads)

    monkeypatch.setattr(Lane, "decode", decode)
    waiting = [*storm.starts]
    seen: dict[int, list[Progress]] = {}
    while waiting or engine.busy():
        while waiting and engine.has_room(len(waiting[0].prompt) + 300):
            engine.start(waiting.pop(0))
        for progress in engine.step(max_tokens=64, threads=1):
            seen.setdefault(progress.sequence, []).append(progress)
        check(engine)
        assert len(failing) < MOST_STEPS
    assert any(failing)
    ended = {number: made[-1] for number, made in seen.items()}
    assert ended.keys() == set(range(len(storm.starts)))
    for number, last in ended.items():
        assert (last.error is None) == (last.finish_reason is not None)
        if last.error is None:
            assert text_of(seen[number]) == storm.alone[number]
    assert any(last.error for last in ended.values())
    check_empty(engine)


@pytest.mark.parametrize("slice_tokens", [8, 64])
def test_llama_running_answers_grow_in_every_step_of_a_long_prompt(
    storm: Storm, slice_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is longer than its slice, and none goes by without a token for each answer."""
    engine = storm.engine
    sizes: list[int] = []
    real = Lane.decode

    def decode(lane: Lane, rows: Sequence[Row], *, threads: int) -> int:
        sizes.append(sum(len(row.ids) for row in rows))
        return real(lane, rows, threads=threads)

    monkeypatch.setattr(Lane, "decode", decode)
    short = np.arange(20, 28, dtype=np.int32)
    endless = engine.compile(Grammar("regex", "[a-z]{300}"))
    for number in range(4):
        prompt = short + number
        engine.start(Start(number, prompt, Sampling(max_tokens=200), grammar=endless))
    engine.step(max_tokens=64, threads=1)
    long = (np.arange(500) % 200 + 20).astype(np.int32)
    engine.start(Start(4, long, Sampling(max_tokens=1)))
    seen: list[Progress] = []
    while not any(progress.sequence == 4 for progress in seen):
        sizes.clear()
        seen = engine.step(max_tokens=slice_tokens, threads=1)
        assert {progress.sequence for progress in seen} >= {0, 1, 2, 3}
        assert sum(sizes) <= slice_tokens
    for number in range(4):
        engine.stop(number)
    check_empty(engine)


def test_llama_storm_choices(storm: Storm) -> None:
    """Every choice gives what it gives alone, whoever comes, goes and fails beside it."""
    chooser, draw = storm.engine.chooser(), random.Random(9)
    options = [ids("red"), ids("blue"), ids("blue sea"), ids("green")]
    many = [ids(f"{one}{two}") for one in "abcdefgh" for two in "abcdefgh"]
    choices = [
        Choice(
            np.concatenate([HEADS[n % 4], ids("a text " * (1 + n % 3)), ids(str(n))]),
            draw.choice([0, 40]),
            tuple(many if n % 4 == 0 else options),
            "full" if n % 2 else "constrained",
            common=0 if n % 3 else 45,
        )
        for n in range(24)
    ]
    alone = [finished(chooser, choice) for choice in choices]
    for _ in range(4):
        waiting = [*enumerate(choices)]
        draw.shuffle(waiting)
        while waiting or chooser.busy:
            while waiting and chooser.has_room(waiting[0][1]) and draw.random() < 0.8:
                chooser.start(*waiting.pop(0))
            if chooser.busy and draw.random() < 0.1:
                chooser.stop(draw.choice([*chooser._live]))
            for chosen in chooser.step(max_tokens=draw.choice([32, 64]), threads=1):
                assert chosen.error is None
                expected = alone[chosen.number]
                np.testing.assert_allclose(chosen.probabilities, expected, atol=1e-3)
    assert not chooser._live
    chooser._prefixes.drop_texts()
    held = {p.sequence: p.done for p in chooser._prefixes._kept.taken.values()}
    for sequence in range(96):
        last = storm.watched.llama_memory_seq_pos_max(chooser._memory, sequence)
        assert last == held.get(sequence, 0) - 1


def ids(text: str) -> IntArray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 3


def finished(chooser: Chooser, choice: Choice) -> FloatArray:
    chooser.start(0, choice)
    found: list[FloatArray] = []
    while not found:
        found = [chosen.probabilities for chosen in chooser.step(max_tokens=64, threads=1)]
    return found[0]


def test_llama_storms_came_to_the_limits(storm: Storm) -> None:
    """The watch saw real batches and copies; it would have caught what goes beyond."""
    assert storm.watched.copies
    assert storm.watched.most_tokens >= 64
    assert storm.watched.most_outputs >= 5
