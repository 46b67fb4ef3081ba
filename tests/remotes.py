"""Bundles whose last tier asks an endpoint, and configurations that name one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.config import Config
from sprat.endpoint_config import EndpointConfig
from sprat.task_config import TaskConfig, TierConfig
from sprat.values import OnFailure

FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}
MODEL = "big"


def remote_tier(labels: Iterable[str], **changes: Any) -> dict[str, Any]:
    """The section of a tier; ``asks`` are changes of what it asks."""
    named = [{"name": label} for label in labels]
    return {
        "name": "remote",
        "remote": {"model": MODEL, "labels": named, **changes.pop("asks", {})},
        "calibration": {"temperature": 1.0},
        "evaluation": {"n": 9, "metrics": {"accuracy": FIGURE}},
        **changes,
    }


def with_remote(bundle: Bundle, **changes: Any) -> Bundle:
    """A bundle with a remote tier behind the others; see `remote_tier`."""
    manifest = bundle.manifest.model_dump(mode="json")
    manifest["tiers"].append(remote_tier(bundle.manifest.labels, **changes))
    return replace(bundle, manifest=BundleManifest.model_validate(manifest))


def with_remote_categories(bundle: Bundle, **changes: Any) -> Bundle:
    """A moderator with a remote tier behind the others, whose odds change nothing.

    ``asks`` are changes of what it asks, ``acts`` of its calibration and thresholds.
    """
    labels = bundle.manifest.labels
    asks = {"model": MODEL, "categories": [{"name": label} for label in labels]}
    acts = {
        "odds": [{"slope": 1, "offset": 0}] * len(labels),
        "thresholds": [{"flag_at": 0.5}] * len(labels),
    }
    manifest = bundle.manifest.model_dump(mode="json")
    manifest["tiers"].append(
        {
            "name": "remote",
            "remote": {**asks, **changes.pop("asks", {})},
            "moderation": {**acts, **changes.pop("acts", {})},
            "calibration": {"temperature": 1.0, "isotonic": ((0.0, 0.0), (1.0, 1.0))},
            "evaluation": {"n": 9, "metrics": {"micro_f1": FIGURE}},
            **changes,
        }
    )
    return replace(bundle, manifest=BundleManifest.model_validate(manifest))


def configuration(
    bundle: str,
    url: str,
    *,
    on_failure: OnFailure = "abstain",
    accept_at: float | None = None,
    **endpoint: Any,
) -> Config:
    """A task whose remote tier asks an endpoint named ``far``."""
    remote = TierConfig(endpoint="far", accept_at=accept_at)
    settings = {"url": url, "model": MODEL, "attempts": 1, **endpoint}
    return Config(
        tasks={bundle: TaskConfig(bundle=bundle, tiers={"remote": remote}, on_failure=on_failure)},
        endpoints={"far": EndpointConfig(**settings)},
    )
