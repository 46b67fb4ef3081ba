"""What became known of a task's answers after they had been given: feedback, and shadows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sprat.decisions import HOUR_S
from sprat.drift import Counts, Outcome

KNOWN = 5000
"""Answers with feedback that are kept, and as many shadows: those that were learned of last."""

HOURS = 1000
"""How old an answer may be: what was learned of older ones is forgotten."""

Key = tuple[str, int]
"""The id of a call, and which of its texts."""


class Outcomes:
    """The outcomes of one version of a task, counted; in bounded memory.

    Feedback comes hours or days after the answer, so that these are not the answers of the window
    of `sprat.tasks.watch`. A second word on the same answer takes the place of the first.

    Parameters
    ----------
    counts : Counts
        Where outcomes are counted.
    since : float
        Seconds since 1970. Answers from before are not counted, and what is learned of them is not
        taken in.
    """

    def __init__(self, counts: Counts, since: float) -> None:
        self._counts = counts
        self._since = since
        self._reviews: dict[Key, tuple[float, Outcome]] = {}
        self._shadows: dict[Key, tuple[float, Outcome]] = {}
        self._answered: dict[int, int] = {}

    @property
    def answered(self) -> int:
        """Answers since the hour of the oldest one with feedback; 0 without any."""
        if not self._reviews:
            return 0
        first = int(min(time for time, _ in self._reviews.values()) // HOUR_S)
        return sum(count for hour, count in self._answered.items() if hour >= first)

    def count_answers(self, count: int, hour: int) -> None:
        """Count answers of an hour since 1970 that were not withheld."""
        if hour in self._answered:
            self._answered[hour] += count
            return
        self._answered[hour] = count
        if len(self._answered) > HOURS:
            del self._answered[min(self._answered)]
            self._forget(min(self._answered) * HOUR_S)

    def recall(self, answered: Mapping[int, int]) -> None:
        """Count answers from before, all that there were: from now on these may be learned of."""
        self._since = -math.inf
        for hour in sorted(answered):
            self.count_answers(answered[hour], hour)

    def learn(self, key: Key, time: float, outcome: Outcome) -> None:
        """Take in what became known of an answer that was given at a time."""
        if time < self._since:
            return
        if outcome.is_right is not None:
            self._put(self._reviews, key, time, outcome._replace(is_agreed=None))
        if outcome.is_agreed is not None:
            self._put(self._shadows, key, time, Outcome(is_agreed=outcome.is_agreed))

    def _put(
        self, kept: dict[Key, tuple[float, Outcome]], key: Key, time: float, outcome: Outcome
    ) -> None:
        if key in kept:
            self._drop(kept, key)
        elif len(kept) >= KNOWN:
            self._drop(kept, next(iter(kept)))
        kept[key] = time, outcome
        self._counts.learn(outcome)

    def _drop(self, kept: dict[Key, tuple[float, Outcome]], key: Key) -> None:
        self._counts.learn(kept.pop(key)[1], -1)

    def _forget(self, before: float) -> None:
        self._since = before
        for kept in (self._reviews, self._shadows):
            for key in [key for key, (time, _) in kept.items() if time < before]:
                self._drop(kept, key)
