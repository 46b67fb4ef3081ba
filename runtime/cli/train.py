"""``sprat train``: a bundle from examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.embedding import embedder
from sprat.cli.evaluate import show_report
from sprat.cli.output import Json, print_json, progress

if TYPE_CHECKING:
    from sprat.train.evaluate import Report


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
            f"version {manifest.version}"
        )
        show_report(reports[0])
