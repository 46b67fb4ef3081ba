"""``sprat eval`` of a moderate task, and the tables that training prints too."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sprat.cli import comparisons
from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import Bar, print_json, print_table, progress
from sprat.cli.report_page import write_report

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest, TierManifest
    from sprat.inprocess import Runtime
    from sprat.manifest import Interval
    from sprat.store import Store
    from sprat.train.assess_categories import Moderate, ModerationComparison
    from sprat.train.evaluate_categories import ModerationReport
    from sprat.values import Moderation

BATCH = 256


def evaluate_moderator(
    names: Sequence[str],
    data: Path,
    store: Store,
    *,
    tier: str | None,
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
    """
    from sprat.inprocess import Runtime
    from sprat.train.assess_categories import assess_moderator, compare_moderators
    from sprat.train.categories import read_categories

    rows = read_categories(data, clean_label=clean_label)
    manifests = [store.bundle(name)[0] for name in names]
    for manifest in manifests:
        # Before the first one has read all of the texts.
        rows.truth(manifest.labels)
    assessed = []
    with tempfile.TemporaryDirectory() as folder:
        tasks = [names[0] if tier is None else _alone(store, names[0], tier, folder), *names[1:]]
        for task in tasks:
            manifest, _ = store.bundle(task)
            with Runtime(tasks=[task], store=store) as runtime, progress("eval") as bar:
                moderate = moderator(runtime, manifest.name, bar)
                assessed.append(assess_moderator(manifest, rows, moderate=moderate, seed=seed))
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
