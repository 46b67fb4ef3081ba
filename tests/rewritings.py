"""Bundles that rewrite texts: tiers of language models, and remote ones."""

from __future__ import annotations

from typing import Any

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.manifest import ModelManifest

FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}
PROMPT = "Repeat: {text}"
SURENESS = {"quantiles": [0.0, 0.5], "weights": [1.0, 1.0], "bias": 1.0}
CALIBRATION = {"temperature": 1.0, "isotonic": [[0.0, 0.0], [1.0, 1.0]], "ceiling": 0.99}


def language_tier(base: ModelManifest, name: str = "language", **changes: Any) -> dict[str, Any]:
    """The section of a tier; ``asks`` are changes of what it asks."""
    return {
        "name": name,
        "base": {"name": base.name, "digest": base.digest},
        "language": {"prompt": PROMPT, **changes.pop("asks", {})},
        "calibration": CALIBRATION,
        "sureness": SURENESS,
        "evaluation": {"n": 9, "metrics": {"exact_match": FIGURE}},
        **changes,
    }


def remote_tier(**changes: Any) -> dict[str, Any]:
    """The section of a remote tier; ``asks`` are changes of what it asks."""
    return {
        "name": "remote",
        "remote": {"model": "big", "prompt": PROMPT, **changes.pop("asks", {})},
        "calibration": CALIBRATION,
        "sureness": SURENESS,
        "evaluation": {"n": 9, "metrics": {"exact_match": FIGURE}},
        **changes,
    }


def rewriting(*tiers: dict[str, Any], name: str = "polite", **changes: Any) -> dict[str, Any]:
    """The manifest of a bundle of kind transform with these tiers."""
    return {
        "name": name,
        "kind": "transform",
        "labels": [],
        "tiers": list(tiers),
        "transform": changes.pop("transform", {}),
        "train_rows": 9,
        "created": "2026-01-01T00:00:00+00:00",
        "made_by": "sprat test",
        "files": [],
        **changes,
    }


def bundle(*tiers: dict[str, Any], **changes: Any) -> Bundle:
    """The bundle of `rewriting`."""
    return Bundle(BundleManifest.model_validate(rewriting(*tiers, **changes)))
