"""From a bundle to its task: what its tiers and the task are, by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sprat import model as models
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.endpoints.base import Endpoint
from sprat.model import GenerativeModel, Model
from sprat.scheduler import ComputePool
from sprat.task_config import ThresholdsConfig
from sprat.tasks.category_heads_tier import CategoryHeadsTier
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.extract_task import ExtractTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.language_categories_tier import LanguageCategoriesTier
from sprat.tasks.language_fields_tier import LanguageFieldsTier
from sprat.tasks.language_tier import LanguageTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.remote_categories_tier import RemoteCategoriesTier
from sprat.tasks.remote_fields_tier import RemoteFieldsTier
from sprat.tasks.remote_rewriter import RemoteRewriter
from sprat.tasks.remote_tier import RemoteTier
from sprat.tasks.rewrite_tier import LanguageRewriter
from sprat.tasks.route import RouteTask
from sprat.tasks.tag_tier import TagTier
from sprat.tasks.tier import AnyTier, Part
from sprat.tasks.transform_task import TransformTask
from sprat.values import OnFailure

BundledTask = ClassifyTask | RouteTask | ModerateTask | ExtractTask | TransformTask

_ON_LANGUAGE_MODEL: dict[str, Callable[[BundleManifest, int, GenerativeModel], AnyTier]] = {
    "classify": LanguageTier.of,
    "route": LanguageTier.of,
    "moderate": LanguageCategoriesTier.of,
    "extract": LanguageFieldsTier.of,
    "transform": LanguageRewriter.of,
}
_ON_ENDPOINT: dict[str, Callable[[BundleManifest, int, Endpoint], AnyTier]] = {
    "classify": RemoteTier.of,
    "route": RemoteTier.of,
    "moderate": RemoteCategoriesTier.of,
    "extract": RemoteFieldsTier.of,
    "transform": RemoteRewriter.of,
}


def tier_with_weights(bundle: Bundle, place: int, model: Model, pool: ComputePool) -> AnyTier:
    """The tier at a place of a bundle, on the model that it was trained on.

    Raises
    ------
    TaskNotSupported
        The model is of another sort.
    """
    kind = bundle.manifest.kind
    if kind == "extract":
        return TagTier.of(bundle, place, models.require_states(model, kind), pool)
    encoder = models.require_encoder(model, kind)
    if kind == "moderate":
        return CategoryHeadsTier.of(bundle, place, encoder, pool)
    return HeadTier.of(bundle, place, encoder)


def language_tier(manifest: BundleManifest, place: int, model: Model) -> AnyTier:
    """The language tier at a place of a bundle, on its model with its adapter.

    Raises
    ------
    InvalidInput, TaskNotSupported
        The model cannot be asked that.
    """
    name = manifest.tiers[place].name
    generative = models.require_generative(model, f"tier {name}")
    return _ON_LANGUAGE_MODEL[manifest.kind](manifest, place, generative)


def remote_tier(manifest: BundleManifest, place: int, endpoint: Endpoint) -> AnyTier:
    """The remote tier at a place of a bundle, on an endpoint.

    Raises
    ------
    ConfigError
        The endpoint is not what the tier was calibrated with.
    InvalidInput
        It cannot be asked that.
    """
    return _ON_ENDPOINT[manifest.kind](manifest, place, endpoint)


def bundled_task(
    name: str,
    manifest: BundleManifest,
    parts: Sequence[Part[Any]],
    *,
    on_failure: OnFailure = "abstain",
    unconfigured: tuple[str, ...] = (),
    thresholds: Mapping[str, ThresholdsConfig] = {},
) -> BundledTask:
    """The task of a bundle on its tiers that take part; see `sprat.tasks.cascade.Escalation`.

    Parameters
    ----------
    thresholds : mapping of str to ThresholdsConfig
        Of a moderate task.
    """
    if manifest.kind == "extract":
        return ExtractTask(name, manifest, parts, on_failure=on_failure, unconfigured=unconfigured)
    if manifest.kind == "moderate":
        return ModerateTask(
            name,
            manifest,
            parts,
            on_failure=on_failure,
            thresholds=thresholds,
            unconfigured=unconfigured,
        )
    if manifest.kind == "transform":
        return TransformTask(
            name, manifest, parts, on_failure=on_failure, unconfigured=unconfigured
        )
    classifier = ClassifyTask(
        name, manifest, parts, on_failure=on_failure, unconfigured=unconfigured
    )
    return classifier if manifest.route is None else RouteTask(classifier, manifest.route)
