"""The decision log of a running service: what was answered, written off the path of requests.

A call hands its texts and answers to a queue and goes on; a thread hashes, writes and commits them
within 200 ms. When the queue is full or the file cannot be written, rows are lost: they are
counted, the log says so at most once a minute, and writing goes on by itself as soon as it can.

Texts are kept as 16 bytes of BLAKE2b (RFC 7693) under a key of 32 random bytes beside the file:
equal texts can be found, and a text that somebody has can be looked up, by who has the key only.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import Any

from sprat.config import LogConfig
from sprat.decision_file import DecisionFile, is_damage
from sprat.decision_rows import Result, count, feedback_labels, rows_of, storable, tier_name
from sprat.decisions import Decision, Recalled, read_decision, recall
from sprat.errors import (
    ConfigError,
    DataError,
    InvalidInput,
    NotFound,
    NotReady,
    QueueFull,
    SpratError,
    describe,
)
from sprat.scheduler import BatchWriter, Mailbox
from sprat.values import LogUse, TaskInfo, TierAnswer

log = logging.getLogger(__name__)

QUEUE_BYTES = 64_000_000
"""Of texts and answers that wait to be written, about."""

ROW_BYTES, SCORE_BYTES = 1000, 80
"""What an answer takes in the queue, about: beside its text, and for each label of its task."""

QUEUE_FULL = "queue full"

GATHER_S = 0.1
"""How long a row waits for others: half of the 200 ms within which it is committed."""

IDLE_S = 60.0
"""Rows grow old, and losses are reported, also where nothing is asked."""

REPORT_S = 60.0
"""Losses are reported once in so many seconds at most."""

RECALLED = 10_000
"""Decisions that a start reads of those that came last, and as many with feedback, and with a
shadow: for the drift watch, which would begin anew otherwise."""

LONGEST_ID, LARGEST_ITEM = 64, 2**31 - 1
"""Nothing beyond these was ever given to anybody."""

_PASSING = ("database or disk is full", "disk I/O error", "database is locked")

_INSERT = "INSERT INTO decisions VALUES (NULL" + ", ?" * 16 + ")"
_INSERT_SHADOW = (
    "INSERT OR REPLACE INTO shadows "
    "SELECT id, ?, ?, ?, ?, ? FROM decisions WHERE request_id = ? AND item = ?"
)
_INSERT_FEEDBACK = "INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers of one call."""

    request_id: str
    time: float
    task: str
    texts: tuple[str, ...]
    result: Result


@dataclass(frozen=True, slots=True)
class _Shadow:
    """What the last tier of a cascade said of a text that another one answered."""

    request_id: str
    item: int
    time: float
    task: str
    said: TierAnswer


@dataclass(frozen=True, slots=True)
class _Feedback:
    """What is right for a text, and who is told when that is written."""

    request_id: str
    item: int
    time: float
    label: str
    done: Callable[[SpratError | None], None]


@dataclass(frozen=True, slots=True)
class _Check:
    """Look for damage in all of the file; the first entry, so that the start does not wait."""


_Entry = _Answers | _Shadow | _Feedback | _Check


@dataclass(slots=True)
class _Done:
    """What became of a batch: the rows of each task, of which more is known now, and feedback."""

    written: Counter[str] = field(default_factory=Counter)
    known: list[Decision] = field(default_factory=list)
    outcomes: list[tuple[_Feedback, SpratError | None]] = field(default_factory=list)


