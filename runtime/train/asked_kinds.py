"""What tiers without weights are to each kind of task."""

from __future__ import annotations

from typing import Any

from sprat.bundle_manifest import BundleManifest
from sprat.train.asked import AskedKind
from sprat.train.asked_categories import AskedCategories
from sprat.train.asked_fields import AskedFields
from sprat.train.asked_labels import AskedLabels
from sprat.train.asked_rewritings import AskedRewritings

AnyAskedKind = AskedKind[Any, Any, Any, Any, Any]

ASKED: dict[str, AnyAskedKind] = {
    "classify": AskedLabels(),
    "route": AskedLabels(),
    "moderate": AskedCategories(),
    "extract": AskedFields(),
    "transform": AskedRewritings(),
}
"""By kind of bundle."""


def asked_kind(bundle: BundleManifest) -> AnyAskedKind:
    """That of a bundle."""
    return ASKED[bundle.kind]
