"""``sprat eval``: how good a bundle is on labelled rows, alone or beside another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.embedding import embedder
from sprat.cli.evaluate_moderator import evaluate_moderator
from sprat.cli.evaluate_spans import evaluate_extract
from sprat.cli.limits import as_json as limits_json
from sprat.cli.limits import check, judge
from sprat.cli.output import Bar, Json, print_json, print_table, progress, write_file
from sprat.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.bundle_manifest import BundleManifest
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.assess import Assessment
    from sprat.train.compare import Comparison
    from sprat.train.data import Dataset
    from sprat.train.report import Report

SHOWN_CONFUSIONS = 5
SHOWN_LINES = 20
LIMITS = "Limits: exit with status 1 when one is missed"

Tier = Annotated[
    str | None, typer.Option("--tier", help="Tier to evaluate. Absent: the last, which answers.")
]


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle by name, or by a path with /.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="JSONL or CSV with `text` and `label`, or JSONL with `text` and `spans` for an "
            "extract task; not trained on."
        ),
    ],
    tier: Tier = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Another bundle: which one is better on these rows, or neither?"
        ),
    ] = None,
    out_of_scope_label: Annotated[
        str | None,
        typer.Option(
            "--out-of-scope-label",
            help="Label of rows that belong to none of the bundle's labels: does it stay unsure?",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", min=0, max=1, help="Confidence from which on an answer counts as sure."
        ),
    ] = 0.9,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a report with plots to this file; it opens offline."),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", rich_help_panel=LIMITS)
    ] = None,
    min_macro_f1: Annotated[
        float | None, typer.Option("--min-macro-f1", rich_help_panel=LIMITS)
    ] = None,
    min_micro_f1: Annotated[
        float | None,
        typer.Option(
            "--min-micro-f1", help="Of extract and moderate tasks.", rich_help_panel=LIMITS
        ),
    ] = None,
    max_ece: Annotated[float | None, typer.Option("--max-ece", rich_help_panel=LIMITS)] = None,
    max_wrong_above: Annotated[
        float | None,
        typer.Option(
            "--max-wrong-above",
            help="Share of all rows that are answered wrongly with --threshold or more.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    clean_label: Annotated[
        str | None,
        typer.Option("--clean-label", help="Of a moderate task: the label of clean texts."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on labelled rows, each figure with its 95 % interval.

    Quality (accuracy, macro-F1, per label), calibration (ECE, Brier score, log-likelihood), and
    what thresholds are worth (risk and coverage, sure and wrong answers). With limits it is a gate
    for continuous integration:

        sprat eval tickets new.jsonl --min-accuracy 0.93 --max-ece 0.03

    `--against` compares two bundles row by row: the exact McNemar test says whether the difference
    could be luck.

    Of an extract task: micro-F1 of exact spans, precision, recall, and the same of each field.
    """
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.assess import compare_assessments
    from sprat.train.data import read

    limits = {
        "min-accuracy": min_accuracy,
        "min-macro-f1": min_macro_f1,
        "min-micro-f1": min_micro_f1,
        "max-ece": max_ece,
        "max-wrong-above": max_wrong_above,
    }
    store = Store()
    kind = store.bundle(bundle)[0].kind
    if kind in ("moderate", "extract"):
        for option, value in (
            *(("tier", tier), ("against", against), ("html", html)),
            ("out-of-scope-label", out_of_scope_label),
        ):
            if value is not None:
                raise InvalidInput(
                    f"--{option}: expected a classify or route task, not {kind}", field=option
                )
    if kind == "moderate":
        evaluate_moderator(
            bundle, data, clean_label=clean_label, limits=limits, seed=seed, as_json=as_json
        )
        return
    if clean_label is not None:
        raise InvalidInput("--clean-label: expected a moderate task", field="clean-label")
    if kind == "extract":
        evaluate_extract(
            load_bundle(store, bundle), data, store, limits=limits, seed=seed, as_json=as_json
        )
        return
    rows = read(data)
    names = [bundle] if against is None else [bundle, against]
    loaded = [load_bundle(store, name) for name in names]
    tiers = [_tier(loaded[0], tier), *(len(each.heads) - 1 for each in loaded[1:])]
    models = [each.manifest.tiers[i].base.name for each, i in zip(loaded, tiers, strict=True)]
    assessed: list[Assessment] = []
    with Runtime(models=sorted(set(models)), store=store) as runtime, progress("eval") as bar:
        for each, i, model in zip(loaded, tiers, models, strict=True):
            assessed.append(
                _assess(
                    *(runtime, each, rows, i, model, bar),
                    out_of_scope_label=out_of_scope_label,
                    threshold=threshold,
                    seed=seed,
                )
            )
    report = assessed[0].report
    comparison = None if against is None else compare_assessments(*assessed, seed=seed)
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, loaded[0].manifest, tiers[0], rows)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = {
                "name": loaded[1].manifest.name,
                "version": loaded[1].manifest.version,
                "report": assessed[1].report.model_dump(mode="json"),
                "comparison": comparison.model_dump(mode="json"),
            }
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        show_report(report)
        if comparison is not None:
            _show_comparison(comparison, [each.manifest.name for each in loaded], assessed)
    judge(gates)


