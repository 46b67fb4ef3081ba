"""``sprat transform``: with or without a server."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sprat.cli.connect import connect
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, read_file
from sprat.errors import InvalidInput
from sprat.values import Grammar, Sampling, TransformSpec


def transform(
    model: Annotated[str, typer.Argument(help="A generative model, such as smollm2-135m.")],
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", help="What to do, as in `Rewrite politely: {text}`; {{ and }} are braces."
        ),
    ],
    text: Annotated[
        str | None, typer.Argument(help="The text. Absent: stdin.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=VALUE", help="What stands for {NAME}; may be repeated."
        ),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="Answer with JSON that fits this JSON Schema.")
    ] = None,
    regex: Annotated[
        str | None, typer.Option("--regex", help="Answer with what this expression matches.")
    ] = None,
    lark: Annotated[
        Path | None, typer.Option("--lark", help="Answer with what this Lark grammar makes.")
    ] = None,
    lookup: Annotated[
        bool, typer.Option("--lookup/--no-lookup", help="Guess tokens from the text: faster.")
    ] = True,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens.")] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=10, help="0 is greedy.")
    ] = 0.0,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Rewrite a text by a prompt; stream the answer to stdout."""
    spec = TransformSpec(
        model,
        prompt,
        grammar=_grammar(schema, regex, lark),
        sampling=Sampling(max_tokens, temperature),
        lookup=lookup,
    )
    given = sys.stdin.read() if text is None else text
    pieces = []
    with connect(server, models=[model], token=token, tls_ca=tls_ca) as verbs:
        for chunk in verbs.transform(spec, given, inputs=_inputs(inputs or [])):
            pieces.append(chunk.text)
            if not as_json:
                typer.echo(chunk.text, nl=False)
                sys.stdout.flush()
    if as_json:
        print_json({**asdict(chunk), "text": "".join(pieces)})
        return
    typer.echo()
    if not chunk.complete:
        typer.echo(f"incomplete after {chunk.output_tokens} tokens", err=True)


def _grammar(schema: Path | None, regex: str | None, lark: Path | None) -> Grammar | None:
    if sum(given is not None for given in (schema, regex, lark)) > 1:
        raise InvalidInput("expected one of --schema, --regex and --lark", field="grammar")
    if schema is not None:
        return Grammar("json_schema", read_file(schema, "--schema"))
    if regex is not None:
        return Grammar("regex", regex)
    return None if lark is None else Grammar("lark", read_file(lark, "--lark"))


def _inputs(given: list[str]) -> dict[str, str]:
    made = {}
    for each in given:
        name, mark, value = each.partition("=")
        if not mark:
            raise InvalidInput("--input: expected NAME=VALUE", field="inputs")
        made[name] = value
    return made
