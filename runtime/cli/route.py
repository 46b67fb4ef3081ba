"""``sprat route``: with or without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import (
    Json,
    Server,
    TlsCa,
    Token,
    print_json,
    print_request,
    print_table,
    read_texts,
)
from sprat.cli.tiers import AcceptAt, BudgetMs, MaxTier, refuse, with_tiers
from sprat.cli.use import Texts, Truncate
from sprat.errors import InvalidInput
from sprat.values import Destination, Effort, LabelScore, RouteResult, RouteSet


def route(
    task: Annotated[
        str,
        typer.Argument(
            help="A route task of the server; without one, a bundle by name or path. "
            "With --to, a generative model."
        ),
    ],
    texts: Texts = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="NAME[=DESCRIPTION]",
            help="Where texts can go, and when, as `billing=Invoices and payments`; "
            "two or more times.",
        ),
    ] = None,
    instructions: Annotated[
        str, typer.Option("--instructions", help="With --to: what the texts are.")
    ] = "",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="How many scores to show.")] = 3,
    truncate: Truncate = False,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say where each text goes: by a trained task, or to places of your own by a generative model.

    A trained task sends texts that it is not sure of to its default target.
    """
    given = read_texts(texts)
    if to is not None:
        if truncate:
            raise InvalidInput("--truncate: texts are never cut with --to", field="truncate")
        refuse(Effort(max_tier, accept_at, budget_ms), "--to")
        routes = RouteSet(task, tuple(map(_destination, to)), instructions)
        with connect(server, models=[task], token=token, tls_ca=tls_ca) as verbs:
            result = verbs.route(routes, given, top_k=top_k)
    else:
        if instructions:
            raise InvalidInput("--instructions: expected --to beside it", field="instructions")
        with connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs:
            result = verbs.route(
                task_name(task, server),
                given,
                top_k=top_k,
                truncation="truncate" if truncate else "refuse",
                max_tier=max_tier,
                accept_at=accept_at,
                budget_ms=budget_ms,
            )
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _destination(given: str) -> Destination:
    name, _, description = given.partition("=")
    return Destination(name.strip(), description.strip())


def _report(result: RouteResult) -> None:
    rows: list[tuple[object, ...]] = []
    for index, item in enumerate(result.items):
        if item is None:
            continue
        found = item.classification
        others = ", ".join(f"{s.label} {s.score:.3f}" for s in found.scores[1:])
        best = found.scores[0] if found.scores else LabelScore("no label", 0.0)
        label = f"({best.label}, not sure)" if found.abstained else best.label
        rows.append((index, item.target or "(nowhere)", label, best.score, others))
    columns = ["text", "target", "label", "confidence" if result.calibrated else "score", "next"]
    items = [item.classification for item in result.items if item is not None]
    print_table(*with_tiers(columns, rows, items), right="text confidence score")
    print_request(result.request_id)