def load_bundle(store: Store, name: str) -> Bundle:
    """A bundle with all its tiers, checked against the models of the store."""
    from sprat.bundle import Bundle

    manifest, folder = store.bundle(name)
    bases = {tier.base.name: store.model(tier.base.name)[0] for tier in manifest.tiers}
    return Bundle.load(folder, bases=bases)


def _tier(bundle: Bundle, name: str | None) -> int:
    names: list[str] = [tier.name for tier in bundle.manifest.tiers]
    if name is None:
        return len(names) - 1
    if name not in names:
        raise NotFound("tier", name, tuple(names))
    return names.index(name)


def _assess(
    runtime: Runtime,
    bundle: Bundle,
    rows: Dataset,
    tier: int,
    model: str,
    bar: Bar,
    *,
    out_of_scope_label: str | None,
    threshold: float,
    seed: int,
) -> Assessment:
    from sprat.train.assess import assess

    return assess(
        bundle,
        rows,
        embed=embedder(runtime, model, bar),
        tier=tier,
        out_of_scope_label=out_of_scope_label,
        threshold=threshold,
        seed=seed,
    )


def write_report(
    path: Path,
    report: Report,
    manifest: BundleManifest,
    tier: int,
    rows: Dataset,
    *,
    learning: tuple[list[int], list[float]] | None = None,
) -> None:
    """Write an evaluation as an HTML file.

    Parameters
    ----------
    tier : int
        Index of the tier that was evaluated.
    rows : Dataset
        That it was evaluated on.
    learning : (list of int, list of float), optional
        Training rows and accuracies of a learning curve.

    Raises
    ------
    StoreError
        When the file cannot be written.
    """
    from sprat.train.page import page

    evaluated = manifest.tiers[tier]
    facts = {
        "Bundle": f"{manifest.name}, version {manifest.version}, {manifest.kind}",
        "Trained": f"{manifest.created} by {manifest.made_by} on {manifest.train_rows:,} rows",
        "Tier": f"{evaluated.name} on {evaluated.base.name} {evaluated.base.digest[:12]}",
        "Data": f"{Path(rows.path).name}, {len(rows):,} rows, sha256 {rows.sha256[:12]}",
    }
    write_file(path, page(report, title=manifest.name, facts=facts, learning=learning))


def show_report(report: Report) -> None:
    """Print the figures of a classifier, its labels and what it confuses."""
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, getattr(report, name), "{:.3f} to {:.3f}".format(*report.intervals[name]))
            for name in report.intervals
        ],
        title=f"Evaluation on {report.n} held-out rows",
        right="value",
    )
    print_table(
        ["label", "precision", "recall", "f1", "rows"],
        [(r.label, r.precision, r.recall, r.f1, r.support) for r in report.labels],
        right="precision recall f1 rows",
    )
    if report.confusions:
        print_table(
            ["rows of", "answered as", "how many"],
            [(c.label, c.predicted, c.count) for c in report.confusions[:SHOWN_CONFUSIONS]],
            right="how many",
        )
    for point in report.risk_points:
        typer.echo(
            f"Accepting from {point.accept_at:.3f} answers {point.coverage:.1%} of the rows with "
            f"{point.risk:.2%} wrong."
        )
    typer.echo(
        f"{report.above:.1%} of the rows are answered with a confidence of {report.threshold:g} or "
        f"more, {report.wrong_above:.2%} wrongly. Perfect confidences would show an ECE of "
        f"{report.ece_noise:.3f} on so few rows."
    )


def _show_comparison(comparison: Comparison, names: list[str], assessed: list[Assessment]) -> None:
    first, second = (each.report for each in assessed)
    print_table(
        ["metric", "first", "second"],
        [(name, getattr(first, name), getattr(second, name)) for name in first.intervals],
        title=f"First: {names[0]}. Second: {names[1]}.",
        right="first second",
    )
    difference = comparison.difference
    typer.echo(
        f"Accuracy differs by {difference.value:+.4f} ({difference.low:+.4f} to "
        f"{difference.high:+.4f}). Rows that only the first gets right: {comparison.only_first}; "
        f"only the second: {comparison.only_second}; both: {comparison.both_right}; neither: "
        f"{comparison.both_wrong}. {comparison.message()}"
    )
    if comparison.disagreements:
        lines = [str(each.line) for each in comparison.disagreements]
        more = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
        typer.echo(f"They differ in lines {', '.join(lines[:SHOWN_LINES])}{more}; --json has all.")
