"""The trainer of classify and route tasks: heads on frozen models, and on tuned ones."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sprat.cli.embedding import computer, embed_opener, embedder
from sprat.cli.output import Bar, print_json, print_table, progress, write_file
from sprat.cli.report_page import check_folder, write_report
from sprat.cli.reports import show_report, show_without_leaked
from sprat.cli.train_request import TrainRequest
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest, Route, TierName
    from sprat.inprocess import Runtime
    from sprat.manifest import ModelRef
    from sprat.store import Store
    from sprat.train.features import Compute
    from sprat.train.head import Embed, Trained, TrainTier

TIERS = ("static", "head", "finetune")
SHOWN_PAIRS = 5
SHOWN_SUSPECTS = 5


def train_heads(request: TrainRequest) -> None:
    """Train the tiers that are asked for, write the bundle, print what there is to know."""
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.data import read
    from sprat.train.head import train_classifier, train_tier
    from sprat.train.prepare import prepare

    _check(request)
    prepared = prepare(
        read(request.data),
        test=None if request.test is None else read(request.test),
        held_out=request.held_out,
        conflicts=request.conflicts,
        seed=request.seed,
    )
    route = _route(request, prepared.labels)
    store = Store()
    bases = tier_bases(request, store)
    done: list[Trained] = []
    with Runtime(models=[*bases.values()], store=store) as runtime, progress("train") as bar:
        tiers: list[TrainTier] = []
        for tier in frozen_tiers(request, bases, store, runtime, bar):
            tiers.append(
                functools.partial(
                    train_tier,
                    name=tier.name,
                    base=tier.base,
                    embed=tier.embed,
                    class_weights=request.class_weights,
                    accept_at=request.accept_at,
                )
            )
        if "finetune" in request.tiers:
            tiers.append(_finetune(request, store, bar))

        def build(folder: Path) -> BundleManifest:
            done.append(
                train_classifier(
                    prepared,
                    tiers,
                    name=Path(request.out).name,
                    out=folder,
                    route=route,
                    with_learning_curve=request.learning_curve,
                    progress=bar,
                )
            )
            return done[0].manifest

        write_out(request, store, build)
    (trained,) = done
    if request.html is not None:
        write_report(
            request.html,
            trained.record.evaluation,
            trained.manifest,
            prepared.test,
            tier=trained.manifest.tiers[-1].name,
            learning=trained.record.learning_curve,
        )
    if request.suspects is not None:
        write_rows(request.suspects, map(asdict, trained.suspects))
    if request.as_json:
        manifest, evaluation = trained.manifest, trained.record.evaluation
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                **evaluation.model_dump(mode="json"),
                "training": trained.record.model_dump(mode="json"),
            }
        )
    else:
        _show(trained, prepared.report.messages())


def _finetune(request: TrainRequest, store: Store, bar: Bar) -> TrainTier:
    """The tier of an encoder that is tuned for this task."""
    from sprat.train.finetune_tier import finetune_tier

    return functools.partial(
        finetune_tier, open_embed=embed_opener(store, bar), **tuning_arguments(request, store)
    )


def tuning_arguments(request: TrainRequest, store: Store, **defaults: Any) -> dict[str, Any]:
    """What every trainer of a tier ``finetune`` is told; the encoder is named after the task.

    Parameters
    ----------
    defaults
        Settings where the command line says nothing; see `sprat.train.loop.LoopSettings`.

    Raises
    ------
    StoreError
        There is a model of that name: before other tiers are trained for nothing.
    """
    from sprat.train.finetune_tier import check_free
    from sprat.train.loop import LoopSettings

    name = f"{Path(request.out).name}-encoder"
    check_free(store, name, replace=request.replace)
    return {
        "store": store,
        "base": request.base,
        "name": name,
        "settings": LoopSettings(**{**defaults, **request.loop}, seed=request.seed),
        "accept_at": request.accept_at,
        "resume": request.resume,
        "replace": request.replace,
    }


def write_out(
    request: TrainRequest, store: Store, build: Callable[[Path], BundleManifest]
) -> BundleManifest:
    """Write a bundle to where ``--out`` says: all of it, or nothing."""
    from sprat.bundle import write_bundle

    if "/" in request.out:
        return write_bundle(Path(request.out), build, replace=request.replace)
    return store.add_bundle(request.out, build, replace=request.replace)[0]


def tier_bases(request: TrainRequest, store: Store) -> dict[TierName, str]:
    """The model of each tier, from the cheapest tier to the best.

    A static model that is not named is distilled from the encoder, unless that was done before.
    """
    from sprat.build_static import distilled

    if "static" in request.tiers and request.static_base is None:
        with progress(f"distil {request.base}") as bar:
            distilled(request.base, f"{request.base}-static", store, progress=bar)
    bases: dict[TierName, str] = {
        "static": request.static_base or f"{request.base}-static",
        "head": request.base,
    }
    return {tier: base for tier, base in bases.items() if tier in request.tiers}


@dataclass(frozen=True, slots=True)
class FrozenTier:
    """What a tier on a model that stays as it is starts with."""

    name: TierName
    base: ModelRef
    compute: Compute

    @property
    def embed(self) -> Embed:
        """Vectors alone."""
        return embedder(self.compute)


def frozen_tiers(
    request: TrainRequest,
    bases: dict[TierName, str],
    store: Store,
    runtime: Runtime,
    bar: Bar,
) -> Iterator[FrozenTier]:
    """The tiers of `tier_bases`, with vectors from the cache where it is wanted."""
    from sprat.manifest import ModelRef
    from sprat.train.features import EmbeddingCache

    for name, base in bases.items():
        model, _ = store.model(base)
        cache = EmbeddingCache(store.embeddings, model.digest) if request.cache else None
        ref = ModelRef(name=model.name, digest=model.digest)
        yield FrozenTier(name, ref, computer(runtime, base, bar, cache))


def check_tiers(request: TrainRequest) -> None:
    """Refuse tiers that nothing trains."""
    unknown = [tier for tier in request.tiers if tier not in TIERS]
    if unknown:
        raise typer.BadParameter(
            f"expected some of {', '.join(TIERS)}, got {unknown[0]}", param_hint="--tiers"
        )


def check_tuning(request: TrainRequest) -> None:
    """Refuse options of training with torch where no tier is trained so."""
    if "finetune" not in request.tiers:
        for option, value in request.tuning():
            if value is not None:
                raise InvalidInput(f"--{option}: expected --tiers finetune", field=option)


def _check(request: TrainRequest) -> None:
    """Refuse what cannot be before anything is read or computed."""
    check_tiers(request)
    check_tuning(request)
    if request.kind != "route":
        for option, value in (("targets", request.targets), ("default", request.default)):
            if value is not None:
                raise InvalidInput(f"--{option}: expected --kind route beside it", field=option)
    if request.default is not None and request.accept_at == 0:
        raise InvalidInput("--default: expected --accept-at beside it", field="default")
    for path in (request.suspects, request.html):
        check_folder(path)


def _route(request: TrainRequest, labels: Sequence[str]) -> Route | None:
    from sprat.bundle_manifest import Route
    from sprat.train.targets import check_target, read_targets

    if request.kind != "route":
        return None
    return Route(
        targets=read_targets(request.targets, labels)
        if request.targets is not None
        else {label: label for label in labels},
        default_target=""
        if request.default is None
        else check_target(request.default, "--default"),
    )


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line: all of the file, or nothing."""
    write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _show(trained: Trained, notes: Sequence[str]) -> None:
    manifest, record = trained.manifest, trained.record
    typer.echo(
        f"{manifest.name}: {len(manifest.labels)} labels, {manifest.train_rows} training rows, "
        f"version {manifest.version}"
    )
    for note in notes:
        typer.echo(f"note: {note}")
    if len(manifest.tiers) > 1:
        print_table(
            ["tier", "model", "accuracy", "macro_f1", "ece"],
            [
                (tier.name, tier.model.name, report.accuracy, report.macro_f1, report.ece)
                for tier in manifest.tiers
                for report in [record.tiers[tier.name].evaluation]
            ],
            title="Tiers, from the cheapest to the best",
            right="accuracy macro_f1 ece",
        )
    show_report(record.evaluation)
    last = record.tiers[manifest.tiers[-1].name]
    if last.without_leaked is not None:
        show_without_leaked(last.without_leaked)
    if record.confusing_pairs:
        print_table(
            ["label", "and", "mistaken", "the other way", "share"],
            [(p.a, p.b, p.a_as_b, p.b_as_a, p.share) for p in record.confusing_pairs[:SHOWN_PAIRS]],
            title="Labels that are taken for each other, in cross-validation",
            right="mistaken share the other way",
        )
    if record.suspects:
        shown = ", ".join(f"{s.line} ({s.suggested}?)" for s in record.suspects[:SHOWN_SUSPECTS])
        typer.echo(
            f"{len(record.suspects)} of {manifest.train_rows} training rows may have a wrong "
            f"label, first of all lines {shown}; --suspects FILE writes all."
        )
    if record.learning_curve is not None:
        typer.echo(record.learning_curve.message())
