"""Options of commands that read the decision log of a server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.decisions import Decision
    from sprat.tuning_manifest import LoggedRows

UNITS_S = {"m": 60, "h": 3600, "d": 86_400}

Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="AGE|DATE",
        help="Of the log, only from then on: `7d`, `12h`, `30m`, or `2030-01-31[T08:00]`.",
    ),
]
LoggedAs = Annotated[
    str | None,
    typer.Option(
        "--logged-as",
        metavar="NAME",
        help="What the log calls the task, if not as the bundle is called.",
    ),
]


def read_log(
    log: Path, task: str, *, logged_as: str | None, since: str | None
) -> Iterator[Decision]:
    """The decisions of a task, which a bundle by name or path answers.

    Raises
    ------
    InvalidInput
        For ``since``.
    DataError, CorruptFile
        See `sprat.decisions.read_decisions`.
    """
    from sprat.decisions import read_decisions

    name = Path(task).name if logged_as is None else logged_as
    return read_decisions(log, task=name, since=None if since is None else seconds_of(since))


def seconds_of(since: str) -> float:
    """An age or a date as seconds since 1970.

    Raises
    ------
    InvalidInput
        It is neither.
    """
    if found := re.fullmatch(r"(\d{1,9})([mhd])", since):
        return time.time() - int(found[1]) * UNITS_S[found[2]]
    try:
        return datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"--since: expected 7d, 12h, 30m or a date such as 2030-01-31, got {since}",
            field="since",
        ) from None


def moment(seconds: float) -> str:
    """Seconds since 1970 for people."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def sentence(logged: LoggedRows) -> str:
    """Which rows of a log were tuned on."""
    corrected = logged.with_feedback - logged.confirmed
    parts = f"{logged.with_feedback} with feedback ({corrected} corrected)"
    if logged.from_last_tier:
        parts += f", {logged.from_last_tier} drawn at random with the last tier's answer"
    if corrected == logged.with_feedback > 0:
        parts += "; nobody confirmed an answer, so wrong ones are overstated"
    return f"Rows of the log from {moment(logged.since)} to {moment(logged.until)}: {parts}."
