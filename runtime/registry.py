"""What is loaded: models and tasks by name."""

from __future__ import annotations

import logging

from sprat import adapter as adapters
from sprat import model as models
from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.config import Config, ModelConfig
from sprat.errors import ConfigError, InvalidInput, NotFound
from sprat.model import EmbeddingModel, GenerativeModel, Model
from sprat.scheduler import ComputePool
from sprat.store import Store
from sprat.task_config import ModelTaskConfig, TaskConfig
from sprat.tasks import named
from sprat.tasks.cascade import Cascade, Part
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.language_tier import LanguageTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.named import NamedTask
from sprat.tasks.route import RouteTask
from sprat.tasks.tag import TagTask
from sprat.tasks.tier import Tier

log = logging.getLogger(__name__)

Task = Cascade | ClassifyTask | ModerateTask | RouteTask | TagTask | NamedTask


class Registry:
    """Loaded models and tasks.

    Attributes
    ----------
    models, tasks : dict
        By name, sorted.
    """

    def __init__(self, loaded: dict[str, Model], tasks: dict[str, Task]) -> None:
        self.models = dict(sorted(loaded.items()))
        self.tasks = dict(sorted(tasks.items()))

    @classmethod
    def load(
        cls, config: Config, store: Store, *, permits: ComputePermits, pool: ComputePool
    ) -> Registry:
        """Load everything that the configuration names, verified, from the store.

        A task brings its model along, or those of the tiers of its bundle that take part; and its
        adapter.

        Raises
        ------
        NotFound, CorruptFile, StaleBundle, StaleAdapter, EngineError
            When something is missing or cannot be used; what was loaded is released.
        ConfigError, TaskNotSupported
            For a task that its model cannot do.
        """
        loaded: dict[str, Model] = {}

        def load_model(name: str) -> Model:
            if name not in loaded:
                manifest, folder = store.model(name, check=True)
                settings = config.models.get(name, ModelConfig())
                of_tasks = _adapters_of_tasks(config, store, name)
                wanted = dict.fromkeys((*settings.adapters, *of_tasks))
                found = adapters.resolve(wanted, store, base=manifest)
                log.info("loading model %s (%s, %s)", name, manifest.engine, manifest.quantization)
                loaded[name] = models.load(
                    manifest,
                    folder,
                    settings,
                    adapters=found,
                    permits=permits,
                    pool=pool,
                    queue_tokens=config.compute.queue_tokens,
                )
            return loaded[name]

        def load_task(name: str, task: TaskConfig | ModelTaskConfig) -> Task:
            if isinstance(task, TaskConfig):
                bundle = Bundle.open(store, task.bundle)
                manifest = bundle.manifest
                accept_at = _thresholds(name, manifest, task)
                used = {at: load_model(manifest.tiers[at].base.name) for at in accept_at}
                if manifest.kind not in ("classify", "route"):
                    (only,) = used.values()
                    encoder = models.require_encoder(only, manifest.kind)
                    return _single_task(name, bundle, encoder, task, pool)
                parts = [
                    Part(at, _tier(name, bundle, at, used[at]), least)
                    for at, least in accept_at.items()
                ]
                return _classifier(name, manifest, parts, task)
            model = load_model(task.model)
            if not isinstance(model, GenerativeModel):
                raise ConfigError(
                    f"tasks.{name}.model",
                    f"expected a generative model, but {task.model} is an {model.info.kind}",
                )
            version = store.adapter(task.adapter)[0].version if task.adapter else ""
            return named.load(name, task.spec(), model, adapter_version=version)

        tasks = {}
        try:
            for name in config.models:
                load_model(name)
            for name, task in config.tasks.items():
                tasks[name] = load_task(name, task)
        except BaseException:
            for each in loaded.values():
                each.close()
            raise
        return cls(loaded, tasks)

    def model(self, name: str) -> Model:
        """A loaded model.

        Raises
        ------
        NotFound
            With the names that are loaded.
        """
        try:
            return self.models[name]
        except KeyError:
            raise NotFound("model", name, tuple(self.models)) from None

    def task(self, name: str) -> Task:
        """A task.

        Raises
        ------
        NotFound
            With the names that exist.
        """
        try:
            return self.tasks[name]
        except KeyError:
            raise NotFound("task", name, tuple(self.tasks)) from None

    def close(self) -> None:
        """Finish what waits and release every model."""
        for each in self.models.values():
            each.close()


