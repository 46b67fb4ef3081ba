"""Shadow escalation: what the last tier of a cascade would have said, asked when there is time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sprat.decision_log import DecisionLog
from sprat.decision_rows import Result
from sprat.errors import SpratError, describe
from sprat.values import Decision, Routing, TierAnswer

log = logging.getLogger(__name__)

MOST_WAITING = 64
"""Texts that wait for their turn; more are not asked about."""

MOST_CHARACTERS = 1_000_000
"""Of all texts that wait."""

PAUSE_S = 0.01
"""Between looks whether the machine has time. The reply is on its way when the first is taken."""

PATIENCE_S = 2.0
"""How long a text waits for that, once its turn has come."""

ANSWER_S = 30.0
"""How long the last tier may take."""


Ask = Callable[[str, float], Coroutine[Any, Any, TierAnswer | None]]
"""Asks the last tier of a cascade about a text, for an answer before a `time.monotonic` value."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A text that an earlier tier answered."""

    task: str
    request_id: str
    item: int
    text: str
    ask: Ask


class Shadows:
    """Asks the last tier about a share of what earlier tiers answered, and logs what it says.

    After the reply, one text at a time, and only while the machine has time to spare: requests do
    not wait for it, and do not fail of it. What finds no time, or no answer, is left out. Used on
    one event loop.

    Parameters
    ----------
    share : float
        Of the texts, in (0, 1]; drawn for each anew.
    has_spare : callable
        Whether the machine has time now.
    decisions : DecisionLog
        Where the answers go.
    """

    def __init__(
        self,
        share: float,
        has_spare: Callable[[], bool],
        decisions: DecisionLog,
    ) -> None:
        self._share = share
        self._has_spare = has_spare
        self._decisions = decisions
        self._waiting: deque[_Sample] = deque()
        self._characters = 0
        self._work: asyncio.Task[None] | None = None

    def offer(
        self,
        task: str,
        request_id: str,
        texts: Sequence[str],
        result: Result,
        *,
        last: int,
        ask: Ask,
    ) -> None:
        """Draw from the texts of a call that a tier before the last answered by its threshold."""
        for index, item in enumerate(result.items):
            said = item.classification if isinstance(item, Routing) else item
            if said is None or isinstance(said, Decision):  # Its model is no tier.
                continue
            if said.tier == last or said.abstained or said.degraded:
                continue
            if random.random() >= self._share or len(self._waiting) == MOST_WAITING:
                continue
            if self._characters + len(texts[index]) > MOST_CHARACTERS:
                continue
            self._characters += len(texts[index])
            self._waiting.append(_Sample(task, request_id, index, texts[index], ask))
        if self._waiting and (self._work is None or self._work.done()):
            self._work = asyncio.ensure_future(self._ask_all())

    async def _ask_all(self) -> None:
        while self._waiting:
            if await self._turn():
                await self._ask(self._waiting[0])
            # Only now: what is being asked about counts as waiting.
            self._characters -= len(self._waiting.popleft().text)

    async def _turn(self) -> bool:
        """Wait for a moment in which the machine has time; False: there was none."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            await asyncio.sleep(PAUSE_S)
            if self._has_spare():
                return True
        return False

    async def _ask(self, sample: _Sample) -> None:
        try:
            said = await sample.ask(sample.text, time.monotonic() + ANSWER_S)
        except SpratError as error:
            log.debug("task %s: no shadow: %s", sample.task, error.reason)
        except Exception as error:
            log.error("task %s: no shadow: %s", sample.task, describe(error))
        else:
            if said is not None:
                self._decisions.put_shadow(sample.task, sample.request_id, sample.item, said)

    async def close(self) -> None:
        """Give up what waits and what is being asked."""
        self._waiting.clear()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