class DecisionLog:
    """Writes what tasks answer, and the feedback on it. Used from one event loop.

    Parameters
    ----------
    config : LogConfig
        With a path.
    tasks : iterable of TaskInfo
        All that are served.
    mailbox : Mailbox
        Of the event loop.
    learn : callable, optional
        Told, on the event loop, of each decision that feedback or a shadow came for, with all that
        is known of it; before who gave the feedback.

    Raises
    ------
    ConfigError
        The file cannot be made, or is something else. A full disk is no reason: rows are lost then.
    """

    def __init__(
        self,
        config: LogConfig,
        tasks: Iterable[TaskInfo],
        mailbox: Mailbox,
        learn: Callable[[Decision], None] | None = None,
    ) -> None:
        self._learn = learn
        self._tasks = {task.name: task for task in tasks}
        self._store_text = config.store_text
        self._mailbox = mailbox
        # Counted by the event loop, and by the writer: neither needs a lock.
        self._refused, self._written, self._failed = (
            dict.fromkeys(self._tasks, 0) for _ in range(3)
        )
        self._reason = QUEUE_FULL
        self._recorded = self._reported = 0
        self._reported_at = -REPORT_S
        self._file = DecisionFile(
            Path(config.path),
            max_rows=config.max_rows,
            max_days=config.max_days,
            max_mb=config.max_mb,
        )
        try:
            self._file.open()
        except (OSError, sqlite3.Error, DataError) as error:
            if not _may_pass(error):
                raise ConfigError("log.path", _of_file(self._file.path, error)) from None
            log.warning("decision log %s: %s; rows are lost until that is over", config.path, error)
        self._writer = BatchWriter[_Entry](
            "log", self._write, capacity=QUEUE_BYTES, gather_s=GATHER_S, idle_s=IDLE_S
        )
        self._writer.put(_Check(), 1, urgent=True)

    def recall(self) -> Recalled | None:
        """What the file has from before; None where it cannot be read, which the log says."""
        try:
            return recall(self._file.path, most=RECALLED)
        except Exception as error:
            log.warning("decision log: nothing is remembered: %s", _reason(error))
            return None

    def put(self, task: str, texts: Sequence[str], result: Result) -> str:
        """Have the answers of a call written; returns the id that feedback names it by."""
        request_id = secrets.token_hex(8)
        entry = _Answers(request_id, time.time(), task, tuple(texts), result)
        if not self._writer.put(entry, queue_size(texts, self._tasks[task])):
            self._refused[task] += count(result)
            self._reason = QUEUE_FULL
        return request_id

    def put_shadow(self, task: str, request_id: str, item: int, said: TierAnswer) -> None:
        """Have written what the last tier of a cascade said of a text."""
        entry = _Shadow(request_id, item, time.time(), task, said)
        self._writer.put(entry, ROW_BYTES)

    async def feedback(self, request_id: str, label: str, item: int) -> None:
        """Say what is right for a text; the last word counts. Returns when it is committed.

        Parameters
        ----------
        label : str
            A label of the task; of a moderate task a category or ``allow``, or of all of the answer
            ``right`` or ``wrong``; of a decide, extract or transform task one of these two.
        item : int
            Which text of the call, from 0.

        Raises
        ------
        NotFound
            There is no such row (any more), or its task is not served any more.
        InvalidInput
            The label is none of the task's.
        QueueFull, NotReady
            It cannot be taken on, or not be written now.
        """
        if not request_id:
            raise InvalidInput("request_id: expected that of a reply, got none", field="request_id")
        if item < 0:
            raise InvalidInput(f"item: expected 0 or more, got {item}", field="item")
        if len(request_id) > LONGEST_ID or item > LARGEST_ITEM:
            raise _unknown(request_id, item)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: SpratError | None) -> None:
            self._mailbox.post(_settle, future, error)

        entry = _Feedback(request_id, item, time.time(), label, done)
        if not self._writer.put(entry, ROW_BYTES + len(label), urgent=True):
            raise QueueFull("the decision log has more to write than it takes on")
        await future

    def use(self, task: str) -> LogUse:
        """How many rows of a task were written, and lost, since the start."""
        return LogUse(self._written[task], self._refused[task] + self._failed[task])

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._writer.close()
        self._report()
        self._file.close()

    # -- on the writer's thread ------------------------------------------------------------------

    def _write(self, batch: list[_Entry]) -> None:
        if batch and isinstance(batch[0], _Check):
            self._try(self._file.check)
        if not batch or self._commit(batch):
            self._try(self._file.trim)
        if self._lost() > self._reported and time.monotonic() >= self._reported_at + REPORT_S:
            self._report()

    def _try(self, upkeep: Callable[[], None]) -> None:
        """Do what is not about rows that wait, and may be done another time."""
        try:
            try:
                upkeep()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._file.set_aside(error)
        except Exception as error:
            log.debug("decision log: %s failed: %s", upkeep.__name__, _reason(error))

    def _commit(self, batch: list[_Entry]) -> bool:
        """Write a batch, whole or not at all; who waits for feedback is told. Whether it is."""
        try:
            try:
                done = self._transact(batch)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._file.set_aside(error)
                done = self._transact(batch)
        except Exception as error:
            self._reason = _reason(error)
            for entry in batch:
                if isinstance(entry, _Answers):
                    self._failed[entry.task] += count(entry.result)
                elif isinstance(entry, _Feedback):
                    entry.done(NotReady(f"the decision log cannot be written: {self._reason}"))
            return False
        for task, rows in done.written.items():
            self._written[task] += rows
        if self._learn is not None:
            for decision in done.known:
                self._mailbox.post(self._learn, decision)
        for feedback, outcome in done.outcomes:
            feedback.done(outcome)
        return True

    def _transact(self, batch: list[_Entry]) -> _Done:
        """Write a batch."""
        done = _Done()
        lost = self._lost()
        with self._file.transaction() as connection:
            if lost > self._recorded:
                losses = (time.time(), lost - self._recorded, self._reason)
                connection.execute("INSERT INTO losses VALUES (?, ?, ?)", losses)
            for entry in batch:
                match entry:
                    case _Answers():
                        connection.executemany(_INSERT, self._rows(entry))
                        done.written[entry.task] += count(entry.result)
                    case _Shadow(said=said):
                        name = tier_name(self._tasks[entry.task], said.tier)
                        values = (said.tier, name, storable(said.label), said.confidence)
                        where = (entry.request_id, entry.item)
                        connection.execute(_INSERT_SHADOW, (*values, entry.time, *where))
                        if (decision := read_decision(connection, *where)) is not None:
                            done.known.append(decision)
                    case _Check():
                        pass
                    case _Feedback():
                        done.outcomes.append((entry, self._judge(connection, entry, done)))
        self._recorded = lost
        return done

    def _judge(
        self, connection: sqlite3.Connection, entry: _Feedback, done: _Done
    ) -> SpratError | None:
        """Write feedback, or say why not."""
        key = (storable(entry.request_id), entry.item)
        if (decision := read_decision(connection, *key)) is None:
            return _unknown(entry.request_id, entry.item)
        if (task := self._tasks.get(decision.task)) is None:
            return NotFound("task", decision.task, tuple(self._tasks))
        allowed = feedback_labels(task)
        if entry.label not in allowed:
            offered = ", ".join(allowed[:10]) + (", ..." if len(allowed) > 10 else "")
            return InvalidInput(
                f"label: expected one of {len(allowed)} of task {task.name}: {offered}",
                field="label",
            )
        label = storable(entry.label)
        connection.execute(_INSERT_FEEDBACK, (*key, label, entry.time))
        done.known.append(replace(decision, feedback=label))
        return None

    def _rows(self, entry: _Answers) -> Iterator[tuple[Any, ...]]:
        return rows_of(
            self._tasks[entry.task],
            entry.texts,
            entry.result,
            request_id=entry.request_id,
            time=entry.time,
            key=self._file.key,
            store_text=self._store_text,
        )

    def _lost(self) -> int:
        return sum(self._refused.values()) + sum(self._failed.values())

    def _report(self) -> None:
        if (lost := self._lost()) > self._reported:
            log.warning("decision log: %d rows are lost (%s)", lost - self._reported, self._reason)
            self._reported, self._reported_at = lost, time.monotonic()


def queue_size(texts: Sequence[str], task: TaskInfo) -> int:
    """Bytes that texts and answers take in the queue, about; answers may repeat their texts."""
    each = ROW_BYTES + SCORE_BYTES * len(task.labels)
    return each * len(texts) + 2 * sum(map(len, texts))


def _unknown(request_id: str, item: int) -> NotFound:
    return NotFound("decision", f"{request_id[:LONGEST_ID]}[{item}]")


def _settle(future: asyncio.Future[None], error: SpratError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _may_pass(error: Exception) -> bool:
    """Whether the file may be writable later, without anybody changing the configuration."""
    if isinstance(error, OSError):
        return error.errno in (ENOSPC, EDQUOT, EIO)
    return isinstance(error, sqlite3.OperationalError) and str(error) in _PASSING


def _of_file(path: Path, error: Exception) -> str:
    """Why the log cannot be opened: names the file."""
    if isinstance(error, DataError):
        return error.message
    where = error.filename if isinstance(error, OSError) and error.filename else path
    return f"{where} cannot be used: {_reason(error)}"


def _reason(error: Exception) -> str:
    """What SQLite or the system says of the file; else only where the error came from."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, (sqlite3.Error, SpratError)):
        return str(error)
    return describe(error)
