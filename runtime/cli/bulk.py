"""``sprat run``: a task over a file, line by line, with a progress bar; a stopped run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, progress
from sprat.cli.tiers import AcceptAt, Answer, BudgetMs, MaxTier
from sprat.errors import DataError, InvalidInput
from sprat.values import (
    Chunk,
    ClassifyResult,
    Extraction,
    ExtractResult,
    ItemError,
    ModerateResult,
    Moderation,
    RouteResult,
    Routing,
    TransformResult,
    Truncation,
)

Result = ClassifyResult | RouteResult | ModerateResult | ExtractResult | TransformResult

if TYPE_CHECKING:
    from sprat.client import Client
    from sprat.inprocess import Runtime

BATCH = 64
SIDE_BY_SIDE = 8
"""Texts that are rewritten at a time."""


def run(
    task: Annotated[
        str, typer.Argument(help="A task of the server; without one, a bundle by name or path.")
    ],
    source: Annotated[Path, typer.Argument(help="JSONL with a `text` in every line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL with the answers, in order.")],
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of going on where OUT ends.")
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FIELD",
            help="Of a transform task: a field of every line, for {FIELD} in the prompts; may be "
            "repeated.",
        ),
    ] = None,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Classify every line of a JSONL file, or do with it what the task does.

    Each answer line has `line`, `label`, `confidence`, `scores`, and the `id` of its input line if
    it has one; those of a route task have a `target` too, those of an extract task `value` and
    `fields`, those of a moderate task `action`, `category` and `categories`, those of a transform
    task `text` and `complete` instead; those of a cascade also have `tier` and `degraded`; where
    the server keeps a decision log, all have `request_id` and `item` for `sprat feedback`. An input
    that cannot be answered gets `error` instead and the run goes on. Run the same command again
    after an interruption: it continues after the last whole answer.
    """
    lines = _count_lines(source)
    done = 0 if restart else _resume(out)
    if done > lines:
        raise DataError(str(out), done, f"has more answers than {source} has lines ({lines})")
    failed = 0
    with (
        connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs,
        out.open("w" if restart else "a", encoding="utf-8") as answers,
        progress(f"run {task}", total=lines) as bar,
    ):
        name = task_name(task, server)
        kinds = {known.name: known.kind for known in verbs.list_tasks()}
        if inputs and kinds.get(name) != "transform":
            raise InvalidInput("--input: expected a transform task", field="inputs")
        truncation: Truncation = "truncate" if truncate else "refuse"
        effort = {"max_tier": max_tier, "accept_at": accept_at, "budget_ms": budget_ms}
        options: dict[str, Any] = {"partial": True, **effort}
        bar.advance(done)
        for batch in _batches(source, done):
            texts = [row.get("text") for _, row in batch]
            usable = [text for text in texts if isinstance(text, str)]
            result: Result | None = None
            if usable and kinds.get(name) == "route":
                result = verbs.route(name, usable, truncation=truncation, **options)
            elif usable and kinds.get(name) == "moderate":
                result = verbs.moderate(name, usable, **options)
            elif usable and kinds.get(name) == "extract":
                result = verbs.extract(name, usable, **options)
            elif usable and kinds.get(name) == "transform":
                rows = [row for _, row in batch if isinstance(row.get("text"), str)]
                result = _rewrite(verbs, name, rows, inputs or [], effort)
            elif usable:
                result = verbs.classify(name, usable, truncation=truncation, **options)
            failed += _write(answers, batch, result)
            bar.advance(len(batch))
    if as_json:
        print_json({"lines": lines, "resumed_at": done, "failed": failed})
    else:
        typer.echo(f"{lines} lines, {failed} of them failed in this run; answers in {out}")


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None


def _resume(out: Path) -> int:
    """How many whole answers ``out`` has; a last line that was cut short is removed."""
    if not out.exists():
        return 0
    done = end = 0
    with out.open("r+b") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                break
            done += 1
            end += len(line)
            if json.loads(line).get("line") != done:
                raise DataError(str(out), done, "is no answer of `sprat run`; use --restart")
        stream.truncate(end)
    return done


