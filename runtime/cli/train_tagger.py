"""The trainer of extract tasks: taggers on token states of a frozen encoder, and of a tuned one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli.embedding import state_opener, state_reader
from sprat.cli.evaluate_spans import show_span_report
from sprat.cli.output import Bar, print_json, print_table, progress
from sprat.cli.report_page import check_folder, write_report
from sprat.cli.reports import show_without_leaked
from sprat.cli.train_heads import check_tiers, check_tuning, tuning_arguments, write_out
from sprat.cli.train_request import TrainRequest
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.tagger import ExtractRecord, TrainTaggerTier


def train_tagger(request: TrainRequest) -> None:
    """Train the tiers that are asked for, write the bundle, print how good it is."""
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train import tagger
    from sprat.train.prepare_spans import prepare_spans
    from sprat.train.spans import read_spans

    _check(request)
    prepared = prepare_spans(
        read_spans(request.data),
        test=None if request.test is None else read_spans(request.test),
        held_out=request.held_out,
        conflicts=request.conflicts,
        seed=request.seed,
    )
    store = Store()
    bases = [request.base] if "head" in request.tiers else []
    done: list[ExtractRecord] = []
    with Runtime(models=bases, store=store) as runtime, progress("train") as bar:
        tiers = [_head(request, store, runtime, bar)] if "head" in request.tiers else []
        if "finetune" in request.tiers:
            tiers.append(_finetune(request, store, bar))

        def build(folder: Path) -> BundleManifest:
            manifest, record = tagger.train_tagger(
                prepared, tiers, name=Path(request.out).name, out=folder, progress=bar
            )
            done.append(record)
            return manifest

        manifest = write_out(request, store, build)
    (record,) = done
    if request.html is not None:
        write_report(
            request.html,
            record.evaluation,
            manifest,
            prepared.test,
            tier=manifest.tiers[-1].name,
        )
    if request.as_json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                **record.evaluation.model_dump(mode="json"),
                "training": record.model_dump(mode="json"),
            }
        )
    else:
        _show(manifest, record, prepared.notes)


def _head(request: TrainRequest, store: Store, runtime: Runtime, bar: Bar) -> TrainTaggerTier:
    """The tier of the encoder as it is."""
    from sprat.manifest import ModelRef
    from sprat.train.tagger import train_tagger_tier

    model, _ = store.model(request.base)
    return functools.partial(
        train_tagger_tier,
        name="head",
        base=ModelRef(name=model.name, digest=model.digest),
        states=state_reader(runtime, request.base, bar),
        accept_at=request.accept_at,
    )


def _finetune(request: TrainRequest, store: Store, bar: Bar) -> TrainTaggerTier:
    """The tier of an encoder that is tuned for this task."""
    from sprat.train.finetune_tagger import finetune_tagger_tier
    from sprat.train.finetune_tags import EPOCHS

    arguments = tuning_arguments(request, store, epochs=EPOCHS)
    return functools.partial(
        finetune_tagger_tier, open_states=state_opener(store, bar), **arguments
    )


def _show(manifest: BundleManifest, record: ExtractRecord, notes: Sequence[str]) -> None:
    typer.echo(
        f"{manifest.name}: {len(manifest.labels)} fields, {manifest.train_rows} training rows, "
        f"version {manifest.version}"
    )
    for note in notes:
        typer.echo(f"note: {note}")
    if len(manifest.tiers) > 1:
        print_table(
            ["tier", "model", "micro_f1", "whole_rows", "ece"],
            [
                (tier.name, tier.model.name, report.micro_f1, report.whole_rows, report.ece)
                for tier in manifest.tiers
                for report in [record.tiers[tier.name].evaluation]
            ],
            title="Tiers, from the cheapest to the best",
            right="micro_f1 whole_rows ece",
        )
    show_span_report(record.evaluation)
    last = record.tiers[manifest.tiers[-1].name]
    if last.without_leaked is not None:
        show_without_leaked(last.without_leaked.summary())


def _check(request: TrainRequest) -> None:
    """Refuse what has no meaning for spans."""
    check_tiers(request)
    check_tuning(request)
    if "static" in request.tiers:
        raise InvalidInput(
            "--tiers: expected some of head, finetune for an extract task: a static model has no "
            "states of tokens",
            field="tiers",
        )
    for option, is_given in (
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
    ):
        if is_given:
            raise InvalidInput(f"--{option}: an extract task has none", field=option)
    check_folder(request.html)
