"""``sprat feedback``: what was right, for answers that a server has logged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sprat.cli.connect import connect
from sprat.cli.output import Json, RunningServer, TlsCa, Token, print_json, progress
from sprat.errors import DataError, InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a file of feedback."""

    line: int
    request_id: str
    item: int
    label: str


def feedback(
    request_id: Annotated[
        str | None,
        typer.Argument(help="Of the answer, as the reply says it.", show_default=False),
    ] = None,
    label: Annotated[
        str | None,
        typer.Argument(
            help="What is right: a label of the task; of a moderate task a category or `allow`, or "
            "of all of the answer `right` or `wrong`; of a decide, extract or transform task one "
            "of these two.",
            show_default=False,
        ),
    ] = None,
    item: Annotated[int, typer.Option("--item", min=0, help="Which text of the call, from 0.")] = 0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="JSONL instead: `request_id`, `label` and, unless it is 0, `item`."
        ),
    ] = None,
    server: RunningServer = "default",
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say what would have been the right answer for a text that a server answered before.

    The server must keep a decision log (`sprat serve --log`): `sprat classify` and the others then
    show the id of the request, and the lines of `sprat run` have it. Said again, the last word
    counts. `sprat drift` puts what a tuning promised to the test with it, and `sprat tune --log`
    learns thresholds from it.

        sprat feedback 5f0c9a7be21d4e63 refund

        sprat feedback --file reviewed.jsonl

    Lines of a file that the server does not take are listed; the others are kept.
    """
    if file is None:
        if request_id is None or label is None:
            raise InvalidInput("expected REQUEST_ID and LABEL, or --file", field="request_id")
        rows = [_Row(0, request_id, item, label)]
    else:
        if request_id is not None or item:
            raise InvalidInput("--file: expected nothing else beside it", field="file")
        rows = _read(file)
    refused: list[tuple[_Row, str]] = []
    with (
        connect(server, token=token, tls_ca=tls_ca) as verbs,
        progress("feedback", total=len(rows)) as bar,
    ):
        for row in rows:
            try:
                verbs.feedback(row.request_id, row.label, item=row.item)
            except (NotFound, InvalidInput) as error:
                if file is None:
                    raise
                refused.append((row, error.message))
            bar.advance(1)
    if as_json:
        print_json(
            {
                "taken": len(rows) - len(refused),
                "refused": [{"line": row.line, "reason": reason} for row, reason in refused],
            }
        )
    else:
        for row, reason in refused:
            typer.echo(f"{file}:{row.line}: {reason}", err=True)
        typer.echo(f"{len(rows) - len(refused)} of {len(rows)} taken")
    if refused:
        raise typer.Exit(1)


def _read(path: Path) -> list[_Row]:
    """All rows of a file, before the first is sent."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(str(path), 0, "expected rows, found none")
    return rows


def _row(path: Path, number: int, line: bytes) -> _Row:
    try:
        found: Any = json.loads(line)
    except ValueError:
        raise DataError(str(path), number, "expected a line of JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise DataError(str(path), number, "expected an object")
    for name in ("request_id", "label"):
        if not isinstance(found.get(name), str) or not found[name]:
            raise DataError(str(path), number, f"{name}: expected a string that is not empty")
    item = found.get("item", 0)
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 2**31:
        raise DataError(str(path), number, "item: expected a whole number from 0")
    return _Row(number, found["request_id"], item, found["label"])
