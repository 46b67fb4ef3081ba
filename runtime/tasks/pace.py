"""How long a tier takes for a call: a running estimate from calls that it has answered."""

from __future__ import annotations

WEIGHT = 0.2
"""Of the latest call in the running mean."""

TESTS = 0.01
"""Share of the time that may go into calls which put an estimate that says no to the test, for each
number of rows: without them it would say no for ever."""


class Pace:
    """Running means of the seconds that calls took, by their rows to the next power of two.

    For a number of rows that was never seen, the nearest that was counts, as if time grew with the
    rows. A call that ran out of its time counts with at least that time. The first call counts only
    until there is a second: what a tier does once, such as taking memory, is in it.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._calls = 0
        self._heard_at: dict[int, float] = {}

    def seconds(self, rows: int) -> float:
        """What a call of so many rows, from 1, would take; 0 as long as nothing is known."""
        size = rows.bit_length()
        if size in self._seconds or not self._seconds:
            return self._seconds.get(size, 0.0)
        nearest = min(self._seconds, key=lambda seen: abs(seen - size))
        return self._seconds[nearest] * 2.0 ** (size - nearest)

    def fits(self, rows: int, left_s: float, now: float) -> bool:
        """Whether to begin a call: it can be done in the time left, or it is time to see.

        To see takes no more than the time left, then the call is given up. So it is done the more
        often the less time is left, and recovers the sooner.

        Parameters
        ----------
        left_s : float
            Seconds within which the answer is wanted.
        now : float
            `time.monotonic`.
        """
        if left_s <= 0:
            return False
        if self.seconds(rows) <= left_s:
            return True
        size = rows.bit_length()
        if now - self._heard_at.setdefault(size, now) < left_s / TESTS:
            return False
        self._heard_at[size] = now
        return True

    def learn(self, rows: int, seconds: float, now: float) -> None:
        """Count a call that was answered."""
        size = rows.bit_length()
        self._calls += 1
        if self._calls == 2:
            self._seconds.clear()
        known = self._seconds.get(size)
        self._seconds[size] = seconds if known is None else known + WEIGHT * (seconds - known)
        self._heard_at[size] = now

    def learn_at_least(self, rows: int, seconds: float, now: float) -> None:
        """Count a call that was given up after a time."""
        size = rows.bit_length()
        self._seconds[size] = max(seconds, self._seconds.get(size, 0.0))
        self._heard_at[size] = now
