"""Bundles of kind extract with tiers that ask for fields, and configurations for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sprat.asked_manifest import fields_schema
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.manifest import ModelManifest
from sprat.tagger import Indicators, Tagger, tags_of
from sprat.values import Label

FIELDS = ("guests", "name")
MANY = ("guests",)
SAME = ((0.0, 0.0), (1.0, 1.0))
"""A curve that leaves chances as they are."""
FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}
SCHEMA = fields_schema(map(Label, FIELDS), MANY)


def blind_tagger(dimension: int) -> Tagger:
    """It finds nothing, and is not quite sure of that."""
    vocabulary = np.zeros(0, np.int32)
    size = len(tags_of(FIELDS))
    return Tagger(
        FIELDS,
        frozenset(MANY),
        states=np.zeros((1, dimension, size), np.float32),
        bias=np.eye(1, size, dtype=np.float32)[0] * 4,
        vocabulary=vocabulary,
        indicators=np.zeros((Indicators(vocabulary, FIELDS).count, size), np.float32),
        transitions=np.zeros((size, size), np.float32),
        start=np.zeros(size, np.float32),
        end=np.zeros(size, np.float32),
    )


def extract_bundle(base: ModelManifest, *, accept_at: float = 1.0) -> Bundle:
    """A bundle of a `blind_tagger` that is never sure enough by default."""
    document = {
        "name": "visitors",
        "kind": "extract",
        "labels": FIELDS,
        "extract": {"many": MANY},
        "tiers": [
            {
                "name": "head",
                "base": {"name": base.name, "digest": base.digest},
                "weights": "head.safetensors",
                "calibration": {"temperature": 1.0, "isotonic": SAME},
                "accept_at": accept_at,
                "evaluation": {"n": 9, "metrics": {"micro_f1": FIGURE}},
            }
        ],
        "train_rows": 30,
        "created": "2025-01-01T00:00:00Z",
        "made_by": "tests",
        "files": [],
    }
    tagger = blind_tagger(base.dimension)
    return Bundle(BundleManifest.model_validate(document), taggers=(tagger,))


def with_tier(bundle: Bundle, asks: dict[str, Any], **changes: Any) -> Bundle:
    """A bundle with a tier behind the others; ``asks`` has what it asks, under its name."""
    (name,) = (each for each in asks if each != "base")
    tier = {
        "name": name,
        **asks,
        "calibration": {"temperature": 1.0, "isotonic": SAME},
        "evaluation": {"n": 9, "metrics": {"micro_f1": FIGURE}},
        **changes,
    }
    document = bundle.manifest.model_dump(mode="json")
    document["tiers"].append(tier)
    return replace(bundle, manifest=BundleManifest.model_validate(document))


def with_remote_fields(bundle: Bundle, *, calibrated: bool = True, **asks: Any) -> Bundle:
    """A bundle with a remote tier; ``asks`` are changes of what it asks."""
    asked = {"model": "big", "json_schema": SCHEMA, **asks}
    changes: dict[str, Any] = {} if calibrated else {"calibration": None}
    return with_tier(bundle, {"remote": asked}, **changes)


def with_language_fields(bundle: Bundle, base: ModelManifest, **asks: Any) -> Bundle:
    """A bundle with a language tier; ``asks`` are changes of what it asks."""
    asked = {"json_schema": SCHEMA, **asks}
    reference = {"name": base.name, "digest": base.digest}
    return with_tier(bundle, {"base": reference, "language": asked})