def _batches(path: Path, skip: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    batch: list[tuple[int, dict[str, Any]]] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if number <= skip:
                continue
            batch.append((number, _parse(line)))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _parse(line: bytes) -> dict[str, Any]:
    """A row; one without a usable ``text`` says why in ``error``."""
    try:
        row = json.loads(line)
    except ValueError:
        return {"error": "not a line of JSON in UTF-8"}
    if not isinstance(row, dict):
        return {"error": f"expected an object, found {type(row).__name__}"}
    if not isinstance(row.get("text"), str):
        return {"error": "no `text`, or it is no string", "id": row.get("id")}
    return row


def _rewrite(
    verbs: Client | Runtime,
    task: str,
    rows: Sequence[dict[str, Any]],
    inputs: Sequence[str],
    effort: dict[str, Any],
) -> TransformResult:
    """Rewrite the texts of rows, some at a time: each is a call of its own."""
    errors: list[ItemError] = []
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    def whole(row: dict[str, Any]) -> Chunk:
        values = {name: str(row[name]) for name in inputs if row.get(name) is not None}
        *pieces, last = verbs.transform(task, row["text"], inputs=values, **effort)
        return replace(last, text="".join(piece.text for piece in (*pieces, last)))

    async def one(index: int, row: dict[str, Any]) -> Chunk | None:
        async with places:
            try:
                return await asyncio.to_thread(whole, row)
            except InvalidInput as error:
                errors.append(ItemError(index, error.reason, error.message))
                return None

    async def every() -> list[Chunk | None]:
        return list(await asyncio.gather(*(one(index, row) for index, row in enumerate(rows))))

    items = tuple(asyncio.run(every()))
    last = next((item for item in items if item is not None), Chunk(""))
    return TransformResult(
        *(items, tuple(errors), last.model, last.model_version, last.task_version),
        *(last.calibrated, last.timings),
    )


def _write(answers: IO[str], batch: list[tuple[int, dict[str, Any]]], result: Result | None) -> int:
    """Write one answer a row, in order; return how many failed."""
    items = iter(result.items if result else ())
    reasons = {e.index: e.message for e in result.errors} if result else {}
    failed = 0
    position = 0
    for number, row in batch:
        answer: dict[str, Any] = {"line": number}
        if row.get("id") is not None:
            answer["id"] = row["id"]
        if isinstance(row.get("text"), str):
            item = next(items)
            if result and result.request_id:
                answer |= {"request_id": result.request_id, "item": position}
            if item is None:
                answer["error"] = reasons[position]
            else:
                answer |= _answer(item)
            position += 1
        else:
            answer["error"] = row["error"]
        failed += "error" in answer
        answers.write(json.dumps(answer, ensure_ascii=False) + "\n")
    answers.flush()
    return failed


def _answer(item: Answer | Routing) -> dict[str, Any]:
    if isinstance(item, Chunk):
        logged = {"request_id": item.request_id, "item": 0} if item.request_id else {}
        return {
            **logged,
            "text": item.text,
            "complete": item.complete,
            "confidence": item.confidence,
            "abstained": item.abstained,
            **_tiers(item),
        }
    if isinstance(item, Routing):
        return {"target": item.target, **_answer(item.classification)}
    if isinstance(item, Moderation):
        return {
            "action": item.action,
            "category": item.category,
            "confidence": item.confidence,
            "abstained": item.abstained,
            "categories": [asdict(each) for each in item.categories],
            **_tiers(item),
        }
    if isinstance(item, Extraction):
        return {
            "value": item.value,
            "complete": item.complete,
            "confidence": item.confidence,
            "abstained": item.abstained,
            "fields": [asdict(field) for field in item.fields],
            **_tiers(item),
        }
    return {
        "label": item.label,
        "confidence": item.confidence,
        "abstained": item.abstained,
        "scores": {s.label: round(s.score, 6) for s in item.scores},
        **_tiers(item),
    }


def _tiers(item: Answer) -> dict[str, Any]:
    """Which tier of a cascade answered."""
    return {"tier": item.tier, "degraded": item.degraded} if item.tiers else {}
