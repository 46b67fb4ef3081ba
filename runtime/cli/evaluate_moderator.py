"""``sprat eval`` of a moderate task, and the tables that training prints too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli import comparisons
from sprat.cli.endpoints import EndpointUse, check_endpoint
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import Bar, print_json, print_table, progress
from sprat.cli.report_page import write_report
from sprat.errors import NotFound

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest, TierManifest
    from sprat.inprocess import Runtime
    from sprat.manifest import Interval
    from sprat.store import Store
    from sprat.train.assess_categories import Moderate, ModerationComparison
    from sprat.train.categories import CategoryData
    from sprat.train.evaluate_categories import ModerationReport
    from sprat.values import Moderation

BATCH = 256


def evaluate_moderator(
    names: Sequence[str],
    data: Path,
    store: Store,
    *,
    tier: str | None,
    use: EndpointUse | None,
    clean_label: str | None,
    limits: Limits,
    html: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Moderate labelled rows as a server would, and compare with their labels.

    Parameters
    ----------
    names : sequence of str
        The bundle, and perhaps another one to compare it with.
    tier : str or None
        That of the first bundle to evaluate by itself; None: what it answers.
    use : EndpointUse or None
        What remote tiers ask.

    Raises
    ------
    InvalidInput
        There is a remote tier to evaluate, and no endpoint, or the other way round.
    """
    from sprat.train.assess_categories import assess_moderator, compare_moderators
    from sprat.train.categories import read_categories

    rows = read_categories(data, clean_label=clean_label)
    manifests = [store.bundle(name)[0] for name in names]
    for manifest in manifests:
        # Before the first one has read all of the texts.
        rows.truth(manifest.labels)
    places = [_places(manifests[0], tier), *(each.answering for each in manifests[1:])]
    check_endpoint(manifests, places, use)
    assessed = []
    with tempfile.TemporaryDirectory() as folder, progress("eval") as bar:
        for name, manifest, each in zip(names, manifests, places, strict=True):
            if manifest.tiers[each[0]].remote is not None:
                assert use is not None
                opened = _remote_alone(store, manifest, each[0], rows, use, bar)
            else:
                is_alone = tier is not None and name is names[0]
                task = _alone(store, name, tier or "", folder) if is_alone else name
                opened = _served(store, task, use, bar)
            with opened as (evaluated, moderate):
                assessed.append(assess_moderator(evaluated, rows, moderate=moderate, seed=seed))
    report = assessed[0].report
    comparison = compare_moderators(rows, *assessed, seed=seed) if len(assessed) > 1 else None
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, manifests[0], rows, tier=tier)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(manifests[1], assessed[1].report, comparison)
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        settings = _tier(manifests[0], tier).moderation
        assert settings is not None  # the manifest of a moderate bundle has it
        show_moderation(report, [each.block_at for each in settings.thresholds])
        if comparison is not None:
            comparisons.show_metrics(
                [each.report for each in assessed], [each.name for each in manifests]
            )
            comparisons.show_findings(comparison, "category")
            _show_actions(comparison)
    judge(gates)


def _places(manifest: BundleManifest, tier: str | None) -> tuple[int, ...]:
    """Places of the tiers to evaluate: of one that is named, else of those that answer."""
    if tier is None:
        return manifest.answering
    names = [each.name for each in manifest.tiers]
    if tier not in names:
        raise NotFound("tier", tier, tuple(names))
    return (names.index(tier),)


@contextmanager
def _served(
    store: Store, task: str, use: EndpointUse | None, bar: Bar
) -> Iterator[tuple[BundleManifest, Moderate]]:
    """A bundle as a server has it, and what it answers."""
    from sprat.config import Config
    from sprat.inprocess import Runtime
    from sprat.task_config import TaskConfig

    manifest, _ = store.bundle(task)
    config = Config(tasks={manifest.name: TaskConfig(bundle=task)})
    if use is not None:
        config = use.serving(task, manifest)
    with Runtime(config=config, store=store) as runtime:
        yield manifest, moderator(runtime, manifest.name, bar)
        if use is not None:
            use.show_served(runtime.list_tasks()[0].tiers)


@contextmanager
def _remote_alone(
    store: Store,
    manifest: BundleManifest,
    place: int,
    rows: CategoryData,
    use: EndpointUse,
    bar: Bar,
) -> Iterator[tuple[BundleManifest, Moderate]]:
    """A remote tier by itself, which no server has, and what it answers to the rows."""
    from sprat.train.asked import answers
    from sprat.train.asked_tiers import tier_opener

    bar.phase(f"moderate {len(rows)} texts", total=len(rows))
    alone = manifest.model_copy(update={"tiers": (manifest.tiers[place],)})
    try:
        with tier_opener(store, use.open, is_fitted=True)(manifest, place) as ask:
            yield alone, lambda texts: answers(ask, rows, bar)
        use.done()
    finally:
        use.close()


def _alone(store: Store, name: str, tier: str, folder: str) -> str:
    """The path of a bundle, made below a folder, that has one tier of another."""
    from sprat.bundle import Bundle

    path = Path(folder) / "tier"
    path.mkdir()
    Bundle.load(store.bundle(name)[1]).alone(tier).save(path, report="{}")
    return str(path)


def _tier(manifest: BundleManifest, tier: str | None) -> TierManifest:
    """The tier of this name; without one the last."""
    return next((each for each in manifest.tiers if each.name == tier), manifest.tiers[-1])


def moderator(runtime: Runtime, task: str, bar: Bar) -> Moderate:
    """A function that moderates texts, with a progress bar."""

    def moderate(texts: Sequence[str]) -> list[Moderation]:
        answers: list[Moderation] = []
        bar.phase(f"moderate {len(texts)} texts", total=len(texts))
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            # Bad texts raise: there is an answer to each.
            answers += [each for each in runtime.moderate(task, batch).items if each is not None]
            bar.advance(len(batch))
        return answers

    return moderate


def _show_actions(comparison: ModerationComparison) -> None:
    typer.echo(f"Both act alike on {comparison.same_action:.1%} of the rows.")
    print_table(
        ["first", "second", "rows"],
        [(each.first, each.second, each.rows) for each in comparison.actions],
        right="rows",
    )


def show_moderation(report: ModerationReport, block_at: Sequence[float | None]) -> None:
    """Print the figures of a moderator, and those of each category."""
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, each.value, f"{each.low:.3f} to {each.high:.3f}")
            for name, each in report.summary().metrics.items()
        ],
        title=f"Evaluation on {report.n} held-out rows, {report.clean} of them clean",
        right="value",
    )
    columns = ("precision", "recall", "f1", "average_precision", "ece")
    print_table(
        ["category", "flag at", "block at", *columns, "rows", "flagged"],
        [
            (
                each.category,
                each.flag_at,
                "never" if limit is None else limit,
                *(_with_interval(getattr(each, name)) for name in columns),
                each.support,
                each.flagged,
            )
            for each, limit in zip(report.categories, block_at, strict=True)
        ],
        right=f"flag at block at {' '.join(columns)} rows flagged",
    )


def _with_interval(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"
