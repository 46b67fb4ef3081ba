"""Manifests of bundles of two tiers, tuned or not, as tests want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sprat.bundle_manifest import BundleManifest
from sprat.tuning_manifest import Traffic, Tuning

FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}
TIERS = ("static", "head")


def tuning(traffic: Traffic | None, *, rule: str = "loss", limit: float = 0.005) -> Tuning:
    """Evidence with this traffic."""
    return Tuning.model_validate(
        {
            "rule": rule,
            "limit": limit,
            "delta": 0.1,
            "data_sha256": "",
            "chosen_on": 1000,
            "verified_on": 1000,
            "cost_ms": {},
            "best_tier": "head",
            "shares": {},
            **dict.fromkeys(("cost_ratio", "loss_points", "coverage", "wrong"), FIGURE),
            "traffic": traffic,
        }
    )


def manifest(
    labels: Sequence[str],
    accept_at: Sequence[float],
    *,
    tuned: Tuning | None = None,
    **changes: Any,
) -> BundleManifest:
    """A bundle ``tickets`` whose tiers are ``static`` and ``head``."""
    fields = {
        "name": "tickets",
        "kind": "classify",
        "labels": labels,
        "tiers": [
            {
                "name": name,
                "base": {"name": "model", "digest": "a" * 64},
                "weights": f"{name}.safetensors",
                "calibration": {"temperature": 1.0},
                "accept_at": least,
                "evaluation": {"n": 9, "metrics": {"accuracy": FIGURE}},
            }
            for name, least in zip(TIERS, accept_at, strict=True)
        ],
        "tuning": tuned,
        "train_rows": 30,
        "created": "2025-01-01T00:00:00Z",
        "made_by": "tests",
        "files": [],
    }
    return BundleManifest.model_validate({**fields, **changes})
