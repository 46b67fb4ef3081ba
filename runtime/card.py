"""Model cards: what a bundle, a model or an adapter is, where it came from, and how good it is.

Everything stands in manifests and in the bundle's report; a card only gathers it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sprat import costs
from sprat.bundle_manifest import REPORT, BundleManifest
from sprat.errors import CorruptFile, NotFound
from sprat.manifest import AdapterManifest, FileEntry, ModelManifest, ModelRef
from sprat.store import Store

Find = Callable[[str], tuple[ModelManifest | AdapterManifest, Path]]
"""A manifest of the store by name, and its folder."""


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
    ``adapters`` is the same of those that its language tiers answer under.
    ``costs`` is what ``sprat bench --tiers`` measured on this machine, None where that does not
    hold any more, or nothing was measured; ``costs_note`` says why it does not.
    """
    known, why_not = costs.find(store, manifest)
    models = {ref.name: _found(ref, store.model, model_card) for ref in manifest.bases}
    adapters = {ref.name: _found(ref, store.adapter, _plain) for ref in manifest.adapters}
    return {
        "type": "bundle",
        **manifest.model_dump(mode="json"),
        "version": manifest.version,
        "models": models,
        "adapters": adapters,
        "costs": None if known is None else known.to_json(),
        "costs_note": why_not,
        "licences": [
            _licence(name, found["card"])
            for cards in (models, adapters)
            for name, found in cards.items()
        ],
        "report": _report(manifest.files, folder),
    }


def adapter_card(store: Store, manifest: AdapterManifest, folder: Path) -> dict[str, Any]:
    """The card of an adapter: manifest, the model it was made for, and how it was trained.

    ``models`` is as in `bundle_card`; ``report`` is None for an adapter that was not trained here.
    """
    base = _found(manifest.base, store.model, model_card)
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


def _plain(manifest: AdapterManifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json")


def _found(ref: ModelRef, find: Find, describe: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """What something was made with, and the card of what is here where it is the same."""
    try:
        manifest, _ = find(ref.name)
    except NotFound:
        return {"digest": ref.digest, "card": None}
    return {
        "digest": ref.digest,
        "card": describe(manifest) if manifest.digest == ref.digest else None,
    }


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
