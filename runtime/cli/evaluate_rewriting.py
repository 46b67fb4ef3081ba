"""``sprat eval`` of bundles of kind transform: their cascade, or one of their tiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sprat.cli import comparisons
from sprat.cli.endpoints import EndpointUse
from sprat.cli.labelled import read_labelled
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, progress
from sprat.cli.report_page import write_report
from sprat.cli.reports import show_rewriting

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store


def evaluate_rewritings(
    bundles: Sequence[Bundle],
    data: Path,
    store: Store,
    *,
    tier: str | None,
    use: EndpointUse | None,
    limits: Limits,
    threshold: float | None,
    html: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Evaluate a bundle on rows with ``text`` and ``target``, and print the report.

    Parameters
    ----------
    bundles : sequence of Bundle
        The bundle, and perhaps another one to compare it with.
    """
    from sprat.train.asked_tiers import tier_opener
    from sprat.train.assess_rewriting import assess_rewriting, compare_assessments
    from sprat.train.evaluate import SURE
    from sprat.train.wanted import Wanted

    chosen = [bundles[0] if tier is None else bundles[0].alone(tier), *bundles[1:]]
    # Rows that one of them cannot be asked about are found before any is.
    read = [read_labelled(data, each.manifest) for each in chosen]
    try:
        with progress("eval") as bar:
            assessed = [
                assess_rewriting(
                    each,
                    rows,
                    engine_of=lambda model: store.model(model)[0].engine,
                    open_tier=tier_opener(store, None if use is None else use.open),
                    remote_cost_ms=None if use is None else use.cost_ms,
                    threshold=SURE if threshold is None else threshold,
                    seed=seed,
                    progress=bar,
                )
                for each, rows in zip(chosen, read, strict=True)
                if isinstance(rows, Wanted)
            ]
        if use is not None:
            use.done()
    finally:
        if use is not None:
            use.close()
    report = assessed[0].report
    comparison = compare_assessments(*assessed, seed=seed) if len(assessed) > 1 else None
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, bundles[0].manifest, read[0], tier=tier)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(
                bundles[1].manifest, assessed[1].report, comparison
            )
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        show_rewriting(report)
        if comparison is not None:
            comparisons.show_metrics(
                [each.report for each in assessed], [each.manifest.name for each in bundles]
            )
            comparisons.show_task(comparison)
    judge(gates)
