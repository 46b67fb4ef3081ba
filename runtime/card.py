"""Model cards: what a bundle, a model or an adapter is, where it came from, and how good it is.

Everything stands in manifests and in the bundle's report; a card only gathers it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sprat.bundle_manifest import REPORT, BundleManifest
from sprat.errors import CorruptFile, NotFound
from sprat.manifest import AdapterManifest, FileEntry, ModelManifest, ModelRef
from sprat.store import Store


def card(store: Store, name: str) -> dict[str, Any]:
    """The card of a bundle, a model or an adapter, as plain JSON; every file is verified.

    Parameters
    ----------
    name : str
        A name in the store, or the path of a bundle, with a slash.

    Raises
    ------
    NotFound
        With the names that are here.
    CorruptFile
        A manifest or file is not what it should be.
    """
    if "/" in name:
        return bundle_card(store, *store.bundle(name, check=True))
    known: list[str] = []
    try:
        return model_card(store.model(name, check=True)[0])
    except NotFound as error:
        known += error.known
    try:
        return bundle_card(store, *store.bundle(name, check=True))
    except NotFound as error:
        known += error.known
    try:
        return adapter_card(store, *store.adapter(name, check=True))
    except NotFound as error:
        raise NotFound("bundle, model or adapter", name, (*known, *error.known)) from None


def model_card(manifest: ModelManifest) -> dict[str, Any]:
    """The card of a model: its manifest and what follows from it."""
    return {
        "type": "model",
        **manifest.model_dump(mode="json"),
        "version": manifest.version,
        "digest": manifest.digest,
        "size_bytes": manifest.size_bytes,
    }


def bundle_card(store: Store, manifest: BundleManifest, folder: Path) -> dict[str, Any]:
    """The card of a bundle: manifest, the models of its tiers, and its report.

    ``models`` holds those of the tiers by name: the digest that the bundle was made with, and as
    ``card`` what is in the store under that name (None where nothing is, or another version).
    """
    models = {tier.base.name: _model(store, tier.base) for tier in manifest.tiers}
    return {
        "type": "bundle",
        **manifest.model_dump(mode="json"),
        "version": manifest.version,
        "models": models,
        "licences": [_licence(name, found["card"]) for name, found in models.items()],
        "report": _report(manifest.files, folder),
    }


def adapter_card(store: Store, manifest: AdapterManifest, folder: Path) -> dict[str, Any]:
    """The card of an adapter: manifest, the model it was made for, and how it was trained.

    ``models`` is as in `bundle_card`; ``report`` is None for an adapter that was not trained here.
    """
    base = _model(store, manifest.base)
    return {
        "type": "adapter",
        **manifest.model_dump(mode="json"),
        "version": manifest.version,
        "size_bytes": manifest.size_bytes,
        "models": {manifest.base.name: base},
        "licences": [
            f"{manifest.name}: {manifest.licence} ({manifest.source})",
            _licence(manifest.base.name, base["card"]),
        ],
        "report": _report(manifest.files, folder),
    }


def _model(store: Store, ref: ModelRef) -> dict[str, Any]:
    try:
        manifest, _ = store.model(ref.name)
    except NotFound:
        return {"digest": ref.digest, "card": None}
    is_same = manifest.digest == ref.digest
    return {"digest": ref.digest, "card": model_card(manifest) if is_same else None}


def _licence(name: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return f"{name}: unknown, since this version of it is not on this machine"
    return f"{name}: {found['licence']} ({found['source']})"


def _report(files: Iterable[FileEntry], folder: Path) -> dict[str, Any] | None:
    if REPORT not in {entry.path for entry in files}:
        return None
    try:
        document = json.loads((folder / REPORT).read_bytes())
    except (OSError, ValueError):
        raise CorruptFile(str(folder / REPORT), "not a JSON document") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(folder / REPORT), "expected a JSON object")
    return document
