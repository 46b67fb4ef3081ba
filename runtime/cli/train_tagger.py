"""The trainer of extract tasks: a tagger on the token states of a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli.embedding import state_reader
from sprat.cli.evaluate_spans import show_span_report
from sprat.cli.output import print_json, progress
from sprat.cli.train_heads import write_out
from sprat.cli.train_request import TrainRequest
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.train.evaluate_spans import SpanReport


def train_tagger(request: TrainRequest) -> None:
    """Fit a tagger, write the bundle, print how good it is."""
    from sprat.inprocess import Runtime
    from sprat.manifest import ModelRef
    from sprat.store import Store
    from sprat.train import tagger
    from sprat.train.spans import read_spans

    _check(request)
    rows = read_spans(request.data)
    held = None if request.test is None else read_spans(request.test)
    store = Store()
    reports: list[SpanReport] = []
    with Runtime(models=[request.base], store=store) as runtime, progress("train") as bar:
        model, _ = store.model(request.base)

        def build(folder: Path) -> BundleManifest:
            manifest, report = tagger.train_tagger(
                rows,
                states=state_reader(runtime, request.base, bar),
                base=ModelRef(name=model.name, digest=model.digest),
                name=Path(request.out).name,
                out=folder,
                held_out=request.held_out,
                test=held,
                conflicts=request.conflicts,
                accept_at=request.accept_at,
                seed=request.seed,
                progress=bar,
            )
            reports.append(report)
            return manifest

        manifest = write_out(request, store, build)
    (report,) = reports
    if request.as_json:
        figures = report.model_dump(mode="json")
        print_json({"name": manifest.name, "version": manifest.version, **figures})
    else:
        typer.echo(
            f"{manifest.name}: {len(manifest.labels)} fields, {manifest.train_rows} training rows, "
            f"version {manifest.version}"
        )
        show_span_report(report)


def _check(request: TrainRequest) -> None:
    """Refuse what has no meaning for spans."""
    for option, is_given in (
        ("tiers", request.tiers != ("head",)),
        ("static-base", request.static_base is not None),
        ("class-weights", request.class_weights != "none"),
        ("targets", request.targets is not None),
        ("clean-label", request.clean_label is not None),
        ("policy", request.policy is not None),
        ("min-precision", bool(request.min_precision)),
        ("min-recall", bool(request.min_recall)),
        ("block-precision", bool(request.block_precision)),
        ("default", request.default is not None),
        ("learning-curve", request.learning_curve),
        ("suspects", request.suspects is not None),
        ("html", request.html is not None),
        *((option, value is not None) for option, value in request.tuning()),
    ):
        if is_given:
            raise InvalidInput(f"--{option}: an extract task has none", field=option)
