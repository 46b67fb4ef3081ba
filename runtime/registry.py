"""What is loaded: models and tasks by name."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

from sprat import adapter as adapters
from sprat import model as models
from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.config import Config, ModelConfig
from sprat.endpoints.base import Endpoint
from sprat.errors import ConfigError, InvalidInput, NotFound
from sprat.model import GenerativeModel, Model
from sprat.scheduler import ComputePool, Mailbox
from sprat.store import Store
from sprat.task_config import ModelTaskConfig, TaskConfig
from sprat.tasks import bundled, named
from sprat.tasks.bundled import BundledTask
from sprat.tasks.named import NamedTask
from sprat.tasks.tier import AnyTier, Part
from sprat.tasks.warm_up import warm_up

log = logging.getLogger(__name__)

Task = BundledTask | NamedTask


class Registry:
    """Loaded models and tasks.

    Attributes
    ----------
    models, tasks : dict
        By name, sorted.
    endpoints : dict
        Those that tiers ask, by name.
    """

    def __init__(
        self,
        loaded: dict[str, Model],
        tasks: dict[str, Task],
        endpoints: dict[str, Endpoint] | None = None,
    ) -> None:
        self.endpoints = endpoints or {}
        self.models = dict(sorted(loaded.items()))
        self.tasks = dict(sorted(tasks.items()))
        self._configured = tuple(tasks.values())

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
        endpoints: dict[str, Endpoint] = {}
        of_tasks = _adapters_of_tasks(config, store)

        def load_model(name: str) -> Model:
            if name not in loaded:
                manifest, folder = store.model(name, check=True)
                settings = config.models.get(name, ModelConfig())
                wanted = dict.fromkeys((*settings.adapters, *of_tasks.get(name, ())))
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

        def endpoint(name: str) -> Endpoint:
            if name not in endpoints:
                # It brings the HTTP client along, which most servers never need.
                from sprat.endpoints.opening import open_endpoint

                endpoints[name] = open_endpoint(name, config.endpoints[name], store.endpoints)
            return endpoints[name]

        def tier(name: str, bundle: Bundle, place: int, asked: dict[int, str]) -> AnyTier:
            manifest = bundle.manifest
            about = manifest.tiers[place]
            make: Callable[[], AnyTier]
            if place in asked:
                log.info("task %s: its remote tier asks endpoint %s", name, asked[place])
                far = endpoint(asked[place])
                make = functools.partial(bundled.remote_tier, manifest, place, far)
            else:
                model = load_model(about.model.name)
                if about.weights:
                    return bundled.tier_with_weights(bundle, place, model, pool)
                make = functools.partial(bundled.language_tier, manifest, place, model)
            try:
                return make()
            except InvalidInput as error:
                raise ConfigError(f"tasks.{name}.tiers.{about.name}", error.message) from None

        def load_task(name: str, task: TaskConfig | ModelTaskConfig) -> Task:
            if isinstance(task, TaskConfig):
                bundle = Bundle.open(store, task.bundle)
                manifest = bundle.manifest
                asked = _endpoints(name, manifest, task, config)
                accept_at = _thresholds(name, manifest, task, asked)
                parts = [
                    Part(at, tier(name, bundle, at, asked), least)
                    for at, least in accept_at.items()
                ]
                unconfigured = tuple(
                    each.name
                    for at, each in enumerate(manifest.tiers)
                    if each.remote is not None and at not in asked
                )
                return bundled.bundled_task(
                    name,
                    manifest,
                    parts,
                    on_failure=task.on_failure,
                    unconfigured=unconfigured,
                    thresholds=task.thresholds,
                )
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
        return cls(loaded, tasks, endpoints)

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have generative models read what the prompts of tasks begin with, in the order given.

        See `sprat.tasks.warm_up.warm_up`.
        """
        await warm_up(self._configured, self.models, mailbox)

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

    async def aclose(self) -> None:
        """Close the connections to endpoints, on the loop of their questions."""
        for each in self.endpoints.values():
            await each.aclose()

    def close(self) -> None:
        """Finish what waits and release every model."""
        for each in self.models.values():
            each.close()


def _endpoints(
    name: str, manifest: BundleManifest, task: TaskConfig, config: Config
) -> dict[int, str]:
    """The endpoints that the configuration names for remote tiers of a bundle, by their places.

    Without one a remote tier is left out: nothing leaves this machine that nobody asked for.
    """
    asked = {}
    for place, tier in enumerate(manifest.tiers):
        given = task.tiers.get(tier.name)
        endpoint = "" if given is None else given.endpoint
        where = f"tasks.{name}.tiers.{tier.name}.endpoint"
        if tier.remote is None:
            if endpoint:
                raise ConfigError(where, "expected none: the tier is not remote")
        elif not endpoint:
            log.warning("task %s: tier %s is left out: %s names none", name, tier.name, where)
        elif endpoint not in config.endpoints:
            known = ", ".join(config.endpoints) or "none"
            raise ConfigError(where, f"no endpoint named {endpoint!r}; known: {known}")
        else:
            asked[place] = endpoint
    return asked


def _thresholds(
    name: str, manifest: BundleManifest, task: TaskConfig, asked: Mapping[int, str]
) -> dict[int, float]:
    """The tiers of a bundle that take part in a task: their thresholds, by their places.

    A cascade is made of the tiers that have a threshold, and the last one. Without a threshold a
    tier would answer everything, and those behind it nothing: 0 leaves it out, and only of the last
    one means that it never abstains. So a bundle whose thresholds nobody chose is answered by its
    last tier alone.

    A remote tier without an endpoint is as if the bundle did not have it, and none is alone.
    """
    if task.thresholds and manifest.kind != "moderate":
        raise ConfigError(
            f"tasks.{name}.thresholds",
            f"expected none: a bundle of kind {manifest.kind} has no categories",
        )
    names = [tier.name for tier in manifest.tiers]
    given = {
        tier: settings.accept_at
        for tier, settings in task.tiers.items()
        if settings.accept_at is not None
    }
    for tier in task.tiers:
        if tier not in names:
            raise ConfigError(
                f"tasks.{name}.tiers.{tier}",
                f"expected a tier of bundle {manifest.name}: {', '.join(names)}",
            )
    usable = [
        place for place, tier in enumerate(manifest.tiers) if tier.remote is None or place in asked
    ]
    last = names[usable[-1]]
    if task.accept_at is not None:
        if last in given:
            raise ConfigError(
                f"tasks.{name}.accept_at", f"says the same as tiers.{last}.accept_at; keep one"
            )
        given[last] = task.accept_at
    thresholds = [given.get(tier.name, tier.accept_at) for tier in manifest.tiers]
    taking_part = {
        place: thresholds[place] for place in usable if thresholds[place] > 0 or place == usable[-1]
    }
    if min(taking_part) in asked:
        raise ConfigError(
            f"tasks.{name}.tiers.{last}.endpoint",
            f"every text would be sent: no tier before {last} has a threshold; choose them with "
            "sprat tune, or set accept_at",
        )
    return taking_part


def _adapters_of_tasks(config: Config, store: Store) -> dict[str, list[str]]:
    """By model, the adapters that tasks name, themselves or in the tiers of their bundles."""
    found: dict[str, list[str]] = {}
    for task in config.tasks.values():
        if not isinstance(task, TaskConfig):
            if task.adapter:
                found.setdefault(task.model, []).append(task.adapter)
            continue
        for tier in store.bundle(task.bundle)[0].tiers:
            asked = tier.language
            if asked is not None and asked.adapter is not None:
                found.setdefault(tier.model.name, []).append(asked.adapter.name)
    return found
