"""``sprat quantize``: a smaller, faster form of a model, kept only where it is as good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.output import Json, megabytes, print_json, print_table, progress

if TYPE_CHECKING:
    from sprat.manifest import GateFigure
    from sprat.quantize.choose import Candidate


def quantize(
    model: Annotated[
        str, typer.Argument(help="A model in the store that has its published weights.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Name of the new model in the store.")],
    gate: Annotated[
        Path,
        typer.Option(
            "--gate",
            help="What it is judged on: .jsonl or .csv with `text` and `label`, or .txt with a "
            "text on each line. Not what it was trained or calibrated with.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Weight type: int8, int8_unsaturated (the same vectors on every CPU) or "
            "float32 for an encoder; q8_0, q4_0 or iq4_nl for a language model; auto: the fastest "
            "on this machine of those that pass.",
        ),
    ] = "auto",
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="A bundle on the encoder that classifies or routes: its answers are compared.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="Texts like those to come, which guide how a language model's weights are "
            "rounded to 4 bits (an importance matrix). Same formats, other rows than of --gate.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="FIGURE=VALUE",
            help="Another limit than the default, such as kl_mean=0.02. May be repeated.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the model.")] = False,
    as_json: Json = False,
) -> None:
    """Quantize a model, compare it with what it was made from, and keep it only if it passes.

    An encoder is compared with float32: the cosine of sentence vectors, and with --task how often
    the answers agree, and what is lost of accuracy and calibration. A language model is compared
    with f16 of its published weights: the divergence of what it expects after each token, how
    often the most probable token is the same, perplexity; and on rows with labels, its choices.

    Defaults: cosine_mean >= 0.995, cosine_p1 >= 0.98, agreement >= 0.98, accuracy_drop <= 0.005,
    ece_rise <= 0.01, wrong_above_rise <= 0.005. For q8_0: kl_mean <= 0.01, kl_p99 <= 0.1,
    same_top >= 0.93, perplexity_rise <= 0.02, accuracy_drop <= 0.005; for 4 bits: 0.05, 0.5, 0.9,
    0.05 and 0.01.

    Where a limit is missed, nothing is kept and the exit status is 1.
    """
    from sprat.quantize import choose, gate_rows
    from sprat.store import Store

    request = choose.Request(
        base=model,
        to=to,
        name=out,
        rows=gate_rows.read(gate),
        task=task,
        calibration=None if calibrate is None else gate_rows.read(calibrate),
        limits=dict(map(_parse_limit, limit or ())),
        replace=replace,
    )
    with progress(f"quantize {model}") as bar:
        outcome = choose.quantize(request, Store(), bar)
    kept = outcome.manifest
    if as_json:
        print_json(
            {
                "model": None if kept is None else kept.name,
                "version": None if kept is None else kept.version,
                "quantization": None if kept is None else kept.quantization,
                "candidates": [_described(each) for each in outcome.candidates],
            }
        )
    else:
        for each in outcome.candidates:
            _show(each)
        if kept is not None:
            typer.echo(f"{kept.name}: {kept.quantization}, version {kept.version}")
    if kept is None:
        missed = ", ".join(
            f"{each.quantization}: {_missed(each.figures)}" for each in outcome.candidates
        )
        typer.echo(f"error: the gate failed and nothing was kept ({missed})", err=True)
        raise typer.Exit(1)


def _parse_limit(given: str) -> tuple[str, float]:
    name, _, value = given.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(
            f"expected FIGURE=NUMBER, got {given}", param_hint="--limit"
        ) from None


def _described(candidate: Candidate) -> dict[str, object]:
    return {
        "quantization": candidate.quantization,
        "passed": candidate.passed,
        "size_bytes": candidate.size_bytes,
        "figures": [
            {**figure.model_dump(mode="json"), "met": figure.is_met} for figure in candidate.figures
        ],
        "speeds": candidate.speeds,
    }


def _show(candidate: Candidate) -> None:
    speeds = "".join(f", {name} {value:.0f}" for name, value in candidate.speeds.items())
    print_figures(
        candidate.figures,
        title=f"{candidate.quantization}, {megabytes(candidate.size_bytes)}{speeds}",
    )


def print_figures(figures: Sequence[GateFigure], *, title: str) -> None:
    """The figures of a gate with their limits, as a table."""
    print_table(
        ["figure", "value", "limit", ""],
        [(f.name, f"{f.value:.4f}", _limit(f), "" if f.is_met else "missed") for f in figures],
        title=title,
        right="value limit",
    )


def _limit(figure: GateFigure) -> str:
    if figure.at_least is not None:
        return f">= {figure.at_least:g}"
    return "" if figure.at_most is None else f"<= {figure.at_most:g}"


def _missed(figures: Sequence[GateFigure]) -> str:
    return ", ".join(f"{f.name} {f.value:.4f}, {_limit(f)} asked" for f in figures if not f.is_met)
