"""``sprat eval``: how good a bundle is on labelled rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.embedding import embedder
from sprat.cli.output import Json, print_json, print_table, progress

if TYPE_CHECKING:
    from sprat.train.evaluate import Report

SHOWN_CONFUSIONS = 5


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle by name, or by a path with /.")],
    data: Annotated[
        Path,
        typer.Argument(help="JSONL or CSV with `text` and `label`, not trained on."),
    ],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on labelled rows: accuracy, macro-F1, ECE, each with a 95 % interval."""
    from sprat.bundle import Bundle
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.data import read
    from sprat.train.head import evaluate_bundle

    store = Store()
    rows = read(data)
    manifest, folder = store.bundle(bundle)
    names = [tier.base.name for tier in manifest.tiers]
    loaded = Bundle.load(folder, bases={name: store.model(name)[0] for name in names})
    name = names[-1]
    with Runtime(models=[name], store=store) as runtime, progress("eval") as bar:
        report = evaluate_bundle(loaded, rows, embed=embedder(runtime, name, bar), seed=seed)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show_report(report)


def show_report(report: Report) -> None:
    """Print the figures of a classifier, its labels and what it confuses."""
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, getattr(report, name), "{:.3f} to {:.3f}".format(*report.intervals[name]))
            for name in ("accuracy", "macro_f1", "ece")
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
    typer.echo(
        f"{report.confident} answers above 0.9, {report.confident_wrong} of them wrong. "
        f"Perfect confidences would show an ECE of {report.ece_noise:.3f} on so few rows."
    )
