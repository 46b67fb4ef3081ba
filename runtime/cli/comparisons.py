"""What ``sprat eval --against`` says of two bundles or adapters on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from sprat.cli.output import print_table

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.manifest import AdapterManifest
    from sprat.train.compare import Comparison, FindingsComparison, PartComparison
    from sprat.train.evaluate_task import TaskComparison
    from sprat.train.page import AnyReport

SHOWN_LINES = 20


def as_json(
    manifest: BundleManifest | AdapterManifest, report: AnyReport, comparison: TaskComparison
) -> dict[str, Any]:
    """What a JSON document says of the other one, and of both together."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "report": report.model_dump(mode="json"),
        "comparison": comparison.model_dump(mode="json"),
    }


def show_metrics(reports: Sequence[AnyReport], names: Sequence[str]) -> None:
    """Print the figures of both beside each other."""
    first, second = (each.summary().metrics for each in reports)
    print_table(
        ["metric", "first", "second"],
        [(name, first[name].value, second[name].value) for name in first if name in second],
        title=f"First: {names[0]}. Second: {names[1]}.",
        right="first second",
    )


def show_rows(comparison: Comparison, *, figure: str = "Accuracy") -> None:
    """Print who answers which rows rightly.

    Parameters
    ----------
    figure : str
        What the share of right rows is called.
    """
    difference = comparison.difference
    typer.echo(
        f"{figure} differs by {difference.value:+.4f} ({difference.low:+.4f} to "
        f"{difference.high:+.4f}). Rows that only the first gets right: {comparison.only_first}; "
        f"only the second: {comparison.only_second}; both: {comparison.both_right}; neither: "
        f"{comparison.both_wrong}. {comparison.message()}"
    )
    if comparison.disagreements:
        lines = [str(each.line) for each in comparison.disagreements]
        more = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
        typer.echo(f"They differ in lines {', '.join(lines[:SHOWN_LINES])}{more}; --json has all.")


def show_findings(comparison: FindingsComparison, what: str) -> None:
    """Print how two bundles of kind moderate or extract differ, or adapters for extract.

    Parameters
    ----------
    what : str
        ``category`` or ``field``.
    """
    _show_parts(comparison.parts, what, title="F1")
    difference = comparison.micro_f1.difference
    typer.echo(
        f"Micro-F1 differs by {difference.value:+.4f} ({difference.low:+.4f} to "
        f"{difference.high:+.4f}). {comparison.message()}"
    )
    show_rows(comparison.rows, figure="The share of rows without a mistake")


def show_task(comparison: TaskComparison) -> None:
    """Print how two adapters differ, whatever kind of task they are for."""
    from sprat.train.compare import Comparison, FindingsComparison

    if isinstance(comparison, Comparison):
        show_rows(comparison)
    elif isinstance(comparison, FindingsComparison):
        show_findings(comparison, "field")
    else:
        _show_parts(comparison.parts, "metric", title="Means over the rows")
        show_rows(comparison.rows, figure="Exact match")


def _show_parts(parts: Sequence[PartComparison], what: str, *, title: str) -> None:
    print_table(
        [what, "first", "second", "difference", "95 % interval"],
        [
            (
                each.name,
                each.first,
                each.second,
                f"{each.difference.value:+.4f}",
                f"{each.difference.low:+.4f} to {each.difference.high:+.4f}",
            )
            for each in parts
        ],
        title=title,
        right="first second difference",
    )
