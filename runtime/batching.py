"""Which rows go into the next batch: a fair queue of encoder work, cut by a token budget.

Pure data structures without threads or clocks; `sprat.scheduler` locks and drives them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sprat.kernels import length_order
from sprat.values import FloatArray, IntArray

TOKEN_BUDGET = 256
"""Most tokens of a batch. A forward pass gains nothing by being larger, and everything that waits
for the worker waits longer."""

MIN_TOKENS = 32
"""Work is not split over workers into batches smaller than this."""


@dataclass(eq=False, slots=True)
class EncodeWork:
    """The rows of one request and the room for their vectors or states.

    Attributes
    ----------
    rows : sequence of int32[T_i]
        Token ids, one array a text.
    vectors : float32[N, D] or list of float32[T_i, H]
        Filled row by row as batches finish: an array with sentence vectors, a list of N with the
        states of each row's tokens.
    deadline : float
        `time.monotonic` value after which nobody wants the answer; infinity without one.
    on_done : callable
        Called once, on a scheduler thread, when every row is filled or ``error`` is set.
    cpu_ns : list of int
        CPU time of each row in nanoseconds, see `fill`.
    """

    rows: Sequence[IntArray]
    vectors: FloatArray | list[FloatArray]
    deadline: float
    on_done: Callable[[EncodeWork], None]
    submitted_ns: int = 0
    queue_ns: int = 0
    infer_ns: int = 0
    cancelled: bool = False
    ended: bool = False
    error: BaseException | None = None
    cpu_ns: list[int] = field(init=False)
    unfinished: int = field(init=False)
    tokens_left: int = field(init=False)
    _order: list[int] = field(init=False)
    _cursor: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.rows]
        self.cpu_ns = [0] * len(lengths)
        self.unfinished = len(lengths)
        self.tokens_left = sum(lengths)
        # Longest first: rows of like length share a batch, and the last batches are the short ones.
        self._order = length_order(np.array(lengths, np.int32))[0].tolist()

    @property
    def wants_states(self) -> bool:
        """Whether it asks for the states of tokens rather than for sentence vectors."""
        return isinstance(self.vectors, list)

    def fill(
        self, indices: Sequence[int], made: FloatArray | Sequence[FloatArray], token_ns: float
    ) -> None:
        """Put what a batch made of some rows into its place.

        Parameters
        ----------
        token_ns : float
            CPU nanoseconds of a token of that batch.
        """
        for index in indices:
            self.cpu_ns[index] = int(len(self.rows[index]) * token_ns)
        if isinstance(self.vectors, list):
            for index, states in zip(indices, made, strict=True):
                self.vectors[index] = states
        else:
            self.vectors[indices] = made

    @property
    def is_dead(self) -> bool:
        """Whether its remaining rows are not worth computing."""
        return self.cancelled or self.error is not None

    def take(self, tokens: int) -> list[int]:
        """The next rows, at least one, of about ``tokens`` tokens together."""
        taken: list[int] = []
        while self._cursor < len(self._order):
            row = self._order[self._cursor]
            length = len(self.rows[row])
            if taken and length > tokens:
                break
            taken.append(row)
            tokens -= length
            self.tokens_left -= length
            self._cursor += 1
        return taken

    @property
    def next_length(self) -> int:
        """Tokens of the row that `take` would take first."""
        return len(self.rows[self._order[self._cursor]])

    @property
    def rows_left(self) -> int:
        """Rows that no batch has taken."""
        return len(self._order) - self._cursor

    @property
    def is_taken(self) -> bool:
        """Whether every row is in a batch."""
        return self.rows_left == 0


Batch = list[tuple[EncodeWork, list[int]]]


class EncodeQueue:
    """Requests in turn: each batch takes from the oldest, and what is left of it goes to the end.

    Parameters
    ----------
    capacity : int
        Most tokens that may wait; more are refused at `has_room`.
    workers : int
        Batches that run side by side; a lone large request is spread over them.
    """

    def __init__(self, capacity: int, workers: int) -> None:
        self.capacity = capacity
        self.workers = workers
        self.tokens = 0
        self._works: deque[EncodeWork] = deque()

    def __len__(self) -> int:
        return len(self._works)

    @property
    def holds_one_row(self) -> bool:
        """Whether a single row waits."""
        return len(self._works) == 1 and self._works[0].rows_left == 1

    def has_room(self, tokens: int, *, reserved: int = 0) -> bool:
        """Whether work of ``tokens`` tokens may be added beside what waits and is reserved.

        Where nothing is, any work fits.
        """
        waiting = self.tokens + reserved
        return waiting == 0 or waiting + tokens <= self.capacity

    def add(self, work: EncodeWork) -> None:
        """Append work at the end."""
        self._works.append(work)
        self.tokens += work.tokens_left

    def drop_dead(self, now: float) -> list[EncodeWork]:
        """Remove cancelled, failed and expired work; return it."""
        dead: list[EncodeWork] = []
        alive: deque[EncodeWork] = deque()
        # Looked at once: another thread may cancel work at any time.
        for work in self._works:
            (dead if work.is_dead or work.deadline <= now else alive).append(work)
        self._works = alive
        self.tokens -= sum(w.tokens_left for w in dead)
        return dead

    def clear(self) -> list[EncodeWork]:
        """Remove all work; return it."""
        removed = list(self._works)
        self._works.clear()
        self.tokens = 0
        return removed

    def pop(self) -> Batch:
        """The next batch; empty when nothing waits."""
        share = -(-self.tokens // self.workers)
        budget = min(TOKEN_BUDGET, max(MIN_TOKENS, share))
        batch: Batch = []
        while self._works and budget > 0:
            work = self._works[0]
            if batch and (
                work.next_length > budget or work.wants_states != batch[0][0].wants_states
            ):
                break
            before = work.tokens_left
            rows = work.take(budget)
            used = before - work.tokens_left
            budget -= used
            self.tokens -= used
            batch.append((work, rows))
            self._works.popleft()
            if not work.is_taken:
                self._works.append(work)
                break
        return batch
