from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llamas import CONTEXT, long_prompt, run, tokens

from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_lane import Lane, Row
from sprat.errors import (
    CorruptFile,
    EngineError,
)
from sprat.values import Sampling


def test_llama_full_engine_refuses_and_has_room_again_after_a_stop(engine: LlamaEngine) -> None:
    for number in range(8):
        assert engine.has_room(CONTEXT)
        engine.start(Start(number, tokens(engine, "Hi"), Sampling()))
    assert not engine.has_room(1)
    with pytest.raises(EngineError, match="no room"):
        engine.start(Start(8, tokens(engine, "Hi"), Sampling()))
    engine.stop(4)
    engine.stop(4)
    engine.stop(99)
    assert engine.has_room(CONTEXT)


def test_llama_never_has_room_for_more_than_the_context(engine: LlamaEngine) -> None:
    assert not engine.has_room(CONTEXT + 1)


def test_llama_has_room_again_after_an_answer(engine: LlamaEngine) -> None:
    for _ in range(3):
        for number in range(8):
            engine.start(Start(number, tokens(engine, "Hi"), Sampling(max_tokens=1)))
        run(engine)
    assert engine.has_room(CONTEXT)


def test_llama_keeps_one_place_for_a_long_sequence(q8: Path) -> None:
    engine = LlamaEngine(q8, context_length=512, sequence_limit=3, cells=1280, threads=2)
    short, long = tokens(engine, "Hi"), long_prompt(engine, 300)
    assert engine.has_room(512)
    engine.start(Start(0, long, Sampling(max_tokens=4)))
    assert not engine.has_room(257)
    assert engine.has_room(256)
    for number in (1, 2):
        engine.start(Start(number, short, Sampling(max_tokens=4)))
    assert not engine.has_room(1)
    progress = run(engine, max_tokens=512)
    assert {n: p[-1].finish_reason for n, p in progress.items()} == dict.fromkeys(
        range(3), "length"
    )
    assert engine.has_room(512)
    engine.close()


def test_llama_decodes_as_many_short_sequences_as_it_takes_in_one_pass(
    q8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    decode = Lane.decode

    def counted(lane: Lane, rows: Sequence[Row], *, threads: int) -> int:
        passes.append(len(rows))
        return decode(lane, rows, threads=threads)

    engine = LlamaEngine(q8, context_length=512, sequence_limit=3, cells=1280, threads=2)
    for number in range(3):
        engine.start(Start(number, tokens(engine, "Hi"), Sampling(max_tokens=4)))
    assert not engine.has_room(1)
    engine.step(max_tokens=512, threads=2)
    monkeypatch.setattr(Lane, "decode", counted)
    engine.step(max_tokens=512, threads=2)
    assert passes == [3]
    engine.close()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"sequence_limit": 0}, "sequence_limit: expected 1 to 256, got 0"),
        ({"context_length": 1}, "context_length: expected at least 2, got 1"),
        ({"context_length": 256, "threads": 0}, "threads: expected 1 to 512, got 0"),
        ({"sequence_limit": 257}, "sequence_limit: expected 1 to 256, got 257"),
        (
            {"context_length": 1024, "sequence_limit": 3, "cells": 1700},
            "cells: expected at least 1792",
        ),
    ],
)
def test_llama_refuses_numbers_out_of_range(
    q8: Path, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        LlamaEngine(q8, **{"threads": 1, **numbers})


def test_llama_context_is_never_longer_than_trained(q8: Path) -> None:
    engine = LlamaEngine(q8, context_length=10**6, sequence_limit=1, threads=1)
    assert engine.context_length == 8192
    engine.close()


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda data: data[: len(data) // 2], "not within the file bounds"),
        (lambda data: data[:1000], "string length"),
        (lambda data: b"", "failed to read magic"),
        (lambda data: b"PK" + data[2:5000], "invalid magic"),
    ],
    ids=["half", "head", "empty", "junk"],
)
def test_llama_cut_file_is_a_clear_error(
    q8: Path, tmp_path: Path, keep: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(keep(q8.read_bytes()))
    with pytest.raises(CorruptFile, match=reason) as caught:
        LlamaEngine(path, threads=1)
    assert caught.value.path == str(path)
    assert capfd.readouterr() == ("", "")
    path.unlink()


def test_llama_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="missing"):
        LlamaEngine(tmp_path / "none.gguf", threads=1)


def test_llama_loads_from_a_path_that_is_not_ascii(q8: Path, tmp_path: Path) -> None:
    path = tmp_path / "Fisch 🐟.gguf"
    path.symlink_to(q8)
    LlamaEngine(path, context_length=256, sequence_limit=1, threads=1).close()


def test_llama_close_drops_what_is_live_and_may_be_called_twice(q8: Path) -> None:
    engine = LlamaEngine(q8, context_length=256, sequence_limit=2, threads=1)
    engine.start(Start(0, tokens(engine, "Hi"), Sampling()))
    engine.close()
    engine.close()
    assert not engine.busy()
    assert not engine.has_room(1)
