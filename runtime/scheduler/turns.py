"""Whose turn it is where an engine works under one adapter at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

TURN_NS = 500_000_000
"""How long work under the adapter in use may pass work under another one, from when that came:
switching for each request would leave every batch with a single one."""


class Work(Protocol):
    """What waits.

    Attributes
    ----------
    adapter : str
        What it has to run under.
    submitted_ns : int
        `time.perf_counter_ns` when it came.
    """

    @property
    def adapter(self) -> str:
        """See above."""
        ...

    submitted_ns: int


W = TypeVar("W", bound=Work)


def next_of(
    waiting: Iterable[W], adapter_in_use: str | None, has_room: Callable[[W], bool]
) -> W | None:
    """Choose what starts next: the first that waits, if there is room for it.

    When it waits for the end of what runs under another adapter, those behind it that run under
    that one pass, for `TURN_NS`.

    Parameters
    ----------
    waiting : iterable of Work
        In order of arrival.
    adapter_in_use : str or None
        Of all work that is live; None when nothing is.
    has_room : callable
        Whether the engine would take a piece of work now.
    """
    head = next(iter(waiting), None)
    if head is None or has_room(head):
        return head
    is_its_turn = time.perf_counter_ns() - head.submitted_ns > TURN_NS
    if adapter_in_use in (None, head.adapter) or is_its_turn:
        return None
    behind = (work for work in waiting if work.adapter == adapter_in_use)
    return next(filter(has_room, behind), None)
