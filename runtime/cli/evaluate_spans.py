"""``sprat eval`` of extract tasks: exact spans of taggers, strings where tiers ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli import comparisons
from sprat.cli.embedding import state_opener
from sprat.cli.endpoints import EndpointUse, check_endpoint
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import Bar, print_json, print_table, progress
from sprat.cli.report_page import write_report
from sprat.cli.reports import show_extract_cascade, show_task

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.assess_spans import SpanAssessment
    from sprat.train.evaluate_extract import ExtractReport
    from sprat.train.evaluate_extract_cascade import ExtractCascadeReport
    from sprat.train.evaluate_spans import SpanReport
    from sprat.train.spans import SpanDataset


def evaluate_extract(
    bundles: Sequence[Bundle],
    data: Path,
    store: Store,
    *,
    tier: str | None,
    use: EndpointUse | None,
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
    use : EndpointUse or None
        Whom remote tiers ask.
    """
    from sprat.train.assess_spans import compare_tiers
    from sprat.train.spans import read_spans

    rows = read_spans(data)
    manifests = [bundle.manifest for bundle in bundles]
    for manifest in manifests:
        rows.check_fields(manifest.labels)
    first, *others = bundles
    evaluated = [first if tier is None else first.alone(tier), *others]
    check_endpoint([each.manifest for each in evaluated], list(map(_places, evaluated)), use)
    try:
        with progress("eval") as bar:
            assessed = [_assess(store, bundle, rows, use, bar, seed) for bundle in evaluated]
        if use is not None:
            use.done()
    finally:
        if use is not None:
            use.close()
    report = assessed[0].report
    comparison = compare_tiers(rows, *assessed, seed=seed) if len(assessed) > 1 else None
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, manifests[0], rows, tier=tier)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(manifests[1], assessed[1].report, comparison)
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        _show(report)
        if comparison is not None:
            comparisons.show_metrics(
                [each.report for each in assessed], [each.name for each in manifests]
            )
            comparisons.show_findings(comparison, "field")
    judge(gates)


def _places(bundle: Bundle) -> tuple[int, ...]:
    """The tiers that are evaluated: all of a cascade, else the last one."""
    places = tuple(range(len(bundle.manifest.tiers)))
    return places if len(bundle.manifest.answering) > 1 else places[-1:]


def _assess(
    store: Store,
    bundle: Bundle,
    rows: SpanDataset,
    use: EndpointUse | None,
    bar: Bar,
    seed: int,
) -> SpanAssessment:
    """Evaluate what a bundle answers: its cascade, or its last tier."""
    from sprat.train.asked_tiers import tier_opener
    from sprat.train.assess_spans import assess_asked, assess_extract_cascade, assess_tagger

    manifest = bundle.manifest
    *_, last = manifest.tiers
    open_states = state_opener(store, bar)
    open_tier = tier_opener(store, None if use is None else use.open)
    if len(_places(bundle)) > 1:
        return assess_extract_cascade(
            bundle,
            rows,
            engine_of=lambda model: store.model(model)[0].engine,
            open_states=open_states,
            open_tier=open_tier,
            remote_cost_ms=None if use is None else use.cost_ms,
            seed=seed,
            progress=bar,
        )
    if last.weights:
        with open_states(last.model.name) as states:
            return assess_tagger(bundle, rows, states=states, seed=seed)
    with open_tier(manifest, len(manifest.tiers) - 1) as ask:
        bar.phase(f"ask about {len(rows)} texts", total=len(rows))
        return assess_asked(manifest, rows, ask=ask, seed=seed, progress=bar)


def _show(report: SpanReport | ExtractReport | ExtractCascadeReport) -> None:
    from sprat.train.evaluate_extract import ExtractReport
    from sprat.train.evaluate_extract_cascade import ExtractCascadeReport

    if isinstance(report, ExtractCascadeReport):
        show_extract_cascade(report)
    elif isinstance(report, ExtractReport):
        show_task(report)
    else:
        show_span_report(report)


def show_span_report(report: SpanReport) -> None:
    """Print the figures of a tagger and of its fields."""
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, each.value, f"{each.low:.3f} to {each.high:.3f}")
            for name, each in report.summary().metrics.items()
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
