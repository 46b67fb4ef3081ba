"""A thread that writes: what is put is handed on in batches, off the path of requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sprat.errors import describe

log = logging.getLogger(__name__)

T = TypeVar("T")


class BatchWriter(Generic[T]):
    """Hands entries to a function on a thread of its own, in the order they were put.

    The first entry of a batch waits ``gather_s`` for others, so that many share one commit.

    Parameters
    ----------
    name : str
        Of the thread.
    write : callable
        Takes the entries of a batch; without any, every ``idle_s`` in which nothing was put. An
        exception of it is logged, and the next batch is taken on.
    capacity : int
        Largest sum of the sizes of entries that wait or are being written. An entry that is larger
        by itself is taken when there is no other.
    gather_s, idle_s : float
        Seconds.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        *,
        capacity: int,
        gather_s: float,
        idle_s: float,
    ) -> None:
        self._write = write
        self._capacity = capacity
        self._gather_s = gather_s
        self._idle_s = idle_s
        self._entries: list[T] = []
        self._size = 0
        self._is_urgent = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"sprat-{name}", daemon=True)
        self._thread.start()

    def put(self, entry: T, size: int, *, urgent: bool = False) -> bool:
        """Have an entry written; False when there is no room, or this is closed. Never waits.

        Parameters
        ----------
        size : int
            In the unit of ``capacity``, from 1.
        urgent : bool
            Somebody waits: write it at once, with all that was put before.
        """
        with self._changed:
            if self._is_closed or (self._size and self._size + size > self._capacity):
                return False
            is_first = not self._entries
            self._entries.append(entry)
            self._size += size
            self._is_urgent |= urgent
            if is_first or urgent:
                self._changed.notify()
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._entries or self._is_closed, self._idle_s)
                if self._is_closed and not self._entries:
                    return
                if self._entries:
                    self._changed.wait_for(
                        lambda: self._is_urgent or self._is_closed, self._gather_s
                    )
                batch, self._entries = self._entries, []
                size, self._is_urgent = self._size, False
            try:
                self._write(batch)
            except Exception as error:
                log.error("%s: a batch is lost: %s", self._thread.name, describe(error))
            with self._changed:
                self._size -= size

    def close(self) -> None:
        """Write what waits, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
