"""``sprat moderate``: with or without a server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, print_table, read_texts
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
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say for each text whether to allow, flag or block it, and where in it the reason stands.

    Texts of any length are read to their end: long ones in overlapping windows, of which the worst
    counts. `span` is the part of the text that it is due to, in characters.
    """
    given = read_texts(texts)
    with connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.moderate(task_name(task, server), given)
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _report(result: ModerateResult) -> None:
    print_table(
        ["text", "action", "category", "probability", "span", "chunks"],
        [
            (
                index,
                item.action,
                each.category,
                each.probability,
                "" if each.action == "allow" else f"{each.start}-{each.end}",
                item.chunks,
            )
            for index, item in enumerate(result.items)
            if item is not None
            for each in sorted(item.categories, key=lambda score: -score.probability)
        ],
        right="text probability span chunks",
    )
