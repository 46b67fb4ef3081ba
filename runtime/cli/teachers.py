"""The larger models that commands name: bundles and models of the store, and remote endpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sprat.errors import InvalidInput, NotFound
from sprat.inprocess import Runtime
from sprat.remote import ChatEndpoint, is_url, read_key
from sprat.scheduler import LoopThread
from sprat.store import Store
from sprat.train.teacher import (
    Labeller,
    LocalLabeller,
    LocalWriter,
    RemoteLabeller,
    RemoteWriter,
    Writer,
)
from sprat.values import Label, LabelSet, Truncation

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.manifest import ModelManifest


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """What options say of endpoints; see `sprat.remote.ChatEndpoint`.

    Attributes
    ----------
    key_file : Path or None
        See `sprat.remote.read_key`.
    """

    model: str
    key_file: Path | None
    tls_ca: str | None
    timeout_s: float
    concurrency: int


class Teachers:
    """Teachers by name, each loaded or connected once. Use it as a context manager.

    What is local is loaded, all at once, when the first of it is asked for.

    Parameters
    ----------
    names : sequence of str
        URLs of endpoints; else bundles, by name or path; else generative models.
    options : EndpointOptions
        For all endpoints.

    Raises
    ------
    NotFound, ConfigError, InvalidInput
        A name or an option cannot be used. Nothing was sent to anybody.
    """

    def __init__(self, names: Sequence[str], options: EndpointOptions) -> None:
        self._bundles: dict[str, BundleManifest] = {}
        self._models: dict[str, ModelManifest] = {}
        self._endpoints: dict[str, ChatEndpoint] = {}
        store = Store()
        for name in dict.fromkeys(names):
            if not is_url(name):
                self._find(name, store)
        with contextlib.ExitStack() as stack:
            for name in dict.fromkeys(filter(is_url, names)):
                self._endpoints[name] = self._connect(name, options)
            if self._endpoints:
                self._loop = LoopThread()
                stack.callback(self._loop.close)
            for endpoint in self._endpoints.values():
                stack.callback(self._close, endpoint)
            self._stack = stack.pop_all()
        self._store = store
        self._loaded: Runtime | None = None

    def __enter__(self) -> Teachers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def labeller(
        self,
        name: str,
        labels: Sequence[Label],
        *,
        instructions: str = "",
        votes: int = 1,
        truncation: Truncation = "refuse",
        judging: bool = False,
    ) -> Labeller:
        """A teacher that labels texts.

        Parameters
        ----------
        labels : sequence of Label
            To choose from; a bundle has its own.
        judging : bool
            Whether ``labels`` are those to be recognized, which a bundle must know.

        Raises
        ------
        InvalidInput
            Labels are missing, or are not those of the bundle.
        """
        if name in self._bundles:
            bundle = self._bundles[name]
            unknown = [each.name for each in labels if each.name not in bundle.labels]
            if judging and unknown:
                raise InvalidInput(
                    f"bundle {bundle.name} does not know the label {unknown[0]!r}", field="labels"
                )
            if labels and not judging:
                raise InvalidInput(
                    f"bundle {bundle.name} has labels of its own; expected none", field="labels"
                )
            return LocalLabeller(
                self._runtime(),
                bundle.name,
                name=f"{bundle.name}@{bundle.version}",
                truncation=truncation,
            )
        if not labels:
            raise InvalidInput(f"{name}: expected --labels or --labels-file", field="labels")
        if name in self._endpoints:
            return RemoteLabeller(
                self._endpoints[name],
                labels,
                instructions=instructions,
                votes=votes,
                run=self._loop.run,
            )
        return LocalLabeller(
            self._runtime(),
            LabelSet(name, tuple(labels), instructions),
            name=f"{name}@{self._models[name].version}",
        )

    def writer(self, name: str) -> Writer:
        """A teacher that writes texts.

        Raises
        ------
        InvalidInput
            A bundle: it cannot write.
        """
        if name in self._endpoints:
            return RemoteWriter(self._endpoints[name], run=self._loop.run)
        if name in self._bundles:
            raise InvalidInput(
                f"{name} is a bundle; expected a generative model or an endpoint", field="with"
            )
        return LocalWriter(self._runtime(), name, name=f"{name}@{self._models[name].version}")

    def _runtime(self) -> Runtime:
        if self._loaded is None:
            self._loaded = self._stack.enter_context(
                Runtime(models=list(self._models), tasks=list(self._bundles), store=self._store)
            )
        return self._loaded

    def _close(self, endpoint: ChatEndpoint) -> None:
        self._loop.run(endpoint.aclose())

    def _find(self, name: str, store: Store) -> None:
        """Note a bundle, or else a model."""
        try:
            self._bundles[name] = store.bundle(name)[0]
        except NotFound as error:
            if "/" in name:
                raise
            try:
                self._models[name] = store.model(name)[0]
            except NotFound:
                raise error from None

    @staticmethod
    def _connect(url: str, options: EndpointOptions) -> ChatEndpoint:
        if not options.model:
            raise InvalidInput("expected --model with an endpoint", field="model")
        return ChatEndpoint(
            url,
            options.model,
            key=read_key(options.key_file),
            ca=Path(options.tls_ca) if options.tls_ca else None,
            timeout_s=options.timeout_s,
            concurrency=options.concurrency,
        )
