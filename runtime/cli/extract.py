"""``sprat extract``: with or without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sprat.cli.connect import connect
from sprat.cli.output import (
    Json,
    Server,
    TlsCa,
    Token,
    print_json,
    print_table,
    read_file,
    read_texts,
)
from sprat.text.leaves import leaves, pointer, read
from sprat.values import ExtractResult, ExtractSpec, Field


def extract(
    model: Annotated[str, typer.Argument(help="A generative model, such as smollm2-135m.")],
    schema: Annotated[Path, typer.Option("--schema", help="File: the JSON Schema of an object.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts. Absent: one a line on stdin.", show_default=False),
    ] = None,
    instructions: Annotated[
        str, typer.Option("--instructions", help="What the texts are and what to look for.")
    ] = "",
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
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Fill the fields of a JSON Schema from each text; show where in the text they stand."""
    spec = ExtractSpec(
        model,
        read_file(schema, "--schema"),
        instructions,
        require_grounding=require_grounding,
        max_tokens=max_tokens,
    )
    given = read_texts(texts)
    with connect(server, models=[model], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.extract(spec, given, long_input="chunk" if chunk else "refuse")
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _report(result: ExtractResult) -> None:
    rows: list[tuple[object, ...]] = []
    for index, item in enumerate(result.items):
        if item is None:
            continue
        if item.value is None:
            rows.append((index, "", "(abstained)" if item.abstained else "(incomplete)", "", ""))
            continue
        values = {pointer(path): leaf.value for path, leaf in leaves(read(item.json))}
        rows += [(index, f.path, _shown(values[f.path]), f.score, _span(f)) for f in item.fields]
    print_table(["text", "path", "value", "score", "span"], rows, right="text score span")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _span(field: Field) -> str:
    return "" if field.start is None else f"{field.start}-{field.end}"
