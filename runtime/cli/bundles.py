"""Bundles that commands write: in the place of the one they were made from, or beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.bundle_manifest import BundleManifest
    from sprat.store import Store


def write(
    store: Store, bundle: Bundle, report: str, *, task: str, out: str | None
) -> BundleManifest:
    """Write a bundle that was made from another one: all of it, or nothing.

    Parameters
    ----------
    report : str
        The content of its ``report.json``.
    task : str
        The bundle that it was made from; replaced where ``out`` is None.
    out : str or None
        A name in the store, or a path with a slash; nothing may be there.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    from sprat.bundle import write_bundle

    target = task if out is None else out
    named = bundle.named(Path(target).name)

    def build(folder: Path) -> BundleManifest:
        return named.save(folder, report=report)

    if "/" in target:
        return write_bundle(Path(target), build, replace=out is None)
    return store.add_bundle(target, build, replace=out is None)[0]
