from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from llamas import ANSWER, STORIES, long_prompt, run, text_of, tokens

from sprat.engine import llama_lib
from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_lane import BATCH_TOKENS, NO_CELLS, Lane, Row
from sprat.errors import (
    EngineError,
)
from sprat.values import Sampling


def test_llama_batch_never_exceeds_what_llama_cpp_takes(engine: LlamaEngine) -> None:
    for number in range(2):
        engine.start(Start(number, long_prompt(engine, 400), Sampling(max_tokens=9)))
    engine.step(max_tokens=10**6, threads=2)
    assert sum(s.position for s in engine._live.values()) == BATCH_TOKENS


def test_llama_all_sequences_may_want_an_output_in_one_batch(engine: LlamaEngine) -> None:
    for number in range(8):
        engine.start(Start(10**12 + number, tokens(engine, "Hi"), Sampling(max_tokens=3)))
    assert len(engine.step(max_tokens=512, threads=2)) == 8


class Guest:
    place = -1


@pytest.fixture
def lane(engine: LlamaEngine) -> Iterator[Lane]:
    (lane,) = engine._lanes
    guests = [Guest(), Guest()]
    for guest in guests:
        lane.enter(guest)
    yield lane
    for guest in guests:
        lane.leave(guest)


def row(place: int = 0, count: int = 1, token: int = 20) -> Row:
    return Row(place, np.full(count, token, np.int32), position=0, outputs=1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(count=BATCH_TOKENS + 1)], "expected 1 to 512 tokens"),
        ([row(0, 300), row(1, 300)], "expected 1 to 512 tokens"),
        ([], "expected 1 to 512 tokens"),
        ([row(count=0)], "expected 1 to 512 tokens"),
        ([row(2)], "each below 2"),
        ([row(-1)], "each below 2"),
        ([row(1000)], "each below 2"),
        ([row(1), row(0)], "places in order"),
        ([row(0), row(0)], "places in order"),
    ],
)
def test_llama_lane_refuses_what_would_abort_the_process(
    lane: Lane, rows: list[Row], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        lane.decode(rows, threads=2)
    assert lane.decode([row(0), row(1)], threads=2) == 0


@pytest.mark.parametrize("threads", [0, -1, 513])
def test_llama_lane_refuses_threads_that_would_abort_the_process(lane: Lane, threads: int) -> None:
    with pytest.raises(EngineError, match=f"threads: expected 1 to 512, got {threads}"):
        lane.decode([row()], threads=threads)
    assert lane.decode([row()], threads=1) == 0


def test_llama_logits_come_in_the_order_of_the_rows_that_want_them(engine: LlamaEngine) -> None:
    (lane,) = engine._lanes
    guests = [Guest() for _ in range(5)]
    for guest in guests:
        lane.enter(guest)
    sizes = [3, 70, 1, 2, 40]
    rows = [
        Row(
            place,
            np.arange(20, 20 + size, dtype=np.int32) * (place + 1),
            0,
            outputs=int(place != 2),
        )
        for place, size in enumerate(sizes)
    ]
    assert lane.decode(rows, threads=2) == 0
    found = lane.logits(4)
    assert found.dtype == np.float32
    ends = np.cumsum(sizes) - 1
    for logits, place in zip(found, [0, 1, 3, 4], strict=True):
        address = llama_lib.load().llama_get_logits_ith(lane.context, int(ends[place]))
        assert logits.ctypes.data == ctypes.addressof(address.contents)
    for guest in guests:
        lane.leave(guest)


def test_llama_lane_gives_out_no_more_places_than_it_has(engine: LlamaEngine) -> None:
    (lane,) = engine._lanes
    guests = [Guest() for _ in range(9)]
    for guest in guests[:8]:
        lane.enter(guest)
    with pytest.raises(EngineError, match="all 8 places are taken"):
        lane.enter(guests[8])
    for guest in guests[:8]:
        lane.leave(guest)


def test_llama_lane_reports_a_batch_that_llama_cpp_refuses(lane: Lane) -> None:
    status = lane.decode([row(token=10**6)], threads=2)
    assert status not in (0, NO_CELLS)
    assert lane.decode([row()], threads=2) == 0


def test_llama_without_cells_the_youngest_gives_up_and_the_others_go_on(
    exact: LlamaEngine, alone: list[str]
) -> None:
    (lane,) = exact._lanes
    library, memory = llama_lib.load(), lane._memory
    exact.start(Start(0, tokens(exact, STORIES[0]), Sampling(max_tokens=ANSWER)))
    seen = exact.step(max_tokens=64, threads=2)
    exact.start(Start(1, tokens(exact, "Hi"), Sampling(max_tokens=ANSWER)))
    # Fill the youngest's stream behind the engine's back, but for what its prompt needs.
    position = 0
    while (
        status := lane.decode([Row(1, np.full(256, 20, np.int32), position, False)], threads=2)
    ) == 0:
        position += 256
    assert status == NO_CELLS
    exact._live[1].position = position
    while exact.busy():
        seen += exact.step(max_tokens=64, threads=2)
    assert [p.error for p in seen if p.sequence == 1] == [
        "llama.cpp cannot decode a batch of 2 sequences (status 1)"
    ]
    assert text_of([p for p in seen if p.sequence == 0]) == alone[0]
    assert library.llama_memory_seq_pos_max(memory, 0) == -1
    assert library.llama_memory_seq_pos_max(memory, 1) == -1


def test_llama_batch_that_fails_ends_its_sequences_and_no_others(
    exact: LlamaEngine, alone: list[str]
) -> None:
    (lane,) = exact._lanes
    library = llama_lib.load()
    abort = library.ggml_abort_callback(lambda _: True)
    for number in range(3):
        exact.start(Start(number, tokens(exact, STORIES[number]), Sampling(max_tokens=ANSWER)))
    library.llama_set_abort_callback(lane.context, abort, None)
    failed = exact.step(max_tokens=1, threads=2)
    library.llama_set_abort_callback(lane.context, library.ggml_abort_callback(), None)
    assert [(p.sequence, p.finish_reason) for p in failed] == [(0, None)]
    assert failed[0].error == "llama.cpp cannot decode a batch of 1 sequences (status 2)"
    progress = run(exact)
    assert [text_of(progress[n]) for n in (1, 2)] == alone[1:3]
