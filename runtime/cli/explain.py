"""``sprat explain``: what each tier says of a text, and why the answer is what it is."""

from __future__ import annotations

import functools
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sprat.cli.connect import connect, load_configured, task_name
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, print_table
from sprat.cli.tiers import AcceptAt, Answer, BudgetMs, MaxTier
from sprat.cli.transform import Inputs, read_inputs
from sprat.errors import InvalidInput, NotFound
from sprat.values import Chunk, Classification, Moderation, Routing, TaskInfo, TierInfo

if TYPE_CHECKING:
    from sprat.client import Client
    from sprat.inprocess import Runtime

DEGRADED = {
    "no_time": "the next tier had no time",
    "overload": "the next tier had no room",
    "failure": "the next tier failed",
}


def explain(
    task: Annotated[
        str,
        typer.Argument(
            help="A task of the server or of --config that a bundle answers; else a bundle by name "
            "or path."
        ),
    ],
    text: Annotated[str, typer.Argument(help="The text.")],
    inputs: Inputs = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="How many scores to show.")] = 3,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="A server's TOML file: load its tasks here, and ask its endpoints.",
        ),
    ] = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Show what each tier says of a text, from which confidence on it answers, and what follows.

    Every tier is asked, also those that the text would not have reached, remote ones included; each
    counts as a request.
    Only where the last tier is not calibrated, those behind the answer are not.
    """
    if config is None:
        verbs = connect(server, tasks=[task], token=token, tls_ca=tls_ca)
    else:
        verbs = load_configured(config, server)
    with verbs:
        name = task if config is not None else task_name(task, server)
        info = _info(verbs, name)
        asked = functools.partial(_ask, verbs, info, text, read_inputs(inputs), top_k)
        answer = asked(max_tier=max_tier, accept_at=accept_at, budget_ms=budget_ms)
        tiers = info.tiers or (TierInfo("-", info.accept_at),)
        heard = [answer] * len(tiers)
        if info.tiers:
            # Nobody is sure enough for a threshold of 1: the last one that may answer is heard.
            # Where not all are calibrated the task takes none, and the text goes as far as it goes.
            strict = {"accept_at": 1.0} if info.calibrated else {}
            heard = [asked(max_tier=at, **strict) for at in range(len(tiers))]
    rows = []
    for at, (tier, said) in enumerate(zip(tiers, heard, strict=True)):
        model, version = info.models[at]
        least = tier.accept_at if accept_at is None else accept_at
        is_its_own = said.tier == at
        rows.append(
            {
                "tier": tier.name,
                "model": model,
                "version": version,
                "accept_at": least,
                "confidence": said.confidence if is_its_own else None,
                "scores": _scores(said) if is_its_own else [],
                "cpu_ms": _cpu_ms(said, at) if is_its_own else None,
                "decision": _decision(at, said, answer, least),
            }
        )
    if as_json:
        print_json({"task": name, "version": info.version, "tiers": rows, "answer": asdict(answer)})
        return
    print_table(
        ["tier", "model", "scores", "confidence", "threshold", "CPU ms", "decision"],
        [_cells(row) for row in rows],
        right="confidence threshold",
    )
    if isinstance(answer, Chunk):
        typer.echo(answer.text)


def _info(verbs: Client | Runtime, name: str) -> TaskInfo:
    known = {info.name: info for info in verbs.list_tasks()}
    if name not in known:
        raise NotFound("task", name, tuple(known))
    return known[name]


def _ask(
    verbs: Client | Runtime,
    info: TaskInfo,
    text: str,
    inputs: dict[str, str],
    top_k: int,
    **effort: Any,
) -> Answer:
    if info.kind == "transform":
        *pieces, last = verbs.transform(info.name, text, inputs=inputs, **effort)
        return replace(last, text="".join(piece.text for piece in [*pieces, last]))
    if inputs:
        raise InvalidInput("--input: only tasks that transform take any", field="inputs")
    item: Answer | Routing | None
    if info.kind == "route":
        (item,) = verbs.route(info.name, [text], top_k=top_k, **effort).items
    elif info.kind == "classify":
        (item,) = verbs.classify(info.name, [text], top_k=top_k, **effort).items
    elif info.kind == "moderate":
        (item,) = verbs.moderate(info.name, [text], **effort).items
    elif info.kind == "extract":
        (item,) = verbs.extract(info.name, [text], long_input="chunk", **effort).items
    else:
        raise InvalidInput(
            f"task {info.name} is a task of kind {info.kind}: only those of classify, route, "
            "moderate, extract and transform are explained",
            field="task",
        )
    assert item is not None
    return item.classification if isinstance(item, Routing) else item


def _scores(said: Answer) -> list[dict[str, Any]]:
    """What a tier thinks of labels or categories, or of the fields it found; none of a text."""
    if isinstance(said, Classification):
        return [asdict(score) for score in said.scores]
    if isinstance(said, Moderation):
        return [{"label": each.category, "score": each.probability} for each in said.categories]
    if isinstance(said, Chunk):
        return []
    return [{"label": field.path, "score": field.score} for field in said.fields]


def _decision(at: int, said: Answer, answer: Answer, accept_at: float) -> str:
    """What a tier did with the text, and why."""
    if at > answer.tier:
        return "not asked"
    if at < answer.tier:
        in_band = said.confidence is not None and said.confidence >= accept_at
        return "passes on: too near the threshold" if in_band else "passes on"
    verb = "abstains" if answer.abstained else "answers"
    return f"{verb}: {DEGRADED[answer.degraded]}" if answer.degraded else verb


def _cpu_ms(said: Answer, at: int) -> float | None:
    """What the text took in one tier."""
    return next((each.cpu_ms for each in said.tiers if each.tier == at), said.cpu_ms)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["tier"],
        row["model"],
        ", ".join(f"{score['label']} {score['score']:.3f}" for score in row["scores"]),
        "" if row["confidence"] is None else row["confidence"],
        row["accept_at"],
        "" if row["cpu_ms"] is None else f"{row['cpu_ms']:.3g}",
        row["decision"],
    )
