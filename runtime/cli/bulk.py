"""``sprat run``: a task over a file, line by line, with a progress bar; a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, progress
from sprat.cli.tiers import AcceptAt, Answer, BudgetMs, MaxTier
from sprat.errors import DataError
from sprat.values import (
    Classification,
    ClassifyResult,
    Extraction,
    ExtractResult,
    ModerateResult,
    Moderation,
    RouteResult,
    Routing,
    Truncation,
)

Result = ClassifyResult | RouteResult | ModerateResult | ExtractResult

BATCH = 64


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
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Classify every line of a JSONL file, or route, moderate or extract, as the task does.

    Each answer line has `line`, `label`, `confidence`, `scores`, and the `id` of its input line if
    it has one; those of a route task have a `target` too, those of an extract task `value` and
    `fields`, those of a moderate task `action`, `category` and `categories` instead; those of a
    cascade also have `tier` and `degraded`; where the server keeps a decision log, all have
    `request_id` and `item` for `sprat feedback`. An input that cannot be answered gets `error`
    instead and the run goes on. Run the same command again after an interruption: it continues
    after the last whole answer.
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
        truncation: Truncation = "truncate" if truncate else "refuse"
        options: dict[str, Any] = {
            "partial": True,
            "max_tier": max_tier,
            "accept_at": accept_at,
            "budget_ms": budget_ms,
        }
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


def _answer(item: Classification | Routing | Extraction | Moderation) -> dict[str, Any]:
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
