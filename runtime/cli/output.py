"""How commands report: readable tables on a terminal, JSON for programs, progress on stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sprat.errors import ConfigError, StoreError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="ADDRESS",
        help="Ask a running server: `unix:PATH`, `HOST:PORT`, or `default` for this user's socket. "
        "Absent: load the models into this process.",
    ),
]
RunningServer = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="ADDRESS",
        help="`unix:PATH`, `HOST:PORT`, or `default` for this user's socket.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="SPRAT_TOKEN", help="Bearer token for the server."),
]
TlsCa = Annotated[
    str | None,
    typer.Option("--tls-ca", help="PEM file of the authority behind the server's certificate."),
]


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", right: str = ""
) -> None:
    """A table on stdout.

    Parameters
    ----------
    right : str
        Names of the columns that are aligned to the right, separated by spaces.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right.split() else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # A file or a pipe has no width: nothing is folded there.
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(table)


def print_request(request_id: str) -> None:
    """What `sprat feedback` calls a call, below its table; nothing where none is logged."""
    if request_id:
        typer.echo(f"request {request_id}")


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))


class Bar:
    """A progress bar; a `sprat.progress.Progress`."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def phase(self, text: str, total: int | None = None) -> None:
        """Begin anew with another description and total."""
        self._update(description=text, total=total, completed=0)

    def advance(self, size: int) -> None:
        """Count ``size`` more of the total."""
        self._update(advance=size)


@contextlib.contextmanager
def progress(description: str, *, total: float | None = None, unit: str = "") -> Iterator[Bar]:
    """A progress bar on stderr, only where stderr is a terminal.

    Parameters
    ----------
    unit : str
        ``bytes``, or anything that is counted one by one.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bars:
        task = bars.add_task(description, total=total)
        yield Bar(functools.partial(bars.update, task))


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.{0 if size >= 10e6 else 1}f} MB"


def read_file(path: Path, option: str) -> str:
    """The text of a file that an option names.

    Raises
    ------
    ConfigError
        It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(option, f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(option, f"{path} is not UTF-8 (byte {error.start})") from None


def read_texts(given: Sequence[str] | None, what: str = "texts") -> list[str]:
    """Texts from the arguments, or one a line from stdin where none are given."""
    if given:
        return list(given)
    if sys.stdin.isatty():
        raise typer.BadParameter(f"give {what} as arguments, or one a line on stdin")
    data = sys.stdin.buffer.read()
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"stdin is not UTF-8 (byte {error.start})") from None
    return [line for line in lines if line.strip()]


def write_file(path: Path, text: str) -> None:
    """Write a file as UTF-8: all of it, or nothing.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    work = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        work.write_text(text, encoding="utf-8")
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror}") from error
