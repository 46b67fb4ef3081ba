"""Bundles whose last tier asks a language model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.manifest import ModelManifest

FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}


def language(base: ModelManifest, labels: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """The section of a tier; ``asks`` are changes of what it asks."""
    asks = {"labels": [{"name": label} for label in labels], **changes.pop("asks", {})}
    return {
        "name": "language",
        "base": {"name": base.name, "digest": base.digest},
        "language": asks,
        "calibration": {"temperature": 2.0},
        "evaluation": {"n": 9, "metrics": {"accuracy": FIGURE}},
        **changes,
    }


def with_language(bundle: Bundle, base: ModelManifest, **changes: Any) -> Bundle:
    """A bundle with a language tier behind the others; see `language`."""
    manifest = bundle.manifest.model_dump(mode="json")
    manifest["tiers"].append(language(base, bundle.manifest.labels, **changes))
    return replace(bundle, manifest=BundleManifest.model_validate(manifest))


def with_categories(bundle: Bundle, base: ModelManifest, **changes: Any) -> Bundle:
    """A moderator with a language tier behind the others, whose odds change nothing.

    ``asks`` are changes of what it asks, ``acts`` of its calibration and thresholds.
    """
    labels = bundle.manifest.labels
    asks = {"categories": [{"name": label} for label in labels], "window": 400, "overlap": 100}
    acts = {
        "odds": [{"slope": 1, "offset": 0}] * len(labels),
        "thresholds": [{"flag_at": 0.5}] * len(labels),
    }
    manifest = bundle.manifest.model_dump(mode="json")
    manifest["tiers"].append(
        {
            "name": "language",
            "base": {"name": base.name, "digest": base.digest},
            "language": {**asks, **changes.pop("asks", {})},
            "moderation": {**acts, **changes.pop("acts", {})},
            "calibration": {"temperature": 1.0, "isotonic": ((0.0, 0.0), (1.0, 1.0))},
            "evaluation": {"n": 9, "metrics": {"micro_f1": FIGURE}},
            **changes,
        }
    )
    return replace(bundle, manifest=BundleManifest.model_validate(manifest))
