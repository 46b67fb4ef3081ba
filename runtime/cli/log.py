"""``sprat log``: what is in a decision log, and its rows for other programs."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from sprat.cli.logged import Since, moment, seconds_of
from sprat.cli.output import Json, megabytes, print_json, print_table, progress
from sprat.decisions import Decision, read_decisions, summarize
from sprat.errors import InvalidInput, SetupError, StoreError

app = typer.Typer(no_args_is_help=True, help="What is in a decision log, and its rows.")

GROUP_ROWS = 10_000
"""Rows of a row group of Parquet."""

File = Annotated[Path, typer.Argument(help="The decision log: `log.path` of the server.")]


@app.command()
def stats(file: File, as_json: Json = False) -> None:
    """Show how many decisions of each task a log holds, of when, and what was lost."""
    tasks, losses = summarize(file)
    size = sum(
        path.stat().st_size
        for suffix in ("", "-wal")
        if (path := file.with_name(file.name + suffix)).exists()
    )
    if as_json:
        print_json(
            {
                "size_bytes": size,
                "tasks": [asdict(task) for task in tasks],
                "losses": [asdict(loss) for loss in losses],
            }
        )
        return
    columns = ["rows", "abstained", "escalated", "degraded", "shadows", "feedback"]
    print_table(
        ["task", "kind", *columns, "first", "last"],
        [
            (
                *(task.task, task.kind, *(getattr(task, name) for name in columns)),
                *(moment(task.first), moment(task.last)),
            )
            for task in tasks
        ],
        title=f"{file}, {megabytes(size)}",
        right=" ".join(columns),
    )
    if losses:
        rows = [(moment(loss.time), loss.rows, loss.reason) for loss in losses]
        print_table(["until", "rows lost", "reason"], rows, right="rows lost")


@app.command()
def export(
    file: File,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only of this task.")] = None,
    since: Since = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="`.jsonl` or `.parquet`. Absent: JSONL on stdout."),
    ] = None,
) -> None:
    """Write the decisions of a log as JSONL or Parquet, also while a server writes it.

    Times are seconds since 1970; `text_hash` is in hexadecimal; `tiers` has what each tier said,
    `shadow` what the last one would have said, `feedback` what was right, `flagged` all categories
    of a moderation. There is a `text` only where the server stores texts.
    """
    decisions = read_decisions(file, task=task, since=None if since is None else seconds_of(since))
    if out is None:
        for decision in decisions:
            typer.echo(json.dumps(_document(decision), ensure_ascii=False))
        return
    if out.suffix not in (".jsonl", ".parquet"):
        raise InvalidInput(f"--out: expected .jsonl or .parquet, got {out.name}", field="out")
    write = _write_parquet if out.suffix == ".parquet" else _write_jsonl
    with progress(f"export {file}") as bar:
        rows = 0
        with _written(out) as work:
            for group in write(work, map(_document, decisions)):
                rows += group
                bar.advance(group)
    typer.echo(f"{rows} decisions in {out}", file=sys.stderr)


def _document(decision: Decision) -> dict[str, Any]:
    return {**asdict(decision), "text_hash": decision.text_hash.hex()}


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    """A file that takes the place of ``out`` when all of it is there; private, as the log is."""
    work = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    try:
        work.touch(mode=0o600)
        yield work
        work.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: {error.strerror}") from error
    finally:
        work.unlink(missing_ok=True)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, GROUP_ROWS)):
        yield group


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[int]:
    stream: IO[str]
    with path.open("w", encoding="utf-8") as stream:
        for group in _groups(rows):
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in group)
            yield len(group)


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> Iterator[int]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise SetupError(
            "Parquet needs pyarrow; install it with: pip install 'sprat[parquet]'; or export .jsonl"
        ) from None
    said = pa.struct(
        [
            ("tier", pa.int32()),
            ("name", pa.string()),
            ("label", pa.string()),
            ("confidence", pa.float64()),
        ]
    )
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("request_id", pa.string()),
            ("item", pa.int32()),
            ("time", pa.float64()),
            ("task", pa.string()),
            ("task_version", pa.string()),
            ("kind", pa.string()),
            ("text_hash", pa.string()),
            ("text", pa.string()),
            ("label", pa.string()),
            ("confidence", pa.float64()),
            ("abstained", pa.bool_()),
            ("tier", pa.int32()),
            ("escalated", pa.bool_()),
            ("degraded", pa.string()),
            ("tiers", pa.list_(said)),
            ("input_tokens", pa.int64()),
            ("shadow", said),
            ("feedback", pa.string()),
            ("flagged", pa.list_(pa.string())),
        ]
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            yield len(group)
