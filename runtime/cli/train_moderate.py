"""The trainer of moderate tasks: a head for each category on frozen models."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli.evaluate_moderator import show_moderation
from sprat.cli.output import print_json, progress
from sprat.cli.train_heads import check_tiers, frozen_tiers, tier_bases, write_out
from sprat.cli.train_request import TrainRequest
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.train.moderate import ModerationRecord
    from sprat.train.policy import Policy


def train_moderate(request: TrainRequest) -> None:
    """Train the tiers that are asked for, write the bundle, print what there is to know."""
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.categories import read_categories
    from sprat.train.moderate import prepare_categories, train_moderator, train_moderator_tier

    check_tiers(request)
    _check(request)
    policy = policy_asked(request)
    read = functools.partial(read_categories, clean_label=request.clean_label)
    prepared = prepare_categories(
        read(request.data),
        test=None if request.test is None else read(request.test),
        held_out=request.held_out,
        conflicts=request.conflicts,
        seed=request.seed,
    )
    policy.check(prepared.names)
    store = Store()
    bases = tier_bases(request, store)
    done: list[tuple[BundleManifest, ModerationRecord]] = []
    with Runtime(models=[*bases.values()], store=store) as runtime, progress("train") as bar:
        tiers = []
        for tier in frozen_tiers(request, bases, store, runtime, bar):
            tiers.append(
                functools.partial(
                    train_moderator_tier,
                    name=tier.name,
                    base=tier.base,
                    embed=tier.embed,
                    policy=policy,
                    class_weights=request.class_weights,
                )
            )

        def build(folder: Path) -> BundleManifest:
            done.append(
                train_moderator(
                    prepared,
                    tiers,
                    name=Path(request.out).name,
                    out=folder,
                    class_weights=request.class_weights,
                    progress=bar,
                )
            )
            return done[0][0]

        write_out(request, store, build)
    ((manifest, record),) = done
    last = record.tiers[manifest.tiers[-1].name]
    if request.as_json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                **last.evaluation.model_dump(mode="json"),
                "training": record.model_dump(mode="json"),
            }
        )
        return
    typer.echo(
        f"{manifest.name}: {len(manifest.labels)} categories, {manifest.train_rows} training rows, "
        f"features: {'vectors and n-grams' if last.ngrams else 'vectors'}, "
        f"version {manifest.version}"
    )
    for message in prepared.report.messages():
        typer.echo(f"note: {message}")
    for trained in manifest.tiers:
        if len(manifest.tiers) > 1:
            typer.echo(f"Tier {trained.name}:")
        assert trained.moderation is not None  # the manifest of a moderate bundle has it
        show_moderation(
            record.tiers[trained.name].evaluation,
            [each.block_at for each in trained.moderation.thresholds],
        )


def _check(request: TrainRequest) -> None:
    """Refuse options that say nothing to a moderate task."""
    for option, value in (
        ("accept-at", request.accept_at or None),
        ("targets", request.targets),
        ("default", request.default),
        ("learning-curve", request.learning_curve or None),
        ("suspects", request.suspects),
        ("html", request.html),
        *request.tuning(),
    ):
        if value is not None:
            raise InvalidInput(f"--{option}: a moderate task has none", field=option)


def policy_asked(request: TrainRequest) -> Policy:
    """The policy of the file, or of the options."""
    from sprat.train.policy import EVERY, policy_of, read_policy

    options = {
        "--min-precision": (request.min_precision, "flag", "min_precision"),
        "--min-recall": (request.min_recall, "flag", "min_recall"),
        "--block-precision": (request.block_precision, "block", "min_precision"),
    }
    given = [option for option, (values, _, _) in options.items() if values]
    if request.policy is not None:
        if given:
            raise InvalidInput(f"{given[0]}: expected none beside --policy", field=given[0])
        return read_policy(request.policy)
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for option, (values, action, rule) in options.items():
        for value in values:
            name, _, number = value.rpartition("=")
            try:
                share = float(number)
            except ValueError:
                raise InvalidInput(
                    f"{option}: expected a number or CATEGORY=NUMBER, got {value!r}", field=option
                ) from None
            tables.setdefault(name or EVERY, {}).setdefault(action, {})[rule] = share
    # What holds for every category holds for those with a rule of their own, as far as theirs is
    # silent.
    every = tables.get(EVERY, {})
    return policy_of({name: {**every, **table} for name, table in tables.items()}, where="options")
