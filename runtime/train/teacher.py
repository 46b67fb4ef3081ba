"""Teachers: larger models that label texts for a smaller one, or write texts for it.

They are a task or a generative model of this machine, loaded into a `sprat.inprocess.Runtime`, or a
model behind an endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sprat.endpoints.labels import LabelQuestion
from sprat.errors import InvalidInput
from sprat.remote import ChatEndpoint, Completion
from sprat.values import (
    Classification,
    ItemError,
    Label,
    LabelSet,
    Message,
    Sampling,
    Truncation,
)

if TYPE_CHECKING:
    from sprat.inprocess import Runtime

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on the loop of an endpoint and returns its result."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a teacher says of one text.

    Attributes
    ----------
    label : str
        The most probable label; empty where the teacher named none, or failed.
    confidence : float
        In [0, 1]; 0 where ``label`` is empty.
    calibrated : bool
        Whether ``confidence`` is the probability that ``label`` is right; else it is a score by the
        teacher's own lights.
    error : str
        Why this text cannot be labelled; empty: it was.
    """

    label: str
    confidence: float
    calibrated: bool = False
    error: str = ""


class Labeller(Protocol):
    """A teacher that gives texts labels.

    Attributes
    ----------
    name : str
        What rows say of where their labels are from.
    """

    name: str

    def label(self, texts: Sequence[str]) -> Iterator[tuple[int, Opinion]]:
        """Label texts.

        Yields
        ------
        int, Opinion
            Index of a text and its label, as soon as it is there, in any order.
        """
        ...


class Writer(Protocol):
    """A teacher that writes.

    Attributes
    ----------
    name : str
        What rows say of who wrote them.
    """

    name: str

    def write(self, prompt: str, sampling: Sampling, answers: int) -> list[Completion]:
        """Several answers to a prompt, each with another seed."""
        ...


class LocalLabeller:
    """A task, or a generative model with labels.

    Parameters
    ----------
    runtime : Runtime
        Where it is loaded.
    teacher : str or LabelSet
        Name of a task; or labels for a generative model.
    name : str
        See `Labeller`.
    truncation : {"refuse", "truncate"}
        What a task does with texts that are too long.
    """

    def __init__(
        self,
        runtime: Runtime,
        teacher: str | LabelSet,
        *,
        name: str,
        truncation: Truncation = "refuse",
    ) -> None:
        self.name = name
        self._runtime = runtime
        self._teacher = teacher
        self._truncation = truncation

    def label(self, texts: Sequence[str]) -> Iterator[tuple[int, Opinion]]:
        """Label texts in one call; see `Labeller.label`."""
        if isinstance(self._teacher, LabelSet):
            result = self._runtime.choose(self._teacher, texts, top_k=1, partial=True)
        else:
            result = self._runtime.classify(
                self._teacher, texts, top_k=1, partial=True, truncation=self._truncation
            )
        errors = {error.index: error for error in result.errors}
        for index, item in enumerate(result.items):
            yield index, _opinion(item, errors.get(index), result.calibrated)


def _opinion(item: Classification | None, error: ItemError | None, calibrated: bool) -> Opinion:
    if item is None:
        return Opinion("", 0.0, error="no answer" if error is None else error.message)
    if not item.scores:
        return Opinion("", 0.0, calibrated)
    best = item.scores[0]
    return Opinion(best.label, best.score, calibrated)


class RemoteLabeller:
    """A model behind an endpoint, asked for one of the labels about each text.

    Parameters
    ----------
    endpoint : ChatEndpoint
        It lives on the loop that ``run`` runs coroutines on.
    run : callable
        See `Run`.

    See `LabelQuestion` for the others.

    Raises
    ------
    InvalidInput
        The labels or the votes cannot be used.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        labels: Sequence[Label],
        *,
        instructions: str = "",
        votes: int = 1,
        run: Run,
    ) -> None:
        self.name = f"{endpoint.model} at {endpoint.name}"
        self._question = LabelQuestion(endpoint, labels, instructions=instructions, votes=votes)
        self._run = run

    def label(self, texts: Sequence[str]) -> Iterator[tuple[int, Opinion]]:
        """Label texts side by side; see `Labeller.label`.

        Raises
        ------
        NotFound, EndpointError, Retryable, DeadlineExceeded
            See `ChatEndpoint.complete`.
        InvalidInput
            It can use none of the texts.
        """
        tasks: dict[asyncio.Task[Opinion], int] = {}

        async def ask(text: str) -> Opinion:
            try:
                return await self._ask(text)
            except InvalidInput:
                raise
            except Exception:
                # No fault of this text: none of the others is sent any more.
                for task in tasks:
                    task.cancel()
                raise

        async def start() -> None:
            tasks.update({asyncio.create_task(ask(text)): at for at, text in enumerate(texts)})

        self._run(start())
        pending = set(tasks)
        unusable: dict[int, InvalidInput] = {}
        failure: BaseException | None = None
        try:
            while pending:
                done, pending = self._run(_first_of(pending))
                for task in done:
                    error = None if task.cancelled() else task.exception()
                    if isinstance(error, InvalidInput):
                        unusable[tasks[task]] = error
                    elif error is not None:
                        failure = error
                    elif not task.cancelled():
                        yield tasks[task], task.result()
        finally:
            self._run(_cancel(set(tasks)))
        if failure is not None:
            raise failure
        if len(unusable) == len(texts):
            # Then it is hardly the texts.
            raise unusable[0]
        for index, reason in unusable.items():
            yield index, Opinion("", 0.0, error=reason.message)

    async def _ask(self, text: str) -> Opinion:
        said = await self._question.ask(text)
        return Opinion(said.label, said.confidence)


async def _first_of(
    pending: set[asyncio.Task[T]],
) -> tuple[set[asyncio.Task[T]], set[asyncio.Task[T]]]:
    return await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


async def _cancel(tasks: set[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class LocalWriter:
    """A generative model of a runtime; its answers are made side by side."""

    def __init__(self, runtime: Runtime, model: str, *, name: str) -> None:
        self.name = name
        self._runtime = runtime
        self._model = model

    def write(self, prompt: str, sampling: Sampling, answers: int) -> list[Completion]:
        """See `Writer.write`."""
        texts = [""] * answers
        is_complete = [False] * answers
        chat = [Message("user", prompt)]
        for chunk in self._runtime.generate(self._model, chat, sampling, sequences=answers):
            texts[chunk.sequence] += chunk.text
            is_complete[chunk.sequence] = chunk.finish_reason == "stop"
        return [
            Completion(text, complete, None)
            for text, complete in zip(texts, is_complete, strict=True)
        ]


class RemoteWriter:
    """A model behind an endpoint. Parameters as in `RemoteLabeller`."""

    def __init__(self, endpoint: ChatEndpoint, *, run: Run) -> None:
        self.name = f"{endpoint.model} at {endpoint.name}"
        self._endpoint = endpoint
        self._run = run

    def write(self, prompt: str, sampling: Sampling, answers: int) -> list[Completion]:
        """See `Writer.write`, and `ChatEndpoint.complete` for the errors."""

        async def ask() -> list[Completion]:
            chat = [Message("user", prompt)]
            return await asyncio.gather(
                *(self._endpoint.complete(chat, _reseeded(sampling, at)) for at in range(answers))
            )

        completions: list[Completion] = self._run(ask())
        return completions


def _reseeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)
