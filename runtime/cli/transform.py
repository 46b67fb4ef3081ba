"""``sprat transform``: with or without a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import Json, Server, TlsCa, Token, print_json, read_file
from sprat.cli.tiers import AcceptAt, BudgetMs, MaxTier, refuse
from sprat.errors import InvalidInput
from sprat.values import Chunk, Effort, Grammar, Sampling, TransformSpec

Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=VALUE", help="What stands for {NAME}; may be repeated."),
]


def transform(
    task: Annotated[
        str,
        typer.Argument(
            help="A transform task of the server; without one, a bundle by name or path. "
            "With --prompt, a generative model, such as smollm2-135m."
        ),
    ],
    text: Annotated[
        str | None, typer.Argument(help="The text. Absent: stdin.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="What to do, as in `Rewrite politely: {text}`; {{ and }} are braces."
        ),
    ] = None,
    inputs: Inputs = None,
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
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Rewrite a text by a task, or a prompt; stream the answer to stdout.

    A bundle of several tiers answers with the first that is sure enough; what another one may still
    replace is not shown.
    """
    spec: str | TransformSpec = task
    grammar = _grammar(schema, regex, lark)
    effort = Effort(max_tier, accept_at, budget_ms)
    where: dict[str, Sequence[str]]
    if prompt is None:
        if grammar is not None:
            raise InvalidInput(
                "--schema, --regex, --lark: expected --prompt beside it", field="grammar"
            )
        where = {"tasks": [task]}
    else:
        refuse(effort, "--prompt")
        spec = TransformSpec(
            task,
            prompt,
            grammar=grammar,
            sampling=Sampling(max_tokens, temperature),
            lookup=lookup,
        )
        where = {"models": [task]}
    values = read_inputs(inputs)
    given = sys.stdin.read() if text is None else text
    pieces = []
    with connect(server, **where, token=token, tls_ca=tls_ca) as verbs:
        if isinstance(spec, str):
            spec = task_name(spec, server)
        chunks = verbs.transform(
            spec,
            given,
            inputs=values,
            max_tier=max_tier,
            accept_at=accept_at,
            budget_ms=budget_ms,
        )
        for chunk in chunks:
            pieces.append(chunk.text)
            if not as_json:
                typer.echo(chunk.text, nl=False)
                sys.stdout.flush()
    if as_json:
        print_json({**asdict(chunk), "text": "".join(pieces)})
        return
    typer.echo()
    if said := _said(chunk):
        typer.echo(", ".join(said), err=True)


def _said(last: Chunk) -> list[str]:
    """What there is to say of an answer beside its text."""
    said = []
    if last.abstained:
        said.append("abstained")
    elif not last.complete:
        said.append(f"incomplete after {last.output_tokens} tokens")
    if last.tiers:
        said.append(f"tier {last.tier}{f' ({last.degraded})' if last.degraded else ''}")
    if last.confidence is not None:
        said.append(f"confidence {last.confidence:.3f}")
    if last.request_id:
        said.append(f"request {last.request_id}")
    return said


def _grammar(schema: Path | None, regex: str | None, lark: Path | None) -> Grammar | None:
    if sum(given is not None for given in (schema, regex, lark)) > 1:
        raise InvalidInput("expected one of --schema, --regex and --lark", field="grammar")
    if schema is not None:
        return Grammar("json_schema", read_file(schema, "--schema"))
    if regex is not None:
        return Grammar("regex", regex)
    return None if lark is None else Grammar("lark", read_file(lark, "--lark"))


def read_inputs(given: Sequence[str] | None) -> dict[str, str]:
    """What options of `Inputs` say.

    Raises
    ------
    InvalidInput
        One has no ``=``.
    """
    made = {}
    for each in given or ():
        name, mark, value = each.partition("=")
        if not mark:
            raise InvalidInput("--input: expected NAME=VALUE", field="inputs")
        made[name] = value
    return made
