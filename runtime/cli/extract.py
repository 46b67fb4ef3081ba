"""``sprat extract``: with or without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
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
    read_file,
    read_texts,
)
from sprat.cli.tiers import AcceptAt, BudgetMs, MaxTier, refuse, with_confidence
from sprat.errors import InvalidInput
from sprat.text.leaves import leaves, pointer, read
from sprat.values import Effort, ExtractResult, ExtractSpec, Field, LongInput


def extract(
    task: Annotated[
        str,
        typer.Argument(
            help="An extract task of the server; without one, a bundle by name or path. "
            "With --schema, a generative model."
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts. Absent: one a line on stdin.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="File: the JSON Schema of an object.")
    ] = None,
    instructions: Annotated[
        str, typer.Option("--instructions", help="What the texts are and what to look for.")
    ] = "",
    requested: Annotated[
        list[str] | None,
        typer.Option(
            "--requested",
            metavar="FIELD",
            help="A field that the texts were asked for, for a trained task; may be repeated.",
        ),
    ] = None,
    require_grounding: Annotated[
        bool,
        typer.Option(
            "--require-grounding", help="Withhold values with strings that the text does not have."
        ),
    ] = False,
    chunk: Annotated[
        bool, typer.Option("--chunk", help="Cut texts that are too long instead of refusing them.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most of a value.")] = 512,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Find fields in each text and show where they stand: by a trained task, or a JSON Schema.

    A trained task finds spans of the text, each with a calibrated confidence; `confidence` is the
    one that all of them are right and none is missing. With --schema, a generative model fills the
    schema; its scores are its own.
    """
    given = read_texts(texts)
    long_input: LongInput = "chunk" if chunk else "refuse"
    if schema is not None:
        if requested:
            raise InvalidInput("--requested: of no use with --schema", field="requested")
        refuse(Effort(max_tier, accept_at, budget_ms), "--schema")
        spec = ExtractSpec(
            task,
            read_file(schema, "--schema"),
            instructions,
            require_grounding=require_grounding,
            max_tokens=max_tokens,
        )
        with connect(server, models=[task], token=token, tls_ca=tls_ca) as verbs:
            result = verbs.extract(spec, given, long_input=long_input)
    else:
        for option, value in (
            ("instructions", instructions),
            ("require-grounding", require_grounding),
        ):
            if value:
                raise InvalidInput(f"--{option}: expected --schema beside it", field=option)
        with connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs:
            result = verbs.extract(
                task_name(task, server),
                given,
                requested=requested or (),
                long_input=long_input,
                max_tier=max_tier,
                accept_at=accept_at,
                budget_ms=budget_ms,
            )
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _report(result: ExtractResult) -> None:
    rows: list[tuple[object, ...]] = []
    items = []
    for index, item in enumerate(result.items):
        if item is None:
            continue
        if item.value is None:
            rows.append((index, "", "(abstained)" if item.abstained else "(incomplete)", "", ""))
            items.append(item)
            continue
        values = {pointer(path): leaf.value for path, leaf in leaves(read(item.json))}
        rows += [
            (index, f.path, _shown(values[f.path]), _sureness(f), _span(f)) for f in item.fields
        ]
        items += [item] * len(item.fields)
    columns = ["text", "path", "value", "score", "span"]
    print_table(*with_confidence(columns, rows, items), right="text score span confidence")
    print_request(result.request_id)


def _sureness(field: Field) -> float:
    return field.score if field.confidence is None else field.confidence


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _span(field: Field) -> str:
    return "" if field.start is None else f"{field.start}-{field.end}"
