"""What is loaded: models and tasks by name."""

from __future__ import annotations

import logging

from sprat import adapter as adapters
from sprat import model as models
from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.config import Config, ModelConfig
from sprat.errors import NotFound
from sprat.model import Model
from sprat.scheduler import ComputePool
from sprat.store import Store
from sprat.tasks.classify import ClassifyTask

log = logging.getLogger(__name__)


class Registry:
    """Loaded models and tasks.

    Attributes
    ----------
    models, tasks : dict
        By name, sorted.
    """

    def __init__(self, loaded: dict[str, Model], tasks: dict[str, ClassifyTask]) -> None:
        self.models = dict(sorted(loaded.items()))
        self.tasks = dict(sorted(tasks.items()))

    @classmethod
    def load(
        cls, config: Config, store: Store, *, permits: ComputePermits, pool: ComputePool
    ) -> Registry:
        """Load everything that the configuration names, verified, from the store.

        A task brings the model of its bundle along.

        Raises
        ------
        NotFound, CorruptFile, StaleBundle, StaleAdapter, EngineError
            When something is missing or cannot be used; what was loaded is released.
        """
        loaded: dict[str, Model] = {}

        def load_model(name: str) -> Model:
            if name not in loaded:
                manifest, folder = store.model(name, check=True)
                settings = config.models.get(name, ModelConfig())
                found = adapters.resolve(settings.adapters, store, base=manifest)
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

        tasks = {}
        try:
            for name in config.models:
                load_model(name)
            for name, task in config.tasks.items():
                bundle_manifest, folder = store.bundle(task.bundle)
                base_manifest, _ = store.model(bundle_manifest.base.name)
                bundle = Bundle.load(folder, base=base_manifest)
                encoder = models.require_encoder(load_model(base_manifest.name), "classify")
                tasks[name] = ClassifyTask(name, bundle, encoder, accept_at=task.accept_at)
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

    def task(self, name: str) -> ClassifyTask:
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
