"""Limits of ``sprat eval``: a gate for continuous integration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sprat.bundle_manifest import ReportSummary
    from sprat.train.gates import Gate

Limits = Mapping[str, float | None]
"""By option, such as ``min-accuracy``; None sets no limit."""


def check(summary: ReportSummary, limits: Limits) -> tuple[Gate, ...]:
    """Judge the figures of an evaluation.

    Raises
    ------
    InvalidInput
        There is a limit for a figure that it does not have.
    """
    from sprat.train import gates

    return gates.check({name: each.value for name, each in summary.metrics.items()}, limits)


def as_json(gates: tuple[Gate, ...]) -> list[dict[str, object]]:
    """What a JSON document says of them."""
    return [gate.model_dump(mode="json") for gate in gates]


def judge(gates: tuple[Gate, ...]) -> None:
    """Say which limits were missed, and end with status 1 if any was."""
    missed = [gate for gate in gates if not gate.passed]
    for gate in missed:
        typer.echo(f"gate failed: {gate.message()}", err=True)
    if missed:
        raise typer.Exit(1)
