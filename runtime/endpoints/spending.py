"""What an endpoint was asked for and may cost in a day, kept over restarts.

::

    SPRAT_HOME/endpoints/NAME.json     the day and its sums; NAME.lock beside it

Counting comes before asking: a request is booked with the most that it can cost, in the file, and
corrected when its reply says what it did cost. So a process that is killed leaves too much in the
file and never too little, and several processes share one cap.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sprat.errors import CorruptFile, EngineError, QueueFull

log = logging.getLogger(__name__)

LOCK_S = 1.0
"""How long other processes may hold the file; they need some microseconds."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request, as the endpoint counts them."""

    input_tokens: int
    output_tokens: int


NOTHING = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class Caps:
    """What a day (UTC) may see at most; None: anything.

    Attributes
    ----------
    requests : int or None
    tokens : int or None
        Read and written together.
    money : float or None
        In the currency of the prices.
    """

    requests: int | None = None
    tokens: int | None = None
    money: float | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.requests, self.tokens, self.money))


@dataclass(frozen=True, slots=True)
class Prices:
    """Money for 1,000 tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, usage: Usage) -> float:
        """What a request costs."""
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1000


class Spent(BaseModel):
    """The sums of a day.

    Attributes
    ----------
    day : date
        In UTC.
    requests : int
        Attempts that were sent.
    input_tokens, output_tokens : int
    money : float
        By the prices of the time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    day: date
    requests: int = Field(default=0, ge=0)
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    money: float = Field(default=0.0, ge=0)

    def plus(self, usage: Usage, money: float, requests: int = 0) -> Spent:
        """The sums with a request, or a correction, more."""
        return Spent(
            day=self.day,
            requests=self.requests + requests,
            input_tokens=max(0, self.input_tokens + usage.input_tokens),
            output_tokens=max(0, self.output_tokens + usage.output_tokens),
            money=max(0.0, self.money + money),
        )


class Spending:
    """The sums of today, and the caps on them.

    Parameters
    ----------
    name : str
        Of the endpoint, for errors.
    path : Path or None
        The file; None keeps the sums for this process only.
    today : callable
        The time in UTC.

    Raises
    ------
    CorruptFile
        There is a file, but with something else in it.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        *,
        caps: Caps,
        prices: Prices,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._name = name
        self._path = path
        self._caps = caps
        self._prices = prices
        self._now = now
        self._kept = Spent(day=now().date())
        if path is not None:
            with contextlib.suppress(OSError):
                self._kept = self._read(path)

    @property
    def spent(self) -> Spent:
        """The sums of today, as this process saw them last."""
        return self._of_today(self._kept)

    def book(self, most: Usage) -> date:
        """Count a request with the most that it can cost, before it is sent.

        Returns
        -------
        date
            The day that it is counted in, for `settle`.

        Raises
        ------
        QueueFull
            It could bring the day above a cap; try again tomorrow.
        EngineError
            The file cannot be read or written: what cannot be counted is not spent.
        """
        booked = self._change(lambda spent: self._within(spent, most))
        return booked.day

    def settle(self, day: date, most: Usage, used: Usage) -> None:
        """Correct what was booked by what was used. Fails silently but for the log."""
        if used == most:
            return
        less = Usage(used.input_tokens - most.input_tokens, used.output_tokens - most.output_tokens)
        money = self._prices.of(used) - self._prices.of(most)
        try:
            self._change(lambda spent: spent.plus(less, money) if spent.day == day else spent)
        except EngineError as error:
            log.warning("%s; the request counts with the most that it could cost", error.message)

    def _within(self, spent: Spent, most: Usage) -> Spent:
        booked = spent.plus(most, self._prices.of(most), requests=1)
        tokens = booked.input_tokens + booked.output_tokens
        for what, would, cap in (
            ("daily_requests", booked.requests, self._caps.requests),
            ("daily_tokens", tokens, self._caps.tokens),
            ("daily_spend", booked.money, self._caps.money),
        ):
            if cap is not None and would > cap:
                now = self._now()
                tomorrow = datetime.combine(
                    now.date() + timedelta(days=1), datetime.min.time(), timezone.utc
                )
                raise QueueFull(
                    f"endpoint {self._name}: {what} of {cap:g} is used up until midnight UTC",
                    retry_after_s=(tomorrow - now).total_seconds(),
                )
        return booked

    def _change(self, change: Callable[[Spent], Spent]) -> Spent:
        """Apply a change to the sums of today, in the file where there is one."""
        if self._path is None:
            self._kept = change(self.spent)
            return self._kept
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock"), LOCK_S, poll_interval=0.002):
                before = self._of_today(self._read(self._path))
                # Others may have spent meanwhile, also where this is refused.
                self._kept = before
                after = change(before)
                if after != before:
                    self._write(self._path, after)
        except (OSError, Timeout, CorruptFile) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise EngineError(
                f"endpoint {self._name}: {self._path} cannot be changed: "
                f"{why or type(error).__name__}"
            ) from None
        self._kept = after
        return after

    def _of_today(self, spent: Spent) -> Spent:
        today = self._now().date()
        return spent if spent.day == today else Spent(day=today)

    def _read(self, path: Path) -> Spent:
        try:
            return Spent.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Spent(day=self._now().date())
        except ValidationError:
            raise CorruptFile(
                str(path), "expected the sums of a day; remove it to begin the day at nothing"
            ) from None

    @staticmethod
    def _write(path: Path, spent: Spent) -> None:
        # Its own lock keeps others from this name.
        part = path.with_suffix(".part")
        part.write_text(spent.model_dump_json(), encoding="ascii")
        os.replace(part, path)
