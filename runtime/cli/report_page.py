"""Evaluations as HTML files, for ``sprat eval --html`` and ``sprat train --html``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sprat.cli.output import write_file
from sprat.errors import StoreError

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest, TierManifest
    from sprat.manifest import AdapterManifest
    from sprat.train.adapter_rows import Rows
    from sprat.train.categories import CategoryData
    from sprat.train.curve import LearningCurve
    from sprat.train.data import Dataset
    from sprat.train.page import AnyReport
    from sprat.train.spans import SpanDataset
    from sprat.train.wanted import Wanted


def check_folder(path: Path | None) -> None:
    """Refuse a file whose folder is not there, before anything is computed.

    Raises
    ------
    StoreError
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise StoreError(f"{path.absolute().parent} is no folder; make it first")


def write_report(
    path: Path,
    report: AnyReport,
    manifest: BundleManifest | AdapterManifest,
    rows: Dataset | CategoryData | SpanDataset | Wanted | Rows,
    *,
    tier: str | None = None,
    learning: LearningCurve | None = None,
) -> None:
    """Write an evaluation as an HTML file.

    Parameters
    ----------
    manifest : BundleManifest or AdapterManifest
        What was evaluated.
    rows : Dataset, CategoryData, SpanDataset, Wanted or Rows
        That it was evaluated on.
    tier : str, optional
        The tier of a bundle that was evaluated by itself; absent: those that answer were.
    learning : LearningCurve, optional

    Raises
    ------
    StoreError
        When the file cannot be written.
    """
    from sprat.manifest import AdapterManifest
    from sprat.train.page import page

    if isinstance(manifest, AdapterManifest):
        base = manifest.base
        facts = {
            "Adapter": f"{manifest.name}, version {manifest.version}, of rank {manifest.rank}",
            "Model": f"{base.name} {base.digest[:12]}",
        }
    else:
        tiers = [manifest.tiers[place] for place in manifest.answering]
        if tier is not None:
            tiers = [each for each in manifest.tiers if each.name == tier]
        facts = {
            "Bundle": f"{manifest.name}, version {manifest.version}, {manifest.kind}",
            "Trained": f"{manifest.created} by {manifest.made_by} on {manifest.train_rows:,} rows",
            "Cascade" if len(tiers) > 1 else "Tier": ", then ".join(
                f"{each.name} on {_model(each)}" for each in tiers
            ),
        }
    facts["Data"] = f"{Path(rows.path).name}, {len(rows):,} rows, sha256 {rows.sha256[:12]}"
    write_file(path, page(report, title=manifest.name, facts=facts, learning=learning))


def _model(tier: TierManifest) -> str:
    """What answers in a tier, and its version where it has one."""
    version = "" if tier.base is None else f" {tier.base.digest[:12]}"
    return f"{tier.model_name}{version}"
