"""``sprat eval`` of extract tasks: exact spans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli import comparisons
from sprat.cli.embedding import state_reader
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, print_table, progress
from sprat.cli.report_page import write_report

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.evaluate_spans import SpanReport


def evaluate_extract(
    bundles: Sequence[Bundle],
    data: Path,
    store: Store,
    *,
    tier: str | None,
    limits: Limits,
    html: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Evaluate a bundle of kind extract on texts with spans, and print the report.

    Parameters
    ----------
    bundles : sequence of Bundle
        The bundle, and perhaps another one to compare it with.
    tier : str or None
        That of the first bundle to evaluate by itself; None: what it answers.
    """
    from sprat.inprocess import Runtime
    from sprat.train.assess_spans import assess_tagger, compare_taggers
    from sprat.train.spans import read_spans

    rows = read_spans(data)
    manifests = [bundle.manifest for bundle in bundles]
    for manifest in manifests:
        rows.check_fields(manifest.labels)
    first, *others = bundles
    evaluated = [first if tier is None else first.alone(tier), *others]
    models = [bundle.manifest.tiers[-1].model.name for bundle in evaluated]
    with Runtime(models=sorted(set(models)), store=store) as runtime, progress("eval") as bar:
        assessed = [
            assess_tagger(bundle, rows, states=state_reader(runtime, model, bar), seed=seed)
            for bundle, model in zip(evaluated, models, strict=True)
        ]
    report = assessed[0].report
    comparison = compare_taggers(rows, *assessed, seed=seed) if len(assessed) > 1 else None
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, manifests[0], rows, tier=evaluated[0].manifest.tiers[-1].name)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(manifests[1], assessed[1].report, comparison)
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        show_span_report(report)
        if comparison is not None:
            comparisons.show_metrics(
                [each.report for each in assessed], [each.name for each in manifests]
            )
            comparisons.show_findings(comparison, "field")
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
