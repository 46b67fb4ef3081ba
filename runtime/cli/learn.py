"""``sprat train`` and ``sprat eval``: a bundle from examples, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from sprat.cli.output import Bar, Json, print_json, print_table, progress
from sprat.values import FloatArray

if TYPE_CHECKING:
    from sprat.inprocess import Runtime
    from sprat.train.evaluate import Report

EMBED_BATCH = 256
SHOWN_CONFUSIONS = 5


def train(
    data: Annotated[
        Path, typer.Argument(help="JSONL or CSV with `text` and `label`; 20 or more rows a label.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Name of the bundle in the store, or a path with /.")
    ],
    base: Annotated[str, typer.Option("--base", help="Encoder in the store.")] = "minilm-l6",
    kind: Annotated[str, typer.Option("--kind", help="Kind of task: classify.")] = "classify",
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Held-out rows. Absent: a share of the data is held out."),
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.05, max=0.5, help="Share that is held out.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of splits and resampling.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a classifier head on a frozen encoder, calibrate it, and evaluate it on held-out rows.

    The head is a multinomial logistic regression on sentence vectors. Its temperature is fitted on
    out-of-fold scores, so that no row is spent on calibration alone.
    """
    from sprat.bundle import write_bundle
    from sprat.inprocess import Runtime
    from sprat.manifest import BundleManifest, ModelRef
    from sprat.store import Store
    from sprat.train.data import read
    from sprat.train.head import train_classifier

    if kind != "classify":
        raise typer.BadParameter(f"expected classify, got {kind}", param_hint="--kind")
    store = Store()
    rows, held = read(data), None if test is None else read(test)
    reports: list[Report] = []

    with Runtime(models=[base], store=store) as runtime, progress("train") as bar:
        encoder, _ = store.model(base)

        def build(folder: Path) -> BundleManifest:
            manifest, report = train_classifier(
                rows,
                embed=embedder(runtime, base, bar),
                base=ModelRef(name=encoder.name, digest=encoder.digest),
                name=Path(out).name,
                out=folder,
                held_out=held_out,
                test=held,
                seed=seed,
                progress=bar,
            )
            reports.append(report)
            return manifest

        if "/" in out:
            manifest = write_bundle(Path(out), build, replace=replace)
        else:
            manifest, _ = store.add_bundle(out, build, replace=replace)
    if as_json:
        figures = reports[0].model_dump(mode="json")
        print_json({"name": manifest.name, "version": manifest.version, **figures})
    else:
        typer.echo(
            f"{manifest.name}: {len(manifest.labels)} labels, {manifest.train_rows} training rows, "
            f"temperature {manifest.temperature:.2f}, version {manifest.version}"
        )
        _show(reports[0])


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
    _, folder = store.bundle(bundle)
    name = Bundle.load(folder).manifest.base.name
    loaded = Bundle.load(folder, base=store.model(name)[0])
    with Runtime(models=[name], store=store) as runtime, progress("eval") as bar:
        report = evaluate_bundle(loaded, rows, embed=embedder(runtime, name, bar), seed=seed)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)


def embedder(runtime: Runtime, model: str, bar: Bar) -> Callable[[Sequence[str]], FloatArray]:
    """A function from texts to vectors; texts that are too long are cut, and it says how many."""

    def embed(texts: Sequence[str]) -> FloatArray:
        parts = []
        cut = 0
        bar.phase(f"embed {len(texts)} texts", total=len(texts))
        for start in range(0, len(texts), EMBED_BATCH):
            batch = texts[start : start + EMBED_BATCH]
            result = runtime.embed(model, batch, truncation="truncate")
            parts.append(result.vectors)
            cut += int(np.count_nonzero(result.dropped_tokens))
            bar.advance(len(batch))
        if cut:
            typer.echo(f"{cut} of {len(texts)} texts were too long and were cut", err=True)
        return np.concatenate(parts)

    return embed


def _show(report: Report) -> None:
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
