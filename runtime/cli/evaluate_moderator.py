"""``sprat eval`` of a moderate task, and the tables that training prints too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sprat.cli.limits import Limits, check, judge
from sprat.cli.limits import as_json as limits_json
from sprat.cli.output import print_json, print_table, progress

if TYPE_CHECKING:
    from sprat.bundle_manifest import Interval
    from sprat.train.evaluate_categories import ModerationReport

BATCH = 256


def evaluate_moderator(
    bundle: str,
    data: Path,
    *,
    clean_label: str | None,
    limits: Limits,
    seed: int,
    as_json: bool,
) -> None:
    """Moderate labelled rows as a server would, and compare with their labels."""
    from sprat.inprocess import Runtime
    from sprat.store import Store
    from sprat.train.categories import read_categories
    from sprat.train.evaluate_categories import evaluate_categories

    store = Store()
    manifest, _ = store.bundle(bundle)
    settings = manifest.tiers[-1].moderation
    assert settings is not None  # the manifest of a moderate bundle has it
    rows = read_categories(data, clean_label=clean_label)
    truth_nk = rows.truth(manifest.labels)
    probability_nk = np.empty(truth_nk.shape, np.float64)
    with Runtime(tasks=[bundle], store=store) as runtime, progress("eval") as bar:
        bar.phase(f"moderate {len(rows)} texts", total=len(rows))
        for start in range(0, len(rows), BATCH):
            result = runtime.moderate(manifest.name, rows.texts[start : start + BATCH])
            for row, item in enumerate(result.items, start):
                assert item is not None  # bad texts raise
                probability_nk[row] = [each.probability for each in item.categories]
            bar.advance(len(result.items))
    report = evaluate_categories(
        probability_nk,
        truth_nk,
        names=manifest.labels,
        flag_at=[each.flag_at for each in settings.thresholds],
        seed=seed,
    )
    gates = check(report.summary(), limits)
    if as_json:
        print_json({**report.model_dump(mode="json"), "gates": limits_json(gates)})
    else:
        show_moderation(report, [each.block_at for each in settings.thresholds])
    judge(gates)


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
