"""An OpenAI-compatible chat endpoint that tiers ask."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic

from sprat.asked_manifest import (
    AnyRemote,
    Remote,
    RemoteCategories,
    RemoteFields,
    RemoteRewriting,
)
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.base import (
    OnSaid,
    SaidCategories,
    SaidFields,
    SaidLabel,
    SaidT,
    SaidText,
    missed,
)
from sprat.endpoints.categories import CategoryQuestion
from sprat.endpoints.fields import FieldsQuestion
from sprat.endpoints.guard import Guard
from sprat.endpoints.labels import LabelQuestion
from sprat.endpoints.rewriting import RewritingQuestion
from sprat.errors import ConfigError, DeadlineExceeded, SpratError
from sprat.remote import ChatEndpoint

REPLY_SHARE = 0.05
LEAST_REPLY_S, MOST_REPLY_S = 0.005, 0.1
"""Kept back of the time until a deadline, so that what was answered is still of use: whoever asks
gives up at the deadline itself, with all texts."""


class ChatService:
    """See `Endpoint`.

    Parameters
    ----------
    key : str or None
        Its bearer token.

    Raises
    ------
    ConfigError
        The URL, the key or the authorities cannot be used.
    """

    def __init__(self, name: str, config: EndpointConfig, guard: Guard, key: str | None) -> None:
        self.name = name
        self.guard = guard
        self._chat = ChatEndpoint(
            config.url,
            config.model,
            key=key,
            ca=config.ca,
            timeout_s=config.timeout_s,
            attempts=config.attempts,
            concurrency=config.concurrency,
            guard=guard,
        )

    def labels(self, asked: Remote) -> ChatQuestion[SaidLabel]:
        """See `Endpoint.labels`."""
        self._check(asked)
        question = LabelQuestion(
            self._chat, asked.labels, instructions=asked.instructions, votes=asked.votes
        )
        return ChatQuestion(self.name, question.ask, self.guard)

    def categories(self, asked: RemoteCategories) -> ChatQuestion[SaidCategories]:
        """See `Endpoint.categories`."""
        self._check(asked)
        question = CategoryQuestion(
            self._chat, asked.categories, instructions=asked.instructions, votes=asked.votes
        )
        return ChatQuestion(self.name, question.ask, self.guard)

    def fields(self, asked: RemoteFields) -> ChatQuestion[SaidFields]:
        """See `Endpoint.fields`."""
        self._check(asked)
        question = FieldsQuestion(
            self._chat,
            asked.json_schema,
            instructions=asked.instructions,
            max_tokens=asked.max_tokens,
            votes=asked.votes,
        )
        return ChatQuestion(self.name, question.ask, self.guard)

    def texts(self, asked: RemoteRewriting, *, schema: str | None, has_logprobs: bool) -> ChatTexts:
        """See `Endpoint.texts`."""
        self._check(asked)
        question = RewritingQuestion(
            self._chat, asked.prompt, asked.sampling, schema=schema, has_logprobs=has_logprobs
        )
        return ChatTexts(self.name, question, self.guard)

    def _check(self, asked: AnyRemote) -> None:
        """Refuse what was calibrated with something else."""
        if asked.task_version:
            raise ConfigError(
                f"endpoints.{self.name}.url",
                f"expected the sprat server with task {asked.model}, which the tier was "
                "calibrated with",
            )
        check_model(self.name, self._chat.model, asked)

    async def task_version(self, kind: str, labels: Sequence[str]) -> str:
        """See `Endpoint.task_version`: none."""
        return ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._chat.aclose()


class ChatQuestion(Generic[SaidT]):
    """See `Question`. Texts are asked about side by side, as far as the endpoint's cap allows.

    Parameters
    ----------
    ask : callable
        Asks about one text, such as `LabelQuestion.ask`.
    """

    def __init__(
        self, name: str, ask: Callable[..., Coroutine[Any, Any, SaidT]], guard: Guard
    ) -> None:
        self._name = name
        self._ask = ask
        self._guard = guard
        self._tasks: set[asyncio.Task[SaidT]] = set()

    async def ask(
        self, texts: Sequence[str], *, deadline: float, on_said: OnSaid[SaidT] | None = None
    ) -> list[SaidT | SpratError]:
        """See `Question.ask`."""
        left_s = deadline - time.monotonic()
        if left_s < math.inf:
            left_s -= min(MOST_REPLY_S, max(LEAST_REPLY_S, REPLY_SHARE * left_s))
        with self._guard.room(len(texts)):
            tasks = [self._start(text, deadline) for text in texts]
            if on_said is not None:
                for at, task in enumerate(tasks):
                    task.add_done_callback(functools.partial(_tell, on_said, at))
            try:
                await asyncio.wait(tasks, timeout=None if left_s == math.inf else max(0, left_s))
            finally:
                for task in tasks:
                    task.cancel()
        return [self._result(task) for task in tasks]

    def _start(self, text: str, deadline: float) -> asyncio.Task[SaidT]:
        task = asyncio.create_task(self._ask(text, deadline=deadline))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[SaidT]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Of a call that was given up nobody asks for it.
            task.exception()

    def _result(self, task: asyncio.Task[SaidT]) -> SaidT | SpratError:
        if not task.done() or task.cancelled():
            return DeadlineExceeded(f"endpoint {self._name}: no answer in time")
        error = task.exception()
        if isinstance(error, SpratError):
            return missed(self._name, error)
        return task.result()


def _tell(on_said: OnSaid[SaidT], at: int, task: asyncio.Task[SaidT]) -> None:
    if not task.cancelled() and task.exception() is None:
        on_said(at, task.result())


class ChatTexts:
    """See `TextQuestion`."""

    def __init__(self, name: str, question: RewritingQuestion, guard: Guard) -> None:
        self._name = name
        self._question = question
        self._guard = guard

    async def ask(
        self,
        texts: Sequence[str],
        *,
        deadline: float,
        on_said: OnSaid[SaidText] | None = None,
        inputs: Mapping[str, str] = {},
    ) -> list[SaidText | SpratError]:
        """See `TextQuestion.ask`."""
        about = functools.partial(self._question.ask, inputs=inputs)
        question = ChatQuestion(self._name, about, self._guard)
        return await question.ask(texts, deadline=deadline, on_said=on_said)


def check_model(name: str, model: str, asked: AnyRemote) -> None:
    """Check that an endpoint names what a tier was calibrated with.

    Raises
    ------
    ConfigError
        It names another one, whose confidences nobody measured.
    """
    if model != asked.model:
        raise ConfigError(
            f"endpoints.{name}.model",
            f"expected {asked.model}, which the tier was calibrated with, got {model}; add the "
            "tier again",
        )