def _thresholds(name: str, manifest: BundleManifest, task: TaskConfig) -> dict[int, float]:
    """The tiers of a bundle that take part in a task: their thresholds, by their places.

    A cascade is made of the tiers that have a threshold, and the last one. Without a threshold a
    tier would answer everything, and those behind it nothing: 0 leaves it out, and only of the last
    one means that it never abstains. So a bundle whose thresholds nobody chose is answered by its
    last tier alone.
    """
    if task.thresholds and manifest.kind != "moderate":
        raise ConfigError(
            f"tasks.{name}.thresholds",
            f"expected none: a bundle of kind {manifest.kind} has accept_at",
        )
    names = [tier.name for tier in manifest.tiers]
    given = {tier: settings.accept_at for tier, settings in task.tiers.items()}
    if manifest.kind not in ("classify", "route"):
        for field in ("tiers", "on_failure"):
            if field in task.model_fields_set:
                raise ConfigError(
                    f"tasks.{name}.{field}",
                    f"expected none: a bundle of kind {manifest.kind} has no cascade",
                )
        return {len(names) - 1: manifest.tiers[-1].accept_at}
    for tier in given:
        if tier not in names:
            raise ConfigError(
                f"tasks.{name}.tiers.{tier}",
                f"expected a tier of bundle {manifest.name}: {', '.join(names)}",
            )
    if task.accept_at is not None:
        if names[-1] in given:
            raise ConfigError(
                f"tasks.{name}.accept_at", f"says the same as tiers.{names[-1]}.accept_at; keep one"
            )
        given[names[-1]] = task.accept_at
    thresholds = [given.get(tier.name, tier.accept_at) for tier in manifest.tiers]
    return {
        place: accept_at
        for place, accept_at in enumerate(thresholds)
        if accept_at > 0 or place == len(names) - 1
    }


def _tier(name: str, bundle: Bundle, place: int, model: Model) -> Tier:
    """The tier at a place of a bundle of kind classify or route, on its model."""
    manifest = bundle.manifest
    tier = manifest.tiers[place]
    if tier.language is None:
        return HeadTier.of(bundle, place, models.require_encoder(model, manifest.kind))
    generative = models.require_generative(model, f"tier {tier.name}")
    try:
        return LanguageTier.of(manifest, place, generative)
    except InvalidInput as error:
        raise ConfigError(f"tasks.{name}.tiers.{tier.name}", error.message) from None


def _single_task(
    name: str, bundle: Bundle, model: EmbeddingModel, task: TaskConfig, pool: ComputePool
) -> Task:
    """The task of a bundle of a kind that has no cascade, on the model of its last tier."""
    kind = bundle.manifest.kind
    if kind == "extract":
        states = models.require_states(model, kind)
        return TagTask(name, bundle, states, pool, accept_at=task.accept_at)
    if task.accept_at is not None:
        raise ConfigError(
            f"tasks.{name}.accept_at",
            "expected none: a moderate bundle has thresholds for each category",
        )
    return ModerateTask(name, bundle, model, pool, thresholds=task.thresholds)


def _classifier(
    name: str, manifest: BundleManifest, parts: list[Part], task: TaskConfig
) -> ClassifyTask | Cascade | RouteTask:
    """The task of a bundle of kind classify or route on its tiers that take part."""
    classifier = (
        ClassifyTask(name, manifest, parts[0].tier, accept_at=parts[0].accept_at)
        if len(parts) == 1
        else Cascade(name, manifest, parts, on_failure=task.on_failure)
    )
    return classifier if manifest.route is None else RouteTask(classifier, manifest.route)


def _adapters_of_tasks(config: Config, store: Store, model: str) -> list[str]:
    """The adapters that tasks name for a model, themselves or in the tiers of their bundles."""
    found = []
    for task in config.tasks.values():
        if not isinstance(task, TaskConfig):
            found += [task.adapter] if task.model == model and task.adapter else []
            continue
        for tier in store.bundle(task.bundle)[0].tiers:
            asked = tier.language
            if tier.base.name == model and asked is not None and asked.adapter is not None:
                found.append(asked.adapter.name)
    return found
