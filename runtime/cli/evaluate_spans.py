"""``sprat eval`` of extract tasks: exact spans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli.embedding import state_reader
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, print_table, progress

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.evaluate_spans import SpanReport


def evaluate_extract(
    bundle: Bundle, data: Path, store: Store, *, limits: Limits, seed: int, as_json: bool
) -> None:
    """Evaluate a bundle of kind extract on texts with spans, and print the report."""
    from sprat.inprocess import Runtime
    from sprat.train.spans import read_spans
    from sprat.train.tagger import evaluate_tagger

    rows = read_spans(data)
    rows.check_fields(bundle.manifest.labels)
    name = bundle.manifest.tiers[-1].base.name
    with Runtime(models=[name], store=store) as runtime, progress("eval") as bar:
        states = state_reader(runtime, name, bar)
        report = evaluate_tagger(bundle, rows, states=states, seed=seed)
    gates = check(report.summary(), limits)
    if as_json:
        print_json({**report.model_dump(mode="json"), "gates": limits_json(gates)})
    else:
        show_span_report(report)
    judge(gates)


def show_span_report(report: SpanReport) -> None:
    """Print the figures of a tagger and of its fields."""
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, getattr(report, name), "{:.3f} to {:.3f}".format(*report.intervals[name]))
            for name in ("micro_f1", "precision", "recall", "whole_rows", "ece")
        ],
        title=f"Exact spans on {report.n} held-out rows",
        right="value",
    )
    print_table(
        ["field", "precision", "recall", "f1", "spans"],
        [(f.label, f.precision, f.recall, f.f1, f.support) for f in report.fields],
        right="precision recall f1 spans",
    )
    wrong = report.predicted - report.right
    typer.echo(
        f"{wrong} of {report.predicted} spans found are wrong: {report.misplaced} of them overlap "
        f"one of their field, {report.misnamed} are of another field. Perfect confidences would "
        f"show an ECE of {report.ece_noise:.3f} on so few spans."
    )
