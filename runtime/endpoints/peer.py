"""Another sprat server whose task a tier asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sprat.asked_manifest import Remote
from sprat.client.aio import AsyncClient
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.base import Said, missed
from sprat.endpoints.chat import check_model
from sprat.endpoints.guard import Guard
from sprat.endpoints.spending import Usage
from sprat.errors import ConfigError, EngineError, SpratError
from sprat.values import Classification


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

    def question(self, asked: Remote) -> PeerQuestion:
        """See `Endpoint.question`."""
        if not asked.task_version:
            raise ConfigError(
                f"endpoints.{self.name}.url",
                f"expected the chat endpoint with model {asked.model}, which the tier was "
                "calibrated with",
            )
        check_model(self.name, self._config.model, asked)
        return PeerQuestion(self, asked)

    async def task_version(self, labels: Sequence[str]) -> str:
        """See `Endpoint.task_version`."""
        name = self._config.model
        known = {task.name: task for task in await self.client.list_tasks()}
        where = f"endpoints.{self.name}.model"
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(where, f"the server has no task {name!r}; known: {listed}")
        task = known[name]
        if task.kind != "classify" or sorted(task.labels) != sorted(labels):
            raise ConfigError(
                where,
                f"expected a classify task with the labels of the bundle; {name} is of kind "
                f"{task.kind} with {len(task.labels)} labels",
            )
        return task.version

    async def aclose(self) -> None:
        """Close the connection."""
        if self._made is not None:
            await self._made.close()


class PeerQuestion:
    """See `Question`. The texts of a call travel together."""

    def __init__(self, peer: PeerService, asked: Remote) -> None:
        self._peer = peer
        self._asked = asked
        self._labels = {label.name for label in asked.labels}

    async def ask(self, texts: Sequence[str], *, deadline: float) -> list[Said | SpratError]:
        """See `Question.ask`. Who asks gives up at the deadline: nothing is answered before all."""
        peer = self._peer
        most = Usage(sum(len(text.encode()) for text in texts), 0)
        with peer.guard.room(len(texts)):
            async with peer.places:
                try:
                    with peer.guard.attempt(most) as attempt:
                        result = await peer.client.classify(
                            self._asked.model, texts, top_k=1, partial=True
                        )
                        read = sum(item.input_tokens for item in result.items if item is not None)
                        attempt.used = Usage(read, 0)
                except SpratError as error:
                    return [missed(peer.name, error)] * len(texts)
        if result.task_version != self._asked.task_version:
            stale = EngineError(
                f"endpoint {peer.name}: task {self._asked.model} has version "
                f"{result.task_version or 'none'}, but the tier was calibrated with "
                f"{self._asked.task_version}; add the tier again"
            )
            return [stale] * len(texts)
        if len(result.items) != len(texts):
            return [EngineError(f"endpoint {peer.name}: answers are missing")] * len(texts)
        reasons = {each.index: each.reason for each in result.errors}
        return [
            EngineError(f"endpoint {peer.name} failed ({reasons.get(index, 'no answer')})")
            if item is None
            else self._said(item)
            for index, item in enumerate(result.items)
        ]

    def _said(self, item: Classification) -> Said:
        # Also what it abstained from has a best label.
        best = item.scores[0] if item.scores else None
        if best is None or best.label not in self._labels:
            return Said("", 0.0, item.input_tokens)
        sure = best.score if item.confidence is None else item.confidence
        return Said(best.label, sure, item.input_tokens)


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
