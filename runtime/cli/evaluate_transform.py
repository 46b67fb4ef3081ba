"""``sprat eval-transform``: how good a rewriting is, with or without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.connect import connect, require_server
from sprat.cli.output import (
    Json,
    Server,
    TlsCa,
    Token,
    print_json,
    progress,
    read_file,
)
from sprat.cli.reports import show_transform
from sprat.errors import InvalidInput
from sprat.values import Grammar, Sampling, TransformSpec

if TYPE_CHECKING:
    from sprat.client import Client
    from sprat.inprocess import Runtime


def evaluate_transform(
    model: Annotated[
        str,
        typer.Argument(
            help="A generative model, such as smollm2-135m; or a transform task of the server or "
            "the configuration."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(help="JSONL or CSV with `text` and `target`, not trained on."),
    ],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="What to do, as in `sprat transform`."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="FIELD", help="A field that stands for {FIELD}; may be repeated."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Configuration that has the task, in place of a server."),
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="A LoRA adapter of the model; see `sprat adapters`.")
    ] = "",
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            help="JSON Schema: report how many answers fit it, and compare answers as JSON.",
        ),
    ] = None,
    constrain: Annotated[
        bool,
        typer.Option("--constrain", help="With --schema: let the model write nothing else."),
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens.")] = 256,
    min_exact_match: Annotated[
        float | None,
        typer.Option(
            "--min-exact-match", min=0, max=1, help="Exit with status 1 below this exact match."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Evaluate rewriting: exact match, edit similarity and valid JSON, each with a 95 % interval.

    Answers are greedy, so that the same model gives the same figures.
    """
    from sprat.train.evaluate_transform import (
        Rewritten,
        evaluate_transform,
        validator,
    )
    from sprat.train.wanted import read_wanted

    wanted = read_wanted(data, inputs or ())
    source = None if schema is None else read_file(schema, "--schema")
    if source is not None:
        validator(source)
    if constrain and source is None:
        raise InvalidInput("--constrain: expected --schema beside it", field="constrain")
    spec: str | TransformSpec = model
    if prompt is None:
        if config is None:
            require_server(server, "a prompt with --prompt")
    else:
        grammar = Grammar("json_schema", source) if constrain and source is not None else None
        spec = TransformSpec(
            model, prompt, grammar=grammar, sampling=Sampling(max_tokens), adapter=adapter
        )
    answers = []
    with (
        _open(model, adapter, config, server, token, tls_ca) as verbs,
        progress("eval", total=len(wanted.texts)) as bar,
    ):
        for text, values in zip(wanted.texts, wanted.inputs, strict=True):
            pieces = []
            for chunk in verbs.transform(spec, text, inputs=values):
                pieces.append(chunk.text)
            answers.append(Rewritten("".join(pieces), chunk.complete))
            bar.advance(1)
    report = evaluate_transform(answers, wanted, schema=source, seed=seed)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show_transform(report)
    exact = report.metrics["exact_match"].value
    if min_exact_match is not None and exact < min_exact_match:
        typer.echo(f"exact match {exact:.3f} is below {min_exact_match:g}", err=True)
        raise typer.Exit(1)


def _open(
    model: str,
    adapter: str,
    config: Path | None,
    server: str | None,
    token: str | None,
    tls_ca: str | None,
) -> Client | Runtime:
    """As `connect`, with a configuration's tasks or a model's adapter in process."""
    if server is not None:
        return connect(server, token=token, tls_ca=tls_ca)
    from sprat.config import Config, ModelConfig, load
    from sprat.inprocess import Runtime

    if config is not None:
        return Runtime(config=load(config))
    adapters = (adapter,) if adapter else ()
    return Runtime(config=Config(models={model: ModelConfig(adapters=adapters)}))
