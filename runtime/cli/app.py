"""Binds the commands, and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from sprat import __version__
from sprat.cli import (
    adapters,
    add_tier,
    bulk,
    decide,
    distil,
    doctor,
    drift,
    evaluate,
    evaluate_transform,
    explain,
    extract,
    feedback,
    inspect,
    log,
    moderate,
    quantize,
    route,
    serving,
    static,
    store_commands,
    train,
    transform,
    tune,
    use,
)
from sprat.errors import SpratError

app = typer.Typer(
    name="sprat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Small, quantized language models on ordinary CPUs, privately, behind gRPC.

First steps:

    sprat pull minilm-l6
    sprat train tickets.jsonl --base minilm-l6 -o tickets
    sprat serve --task tickets
    sprat classify tickets "Where is my parcel?" --server default

Models live in SPRAT_HOME (by default the user's data folder). After `sprat pull` nothing needs a
network.
Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.
""",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


app.command(rich_help_panel="Models")(store_commands.pull)
app.command(rich_help_panel="Models")(store_commands.models)
app.command(rich_help_panel="Models")(store_commands.remove)
app.command(rich_help_panel="Models")(quantize.quantize)
app.command(rich_help_panel="Models")(static.static)
app.add_typer(adapters.app, name="adapters", rich_help_panel="Models")
app.command(rich_help_panel="Training")(train.train)
app.command("eval", rich_help_panel="Training")(evaluate.evaluate)
app.command(rich_help_panel="Training")(inspect.inspect)
app.command("eval-transform", rich_help_panel="Training")(evaluate_transform.evaluate_transform)
app.command("add-tier", rich_help_panel="Training")(add_tier.add_tier)
app.command(rich_help_panel="Training")(tune.tune)
app.command(rich_help_panel="Training")(distil.label)
app.command(rich_help_panel="Training")(distil.synthesize)
app.command(rich_help_panel="Serving")(serving.serve)
app.command(rich_help_panel="Serving")(serving.token)
app.add_typer(log.app, name="log", rich_help_panel="Serving")
app.command(rich_help_panel="Serving")(drift.drift)
app.command(rich_help_panel="Serving")(serving.bench)
app.command(rich_help_panel="Use")(use.classify)
app.command(rich_help_panel="Use")(moderate.moderate)
app.command(rich_help_panel="Use")(route.route)
app.command(rich_help_panel="Use")(explain.explain)
app.command(rich_help_panel="Use")(decide.decide)
app.command(rich_help_panel="Use")(extract.extract)
app.command(rich_help_panel="Use")(transform.transform)
app.command(rich_help_panel="Use")(use.embed)
app.command(rich_help_panel="Use")(use.generate)
app.command("run", rich_help_panel="Use")(bulk.run)
app.command(rich_help_panel="Use")(feedback.feedback)
app.command(rich_help_panel="This machine")(doctor.doctor)


def run() -> None:
    """Run the command line; expected errors end with one line and status 1."""
    try:
        app()
    except SpratError as error:
        typer.echo(f"error: {error.message}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away, as in `sprat models | head -1`.
        sys.stderr.close()
        sys.exit(1)
