"""What is loaded: models and tasks by name."""

from __future__ import annotations

import logging

from sprat import adapter as adapters
from sprat import model as models
from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.config import Config, ModelConfig
from sprat.errors import ConfigError, NotFound
from sprat.model import GenerativeModel, Model
from sprat.scheduler import ComputePool
from sprat.store import Store
from sprat.task_config import ModelTaskConfig, TaskConfig
from sprat.tasks import named
from sprat.tasks.cascade import Cascade, Part
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.named import NamedTask
from sprat.tasks.route import RouteTask
from sprat.tasks.tag import TagTask

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
                wanted = dict.fromkeys((*settings.adapters, *_adapters_of_tasks(config, name)))
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
                manifest, folder = store.bundle(task.bundle)
                names = [tier.base.name for tier in manifest.tiers]
                bundle = Bundle.load(folder, bases={name: store.model(name)[0] for name in names})
                accept_at = _thresholds(name, manifest, task)
                parts = [
                    Part(at, models.require_encoder(load_model(names[at]), manifest.kind), least)
                    for at, least in accept_at.items()
                ]
                return _bundle_task(name, bundle, parts, task, pool)
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


def _bundle_task(
    name: str, bundle: Bundle, parts: list[Part], task: TaskConfig, pool: ComputePool
) -> Task:
    """The task of a bundle on the models of its tiers."""
    manifest, model = bundle.manifest, parts[-1].model
    if task.thresholds and manifest.kind != "moderate":
        raise ConfigError(
            f"tasks.{name}.thresholds",
            f"expected none: a bundle of kind {manifest.kind} has accept_at",
        )
    if manifest.kind == "extract":
        states = models.require_states(model, manifest.kind)
        return TagTask(name, bundle, states, pool, accept_at=task.accept_at)
    if manifest.kind == "moderate":
        if task.accept_at is not None:
            raise ConfigError(
                f"tasks.{name}.accept_at",
                "expected none: a moderate bundle has thresholds for each category",
            )
        return ModerateTask(name, bundle, model, pool, thresholds=task.thresholds)
    classifier = (
        ClassifyTask(name, bundle, model, accept_at=parts[0].accept_at)
        if len(parts) == 1
        else Cascade(name, bundle, parts, on_failure=task.on_failure)
    )
    return classifier if manifest.route is None else RouteTask(classifier, manifest.route)


def _adapters_of_tasks(config: Config, model: str) -> list[str]:
    """The adapters that tasks name for a model."""
    return [
        task.adapter
        for task in config.tasks.values()
        if not isinstance(task, TaskConfig) and task.model == model and task.adapter
    ]
