"""``sprat moderate``: with or without a server."""

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
from sprat.cli.tiers import AcceptAt, BudgetMs, MaxTier, with_confidence
from sprat.cli.use import Texts
from sprat.values import ModerateResult


def moderate(
    task: Annotated[
        str,
        typer.Argument(
            help="A moderate task of the server; without one, a bundle by name or path."
        ),
    ],
    texts: Texts = None,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say for each text whether to allow, flag or block it, and where in it the reason stands.

    Texts of any length are read to their end: long ones in overlapping windows, of which the worst
    counts. `span` is the part of the text that it is due to, in characters. `confidence` is the
    probability that the text is flagged for the right categories; below the threshold of the task
    it abstains, and flags the text for somebody to look at.
    """
    given = read_texts(texts)
    with connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.moderate(
            task_name(task, server),
            given,
            max_tier=max_tier,
            accept_at=accept_at,
            budget_ms=budget_ms,
        )
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _report(result: ModerateResult) -> None:
    rows: list[tuple[object, ...]] = []
    items = []
    for index, item in enumerate(result.items):
        if item is None:
            continue
        action = "flag (abstained)" if item.abstained else item.action
        for each in sorted(item.categories, key=lambda score: -score.probability):
            span = "" if each.action == "allow" else f"{each.start}-{each.end}"
            rows.append((index, action, each.category, each.probability, span, item.chunks))
            items.append(item)
    columns = ["text", "action", "category", "probability", "span", "chunks"]
    print_table(
        *with_confidence(columns, rows, items), right="text probability span chunks confidence"
    )
    print_request(result.request_id)
