"""What stands before an endpoint: who may ask it, and what became of each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sprat.endpoints.breaker import Breaker
from sprat.endpoints.spending import Spending, Usage
from sprat.errors import InvalidInput, QueueFull


@dataclass(slots=True)
class Attempt:
    """One request to an endpoint; whoever makes it says what it cost.

    Attributes
    ----------
    used : Usage or None
        What it cost; None: nobody knows, and so the most that it can.
    """

    used: Usage | None = None


class Guard:
    """A breaker, a spend cap, and a bound on what waits. Refuses at once, and never waits itself.

    Parameters
    ----------
    name : str
        Of the endpoint, for errors.
    most_open : int
        Texts that are under way or wait, at most, from 1.
    """

    def __init__(self, name: str, *, breaker: Breaker, spending: Spending, most_open: int) -> None:
        self.breaker = breaker
        self.spending = spending
        self._name = name
        self._most_open = most_open
        self._open = 0

    @contextmanager
    def room(self, texts: int) -> Iterator[None]:
        """Room for the texts of a call, until it is answered.

        A call of more texts than there is room for at all has its turn when nothing else is there.

        Raises
        ------
        QueueFull
            There is none.
        """
        if self._open and self._open + texts > self._most_open:
            raise QueueFull(
                f"endpoint {self._name}: {self._open} texts are under way or wait, at most "
                f"{self._most_open} may"
            )
        self._open += texts
        try:
            yield
        finally:
            self._open -= texts

    @contextmanager
    def attempt(self, most: Usage) -> Iterator[Attempt]:
        """One request. What its block raises is taken for what became of it.

        Parameters
        ----------
        most : Usage
            What it can cost at most.

        Raises
        ------
        EngineError
            The endpoint failed lately, or what it costs cannot be counted.
        QueueFull
            The day's cap is reached.
        """
        begun = self.breaker.begin()
        attempt = Attempt()
        try:
            day = self.spending.book(most)
        except BaseException:
            self.breaker.abandon(begun)
            raise
        try:
            yield attempt
        except asyncio.CancelledError:
            self.breaker.abandon(begun)
            raise
        except InvalidInput:
            # An endpoint that does not want a text works.
            self.breaker.succeed(begun)
            raise
        except BaseException:
            self.breaker.fail(begun)
            raise
        else:
            self.breaker.succeed(begun)
        finally:
            if attempt.used is not None:
                self.spending.settle(day, most, attempt.used)
