"""Engines that tests can hold up, break and look into; deterministic, and as strict as real ones.

Real models are used where answers matter; these stand where *when* and *whether* is the question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from sprat.engine.base import Progress, Start
from sprat.values import FinishReason, FloatArray, IntArray, Message

WAIT_S = 10.0
"""Bound of every wait in a test; only failures take this long."""


def until(condition: Callable[[], object], what: str = "the condition never came true") -> None:
    """Wait, bounded, until a condition holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)


@contextmanager
def no_leaked_threads() -> Iterator[None]:
    """Fail when threads that were started inside are alive afterwards."""
    before = set(threading.enumerate())
    yield
    until(
        lambda: not [t for t in threading.enumerate() if t not in before and t.name[:5] == "sprat"],
        "threads are left behind",
    )


def vector(row: IntArray | Sequence[int], dimension: int = 4) -> FloatArray:
    """What the `Encoder` below answers for one row of tokens: a unit vector of its own."""
    made = np.random.default_rng(np.asarray(row).tolist()).standard_normal(dimension)
    return (made / np.linalg.norm(made)).astype(np.float32)


class Encoder:
    """An `EncoderEngine` with a gate in front of the forward pass.

    Attributes
    ----------
    gate : threading.Event
        Passes wait for it; open at first.
    calls : list of (int, list of list of int)
        Threads and rows of each pass, in the order of their start.
    failure : callable or None
        Called with the rows of a pass; what it returns is raised.
    """

    def __init__(self, *, dimension: int = 4, max_tokens: int = 512) -> None:
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[int, list[list[int]]]] = []
        self.failure: Callable[[list[list[int]]], Exception | None] | None = None
        self.closed = False
        self.most_threads = 0
        self._running = 0
        self._lock = threading.Lock()

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        ids = [row.tolist() for row in rows]
        assert ids
        assert all(1 <= len(row) <= self.max_tokens for row in ids)
        assert not self.closed, "a closed engine was used"
        with self._lock:
            self.calls.append((threads, ids))
            self._running += threads
            self.most_threads = max(self.most_threads, self._running)
        try:
            assert self.gate.wait(WAIT_S), "the gate stayed shut"
            error = self.failure and self.failure(ids)
            if error:
                raise error
            return np.stack([vector(row, self.dimension) for row in ids])
        finally:
            with self._lock:
                self._running -= threads

    @property
    def rows(self) -> list[list[int]]:
        """All rows of all passes."""
        return [row for _, rows in self.calls for row in rows]

    def close(self) -> None:
        assert not self._running, "closed while a pass was running"
        assert not self.closed, "closed twice"
        self.closed = True


@dataclass
class Sequence_:
    """A live sequence of the `Generator` below."""

    start: Start
    done: int = 0


@dataclass
class Generator:
    """A `GenerativeEngine` that answers with the prompt's own code points, again and again.

    Attributes
    ----------
    gate : threading.Event
        Steps wait for it; open at first.
    cells : int
        Tokens of all live sequences together.
    started, stopped : list of int
        Sequences, in order.
    on_start, on_step : callable or None
        Called before a start or a step; may raise.
    odd : dict of int to Progress
        What the next step reports for a sequence instead.
    """

    context_length: int = 64
    sequence_limit: int = 8
    cells: int = 256
    gate: threading.Event = field(default_factory=threading.Event)
    started: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    slices: list[tuple[int, int]] = field(default_factory=list)
    live: dict[int, Sequence_] = field(default_factory=dict)
    on_start: Callable[[Start], None] | None = None
    on_step: Callable[[], None] | None = None
    odd: dict[int, Progress] = field(default_factory=dict)
    closed: bool = False
    owner: int | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        assert not parse_special, "input text is never read as special tokens"
        return np.array([0] * add_special + [ord(c) for c in text], np.int32)

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        return tuple(chr(i) for i in ids.tolist())

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        return self.tokenize(
            "".join(f"<{m.role}>{m.content}" for m in messages),
            add_special=True,
            parse_special=False,
        )

    def has_room(self, tokens: int) -> bool:
        self._check_owner()
        taken = sum(len(s.start.prompt) + s.start.sampling.max_tokens for s in self.live.values())
        return len(self.live) < self.sequence_limit and taken + tokens <= self.cells

    def start(self, start: Start) -> None:
        self._check_owner()
        assert start.sequence not in self.live
        assert 1 <= len(start.prompt) < self.context_length
        if self.on_start:
            self.on_start(start)
        self.started.append(start.sequence)
        self.live[start.sequence] = Sequence_(start)

    def stop(self, sequence: int) -> None:
        self._check_owner()
        if self.live.pop(sequence, None):
            self.stopped.append(sequence)

    def busy(self) -> bool:
        return bool(self.live)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        self._check_owner()
        assert self.gate.wait(WAIT_S), "the gate stayed shut"
        self.slices.append((max_tokens, threads))
        if self.on_step:
            self.on_step()
        made = []
        for number, sequence in list(self.live.items()):
            if number in self.odd:
                del self.live[number]
                made.append(self.odd.pop(number))
                continue
            letters = [chr(i) for i in sequence.start.prompt.tolist() if i]
            text = letters[sequence.done % len(letters)]
            sequence.done += 1
            finish: FinishReason | None = None
            if text in sequence.start.sampling.stop:
                text, finish = "", "stop"
            elif sequence.done >= sequence.start.sampling.max_tokens:
                finish = "length"
            if finish:
                del self.live[number]
            made.append(Progress(number, text, 1, finish))
        return made

    def close(self) -> None:
        self._check_owner()
        assert not self.closed, "closed twice"
        self.closed = True

    def _check_owner(self) -> None:
        if self.owner is None:
            self.owner = threading.get_ident()
        assert self.owner == threading.get_ident(), "used by another thread than its owner"
