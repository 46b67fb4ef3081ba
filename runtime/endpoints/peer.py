"""Another sprat server whose task a tier asks."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar, cast

from sprat.asked_manifest import AnyRemote, Remote, RemoteCategories, RemoteFields, RemoteRewriting
from sprat.client.aio import AsyncClient
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.base import (
    OnSaid,
    SaidCategories,
    SaidFields,
    SaidLabel,
    SaidT,
    SaidText,
    missed,
    tell,
)
from sprat.endpoints.chat import check_model
from sprat.endpoints.guard import Guard
from sprat.endpoints.spending import Usage
from sprat.errors import ConfigError, EngineError, SpratError
from sprat.values import (
    Chunk,
    Classification,
    ClassifyResult,
    Extraction,
    ExtractResult,
    ItemError,
    ModerateResult,
    Moderation,
)

ItemT = TypeVar("ItemT", Classification, Moderation, Extraction)
ItemT_co = TypeVar("ItemT_co", Classification, Moderation, Extraction, covariant=True)


class _Result(Protocol[ItemT_co]):
    """What a verb gives."""

    @property
    def items(self) -> Sequence[ItemT_co | None]: ...
    @property
    def errors(self) -> Sequence[ItemError]: ...
    @property
    def task_version(self) -> str: ...


class PeerService:
    """See `Endpoint`. Its client tries again while the server is unavailable.

    Parameters
    ----------
    token : str or None
        Its bearer token.

    Raises
    ------
    ConfigError
        The URL or the authorities cannot be used.
    """

    def __init__(self, name: str, config: EndpointConfig, guard: Guard, token: str | None) -> None:
        self.name = name
        self.guard = guard
        self._config = config
        self._token = token
        self._target = _target(name, config)
        self._places = asyncio.Semaphore(config.concurrency)
        self._made: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """Made on the loop that asks first."""
        if self._made is None:
            self._made = AsyncClient(
                self._target,
                token=self._token,
                tls_ca=self._config.ca,
                timeout_s=self._config.timeout_s,
            )
        return self._made

    @property
    def places(self) -> asyncio.Semaphore:
        """For requests side by side."""
        return self._places

    def labels(self, asked: Remote) -> PeerLabels:
        """See `Endpoint.labels`."""
        self._check(asked)
        return PeerLabels(self, asked)

    def categories(self, asked: RemoteCategories) -> PeerCategories:
        """See `Endpoint.categories`."""
        self._check(asked)
        return PeerCategories(self, asked)

    def fields(self, asked: RemoteFields) -> PeerFields:
        """See `Endpoint.fields`."""
        self._check(asked)
        return PeerFields(self, asked)

    def texts(self, asked: RemoteRewriting, *, schema: str | None, has_logprobs: bool) -> PeerTexts:
        """See `Endpoint.texts`. The task has its own grammar and its own confidence."""
        self._check(asked)
        return PeerTexts(self, asked, self._config.timeout_s)

    def _check(self, asked: AnyRemote) -> None:
        """Refuse what was calibrated with something else."""
        if not asked.task_version:
            raise ConfigError(
                f"endpoints.{self.name}.url",
                f"expected the chat endpoint with model {asked.model}, which the tier was "
                "calibrated with",
            )
        check_model(self.name, self._config.model, asked)

    async def task_version(self, kind: str, labels: Sequence[str]) -> str:
        """See `Endpoint.task_version`."""
        name = self._config.model
        known = {task.name: task for task in await self.client.list_tasks()}
        where = f"endpoints.{self.name}.model"
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(where, f"the server has no task {name!r}; known: {listed}")
        task = known[name]
        if task.kind != kind or sorted(task.labels) != sorted(labels):
            raise ConfigError(
                where,
                f"expected a task of kind {kind} with the labels of the bundle; {name} is of kind "
                f"{task.kind} with {len(task.labels)} labels",
            )
        return task.version

    async def aclose(self) -> None:
        """Close the connection."""
        if self._made is not None:
            await self._made.close()


class _PeerQuestion(ABC, Generic[ItemT, SaidT]):
    """See `Question`. The texts of a call travel together."""

    def __init__(self, peer: PeerService, asked: AnyRemote) -> None:
        self._peer = peer
        self._task = asked.model
        self._version = asked.task_version

    async def ask(
        self, texts: Sequence[str], *, deadline: float, on_said: OnSaid[SaidT] | None = None
    ) -> list[SaidT | SpratError]:
        """See `Question.ask`. Who asks gives up at the deadline: nothing is answered before all."""
        peer = self._peer
        most = Usage(sum(len(text.encode()) for text in texts), 0)
        with peer.guard.room(len(texts)):
            async with peer.places:
                try:
                    with peer.guard.attempt(most) as attempt:
                        result = await self._call(peer.client, texts)
                        read = sum(item.input_tokens for item in result.items if item is not None)
                        attempt.used = Usage(read, 0)
                except SpratError as error:
                    return [missed(peer.name, error)] * len(texts)
        if result.task_version != self._version:
            stale = _stale(peer.name, self._task, self._version, result.task_version)
            return [stale] * len(texts)
        if len(result.items) != len(texts):
            return [EngineError(f"endpoint {peer.name}: answers are missing")] * len(texts)
        reasons = {each.index: each.reason for each in result.errors}
        heard: list[SaidT | SpratError] = [
            EngineError(f"endpoint {peer.name} failed ({reasons.get(index, 'no answer')})")
            if item is None
            else self._said(item)
            for index, item in enumerate(result.items)
        ]
        tell(heard, on_said)
        return heard

    @abstractmethod
    async def _call(self, client: AsyncClient, texts: Sequence[str]) -> _Result[ItemT]:
        """Ask the task."""

    @abstractmethod
    def _said(self, item: ItemT) -> SaidT:
        """What an answer says."""


class PeerLabels(_PeerQuestion[Classification, SaidLabel]):
    """Asks a classify task."""

    def __init__(self, peer: PeerService, asked: Remote) -> None:
        super().__init__(peer, asked)
        self._labels = {label.name for label in asked.labels}

    async def _call(self, client: AsyncClient, texts: Sequence[str]) -> ClassifyResult:
        return await client.classify(self._task, texts, top_k=1, partial=True)

    def _said(self, item: Classification) -> SaidLabel:
        # Also what it abstained from has a best label.
        best = item.scores[0] if item.scores else None
        if best is None or best.label not in self._labels:
            return SaidLabel(0.0, item.input_tokens, "")
        sure = best.score if item.confidence is None else item.confidence
        return SaidLabel(sure, item.input_tokens, best.label)


class PeerCategories(_PeerQuestion[Moderation, SaidCategories]):
    """Asks a moderate task: its probabilities count, not what it does about a text."""

    async def _call(self, client: AsyncClient, texts: Sequence[str]) -> ModerateResult:
        return await client.moderate(self._task, texts, partial=True)

    def _said(self, item: Moderation) -> SaidCategories:
        return SaidCategories.of(
            {each.category: each.probability for each in item.categories},
            item.input_tokens,
            spans={each.category: (each.start, each.end) for each in item.categories},
            chunks=item.chunks,
        )


class PeerFields(_PeerQuestion[Extraction, SaidFields]):
    """Asks an extract task.

    Without a calibration there its answer is as sure as its fields together: how sure it is that
    no other is there, such a task does not say.
    """

    async def _call(self, client: AsyncClient, texts: Sequence[str]) -> ExtractResult:
        return await client.extract(self._task, texts, long_input="chunk", partial=True)

    def _said(self, item: Extraction) -> SaidFields:
        if item.value is None:
            return SaidFields(0.0, item.input_tokens, None, {})
        scores = {field.path: field.score for field in item.fields}
        sure = math.prod(scores.values()) if item.confidence is None else item.confidence
        return SaidFields(sure, item.input_tokens, item.value, scores)


class PeerTexts:
    """Asks a transform task; see `TextQuestion`.

    What the task abstains from has no text, and so is not complete.
    """

    def __init__(self, peer: PeerService, asked: RemoteRewriting, timeout_s: float) -> None:
        self._peer = peer
        self._task = asked.model
        self._version = asked.task_version
        self._timeout_s = timeout_s

    async def ask(
        self,
        texts: Sequence[str],
        *,
        deadline: float,
        on_said: OnSaid[SaidText] | None = None,
        inputs: Mapping[str, str] = {},
    ) -> list[SaidText | SpratError]:
        """See `TextQuestion.ask`."""

        async def one(at: int, text: str) -> SaidText | SpratError:
            said = await self._ask(text, inputs)
            if on_said is not None and isinstance(said, SaidText):
                on_said(at, said)
            return said

        with self._peer.guard.room(len(texts)):
            return list(await asyncio.gather(*(one(at, text) for at, text in enumerate(texts))))

    async def _ask(self, text: str, inputs: Mapping[str, str]) -> SaidText | SpratError:
        peer = self._peer
        most = Usage(sum(len(each.encode()) for each in (text, *inputs.values())), 0)
        pieces = []
        async with peer.places:
            try:
                with peer.guard.attempt(most) as attempt:
                    answer = peer.client.transform(
                        self._task, text, inputs=inputs, timeout_s=self._timeout_s
                    )
                    async with aclosing(cast(AsyncGenerator[Chunk, None], answer)) as chunks:
                        async for last in chunks:
                            pieces.append(last.text)
                    if not pieces or last.finish_reason is None:
                        raise EngineError(f"endpoint {peer.name}: an answer without an end")
                    attempt.used = Usage(last.prompt_tokens, last.output_tokens)
            except SpratError as error:
                return missed(peer.name, error)
        if last.task_version != self._version:
            return _stale(peer.name, self._task, self._version, last.task_version)
        return SaidText(
            confidence=0.0 if last.confidence is None else last.confidence,
            input_tokens=last.prompt_tokens,
            text="".join(pieces),
            complete=last.complete and not last.abstained,
            logprobs=(),
            output_tokens=last.output_tokens,
        )


def _stale(peer: str, task: str, expected: str, found: str) -> EngineError:
    """Another version of a task than the one that a tier was calibrated with."""
    return EngineError(
        f"endpoint {peer}: task {task} has version {found or 'none'}, but the tier was calibrated "
        f"with {expected}; add the tier again"
    )


def _target(name: str, config: EndpointConfig) -> str:
    """Where gRPC finds the server."""
    url: str = config.url
    if url.startswith("unix:"):
        return url
    scheme, _, address = url.partition("://")
    host, _, port = address.rpartition(":")
    if scheme.lower() != "sprat" or not host or not port.isdigit():
        raise ConfigError(
            f"endpoints.{name}.url",
            "expected https://HOST/v1, sprat://HOST:PORT or unix:PATH",
        )
    if config.ca is None and host not in ("localhost", "127.0.0.1", "[::1]"):
        raise ConfigError(
            f"endpoints.{name}.ca",
            f"expected the authority of {host}: beyond this machine texts travel over TLS",
        )
    return f"{host}:{port}"
