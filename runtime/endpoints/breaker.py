"""A circuit breaker: a service that fails is left alone for a while, then asked once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from sprat.errors import EngineError
from sprat.values import BreakerState

log = logging.getLogger(__name__)

FAILURES = 5
"""So many in a row open it."""

WINDOW = 20
"""Of so many latest outcomes, half being failures open it too."""

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
"""The pause doubles with each probe that fails."""


class Breaker:
    """Whether to ask a service, by how it did lately (Nygard, Release It!, 2007).

    ``closed``: it is asked. ``open``: it is not, until a pause is over. ``half_open``: the pause is
    over, and a single request is under way to see; if that succeeds the breaker closes, else
    it opens for twice as long.

    What was begun before a change of state has no say after it: a slow failure of old must not
    pass for the probe's.

    Parameters
    ----------
    name : str
        Of the service, for errors.
    clock : callable
        Seconds that never go back.

    Examples
    --------
    >>> breaker = Breaker("big", clock=lambda: 0.0)
    >>> for _ in range(FAILURES):
    ...     breaker.fail(breaker.begin())
    >>> breaker.state
    'open'
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._state: BreakerState = "closed"
        self._epoch = 0
        self._in_a_row = 0
        self._latest: deque[bool] = deque(maxlen=WINDOW)
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0

    @property
    def state(self) -> BreakerState:
        """``open`` also once the pause is over, as long as nobody asks."""
        return self._state

    @property
    def retry_in_s(self) -> float:
        """Seconds until it may be asked; 0 where it may be now."""
        return max(0.0, self._until - self._clock()) if self._state == "open" else 0.0

    def begin(self) -> int:
        """Ask to ask; the number that comes back is for `succeed`, `fail` or `abandon`.

        Raises
        ------
        EngineError
            It is open, or another request is the probe.
        """
        if self._state == "open" and self.retry_in_s == 0:
            self._move("half_open")
            return self._epoch
        if self._state != "closed":
            wait = f"for {self.retry_in_s:.0f} s more" if self._state == "open" else "until it did"
            raise EngineError(f"endpoint {self._name} failed lately, and is not asked {wait}")
        return self._epoch

    def succeed(self, begun: int) -> None:
        """A request was answered."""
        if begun != self._epoch:
            return
        self._in_a_row = 0
        self._latest.append(True)
        if self._state == "half_open":
            self._pause_s = FIRST_PAUSE_S
            self._latest.clear()
            self._move("closed")
            log.info("endpoint %s answers again", self._name)

    def fail(self, begun: int) -> None:
        """A request failed by the service's fault."""
        if begun != self._epoch:
            return
        self._in_a_row += 1
        self._latest.append(False)
        if self._state == "half_open":
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
            self._open()
        elif self._in_a_row >= FAILURES or (
            len(self._latest) == WINDOW and 2 * self._latest.count(False) >= WINDOW
        ):
            self._open()

    def abandon(self, begun: int) -> None:
        """A request was given up, and says nothing of the service; the next may be the probe."""
        if begun == self._epoch and self._state == "half_open":
            self._until = self._clock()
            self._move("open")

    def _open(self) -> None:
        self._in_a_row = 0
        self._latest.clear()
        self._until = self._clock() + self._pause_s
        self._move("open")
        log.warning("endpoint %s fails; it is left alone for %g s", self._name, self._pause_s)

    def _move(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
