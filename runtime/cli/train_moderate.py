"""The trainer of moderate tasks: a head for each category on frozen models."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli.evaluate_moderator import show_moderation
from sprat.cli.output import print_json, progress
from sprat.cli.report_page import check_folder, write_report
from sprat.cli.reports import show_without_leaked
from sprat.cli.train_heads import (
    SHOWN_SUSPECTS,
    check_tiers,
    frozen_tiers,
    tier_bases,
    write_out,
    write_rows,
)
from sprat.cli.train_request import TrainRequest
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.train.moderate import WrittenModerator
    from sprat.train.moderation_record import ModerationRecord
    from sprat.train.policy import Policy
    from sprat.train.suspects import Suspect


def train_moderate(request: TrainRequest) -> None:
    """Train the tiers that are asked for, write the bundle, print what there is to know."""
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.categories import read_categories
    from sprat.train.moderate import train_moderator, train_moderator_tier
    from sprat.train.prepare_categories import prepare_categories

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
    done: list[WrittenModerator] = []
    with Runtime(models=[*bases.values()], store=store) as runtime, progress("train") as bar:
        tiers = []
        for tier in frozen_tiers(request, bases, store, runtime, bar):
            tiers.append(
                functools.partial(
                    train_moderator_tier,
                    name=tier.name,
                    base=tier.base,
                    compute=tier.compute,
                    policy=policy,
                    class_weights=request.class_weights,
                    accept_at=request.accept_at,
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
                    with_learning_curve=request.learning_curve,
                    progress=bar,
                )
            )
            return done[0].manifest

        write_out(request, store, build)
    (written,) = done
    manifest, record = written.manifest, written.record
    last = record.tiers[manifest.tiers[-1].name]
    if request.html is not None:
        write_report(
            request.html,
            last.evaluation,
            manifest,
            prepared.test,
            tier=manifest.tiers[-1].name,
            learning=record.learning_curve,
        )
    if request.suspects is not None:
        write_rows(request.suspects, ranked(written.suspects))
    if request.as_json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                **last.evaluation.model_dump(mode="json"),
                "training": record.model_dump(mode="json"),
            }
        )
    else:
        _show(manifest, record, prepared.report.messages())


def ranked(suspects: Mapping[str, Sequence[Suspect]]) -> list[dict[str, object]]:
    """The suspects of all categories as rows of a file, the most probable errors first."""
    pairs = [(name, each) for name, found in suspects.items() for each in found]
    pairs.sort(key=lambda pair: pair[1].confidence - pair[1].suggested_confidence)
    return [{"category": name, **asdict(each)} for name, each in pairs]


def _show(manifest: BundleManifest, record: ModerationRecord, notes: Sequence[str]) -> None:
    last = record.tiers[manifest.tiers[-1].name]
    typer.echo(
        f"{manifest.name}: {len(manifest.labels)} categories, {manifest.train_rows} training rows, "
        f"features: {'vectors and n-grams' if last.ngrams else 'vectors'}, "
        f"version {manifest.version}"
    )
    for message in notes:
        typer.echo(f"note: {message}")
    for trained in manifest.tiers:
        if len(manifest.tiers) > 1:
            typer.echo(f"Tier {trained.name}:")
        assert trained.moderation is not None  # the manifest of a moderate bundle has it
        show_moderation(
            record.tiers[trained.name].evaluation,
            [each.block_at for each in trained.moderation.thresholds],
        )
    if last.without_leaked is not None:
        show_without_leaked(last.without_leaked.summary())
    for category, found in record.suspects.items():
        if found:
            shown = ", ".join(f"{each.line} ({each.suggested}?)" for each in found[:SHOWN_SUSPECTS])
            typer.echo(
                f"{category}: {len(found)} of {manifest.train_rows} training rows may miss it or "
                f"have it wrongly, first of all lines {shown}; --suspects FILE writes all."
            )
    if record.learning_curve is not None:
        typer.echo(record.learning_curve.message())


def _check(request: TrainRequest) -> None:
    """Refuse options that say nothing to a moderate task, before anything is computed."""
    for option, value in (
        ("targets", request.targets),
        ("default", request.default),
        *request.tuning(),
    ):
        if value is not None:
            raise InvalidInput(f"--{option}: a moderate task has none", field=option)
    for path in (request.suspects, request.html):
        check_folder(path)


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
