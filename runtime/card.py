"""Model cards: what a bundle or a model is, where it came from, and how good it is.

Everything stands in manifests and in the bundle's report; a card only gathers it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sprat.bundle_manifest import REPORT, BundleManifest
from sprat.errors import CorruptFile, NotFound
from sprat.manifest import ModelManifest, ModelRef
from sprat.store import Store


def card(store: Store, name: str) -> dict[str, Any]:
    """The card of a bundle or a model, as plain JSON; every file is verified.

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
    if "/" not in name:
        try:
            return model_card(store.model(name, check=True)[0])
        except NotFound as error:
            models = error.known
    try:
        manifest, folder = store.bundle(name, check=True)
    except NotFound as error:
        if "/" in name:
            raise
        raise NotFound("bundle or model", name, (*models, *error.known)) from None
    return bundle_card(store, manifest, folder)


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
        "report": _report(manifest, folder),
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


def _report(manifest: BundleManifest, folder: Path) -> dict[str, Any] | None:
    if REPORT not in {entry.path for entry in manifest.files}:
        return None
    try:
        document = json.loads((folder / REPORT).read_bytes())
    except (OSError, ValueError):
        raise CorruptFile(str(folder / REPORT), "not a JSON document") from None
    if not isinstance(document, dict):
        raise CorruptFile(str(folder / REPORT), "expected a JSON object")
    return document
