"""The thread that writes: in order, in batches, bounded, and never in the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from doubles import WAIT_S, no_leaked_threads, until

from sprat.scheduler import BatchWriter


class Sink:
    """Takes batches; can be held up, and can fail."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def write(self, batch: list[Any]) -> None:
        self.batches.append(batch)
        assert self.gate.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure

    @property
    def entries(self) -> list[Any]:
        return [entry for batch in self.batches for entry in batch]


@contextmanager
def writing(sink: Sink, **options: Any) -> Iterator[BatchWriter[Any]]:
    settings = {"capacity": 100, "gather_s": WAIT_S, "idle_s": 100 * WAIT_S, **options}
    with no_leaked_threads():
        writer = BatchWriter[Any]("test", sink.write, **settings)
        try:
            yield writer
        finally:
            sink.gate.set()
            writer.close()


def test_writer_gathers_and_close_writes_what_waits() -> None:
    sink = Sink()
    with writing(sink) as writer:
        assert all(writer.put(number, 1) for number in range(100))
    assert sink.batches == [list(range(100))]


def test_writer_writes_by_itself_after_a_while() -> None:
    sink = Sink()
    with writing(sink, gather_s=0.01) as writer:
        writer.put("a", 1)
        until(lambda: sink.entries == ["a"])
        writer.put("b", 1)
        until(lambda: sink.entries == ["a", "b"])


def test_writer_urgent_entry_takes_along_what_came_before() -> None:
    sink = Sink()
    with writing(sink) as writer:
        writer.put("a", 1)
        writer.put("b", 1, urgent=True)
        until(lambda: sink.batches == [["a", "b"]])


def test_writer_refuses_what_does_not_fit_and_takes_on_again() -> None:
    sink = Sink()
    sink.gate.clear()
    with writing(sink, gather_s=0.0) as writer:
        assert writer.put("a", 60)
        until(lambda: sink.batches)
        # What is being written takes room too.
        assert writer.put("b", 40)
        assert not writer.put("c", 1)
        sink.gate.set()
        until(lambda: writer.put("d", 100))
    assert sink.entries == ["a", "b", "d"]


def test_writer_takes_one_entry_larger_than_its_capacity() -> None:
    sink = Sink()
    with writing(sink) as writer:
        assert writer.put("large", 1000)
        assert not writer.put("small", 1)
    assert sink.entries == ["large"]


def test_writer_calls_without_entries_while_idle() -> None:
    sink = Sink()
    with writing(sink, idle_s=0.01):
        until(lambda: len(sink.batches) > 2)
    assert sink.entries == []


def test_writer_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    sink.failure = RuntimeError("a secret text")
    with writing(sink, gather_s=0.0) as writer, caplog.at_level(logging.ERROR, "sprat"):
        writer.put("a", 1)
        until(lambda: caplog.records)
        sink.failure = None
        writer.put("b", 1)
        until(lambda: sink.entries == ["a", "b"])
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_writer_is_put_to_from_many_threads() -> None:
    sink = Sink()
    with writing(sink, capacity=10_000, gather_s=0.0) as writer:

        def put(start: int) -> None:
            for number in range(start, start + 500):
                assert writer.put(number, 1)

        threads = [threading.Thread(target=put, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert sorted(sink.entries) == [1000 * n + i for n in range(4) for i in range(500)]
    for n in range(4):
        own = [entry for entry in sink.entries if entry // 1000 == n]
        assert own == sorted(own)


def test_writer_closed_takes_nothing() -> None:
    sink = Sink()
    with writing(sink) as writer:
        writer.close()
        assert not writer.put("a", 1)
    assert sink.batches == []
