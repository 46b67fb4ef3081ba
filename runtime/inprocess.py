"""sprat without a server: the methods of `sprat.Client`, in this process."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from types import TracebackType

from sprat.config import Config
from sprat.scheduler import LoopThread
from sprat.service import Service
from sprat.store import Store
from sprat.values import (
    Chunk,
    ClassifyResult,
    DecideResult,
    Effort,
    EmbedResult,
    ExtractResult,
    ExtractSpec,
    LabelSet,
    LongInput,
    Message,
    ModelInfo,
    ModerateResult,
    QuestionSet,
    RouteResult,
    RouteSet,
    Sampling,
    TaskInfo,
    TokenizeResult,
    TokenStates,
    TransformSpec,
    Truncation,
)


class Runtime:
    """Models and tasks loaded into this process. Close it or use it as a context manager.

    Parameters
    ----------
    models : sequence of str
        Names in the store.
    tasks : sequence of str
        Bundles, by name in the store or by path.
    config : Config, optional
        Everything else; its own models and tasks are loaded too.
    store : Store, optional
        Absent: the one of this user.

    Raises
    ------
    NotFound, CorruptFile, StaleBundle, EngineError
        When something cannot be loaded.

    Examples
    --------
    >>> with Runtime(models=["minilm-l6"]) as runtime:  # doctest: +SKIP
    ...     runtime.embed("minilm-l6", ["Where is my parcel?"]).vectors.shape
    (1, 384)
    """

    def __init__(
        self,
        *,
        models: Sequence[str] = (),
        tasks: Sequence[str] = (),
        config: Config | None = None,
        store: Store | None = None,
    ) -> None:
        store = Store() if store is None else store
        config = (Config() if config is None else config).with_served(
            models=models, bundles={store.bundle(name)[0].name: name for name in tasks}
        )
        self._is_closed = False
        self._loop = LoopThread()
        try:
            self._service = self._loop.run(Service.open(config, store))
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what runs and release the models; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._loop.run(self._service.close())
        finally:
            self._loop.close()

    def classify(
        self,
        task: str,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ClassifyResult:
        """See `sprat.client.Client.classify`."""
        return self._loop.run(
            self._service.classify(
                task,
                texts,
                top_k=top_k,
                truncation=truncation,
                partial=partial,
                effort=Effort(max_tier, accept_at, budget_ms),
            )
        )

    def choose(
        self,
        labels: LabelSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        partial: bool = False,
    ) -> ClassifyResult:
        """See `sprat.client.Client.choose`."""
        return self._loop.run(self._service.choose(labels, texts, top_k=top_k, partial=partial))

    def route(
        self,
        routes: str | RouteSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> RouteResult:
        """See `sprat.client.Client.route`."""
        return self._loop.run(
            self._service.route(
                routes,
                texts,
                top_k=top_k,
                truncation=truncation,
                partial=partial,
                effort=Effort(max_tier, accept_at, budget_ms),
            )
        )

    def moderate(
        self,
        task: str,
        texts: Sequence[str],
        *,
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ModerateResult:
        """See `sprat.client.Client.moderate`."""
        return self._loop.run(
            self._service.moderate(
                task, texts, partial=partial, effort=Effort(max_tier, accept_at, budget_ms)
            )
        )

    def decide(
        self, questions: str | QuestionSet, texts: Sequence[str], *, partial: bool = False
    ) -> DecideResult:
        """See `sprat.client.Client.decide`."""
        return self._loop.run(self._service.decide(questions, texts, partial=partial))

    def extract(
        self,
        spec: str | ExtractSpec,
        texts: Sequence[str],
        *,
        requested: Sequence[str] = (),
        long_input: LongInput = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ExtractResult:
        """See `sprat.client.Client.extract`."""
        return self._loop.run(
            self._service.extract(
                spec,
                texts,
                requested=requested,
                long_input=long_input,
                partial=partial,
                effort=Effort(max_tier, accept_at, budget_ms),
            )
        )

    def transform(
        self,
        spec: str | TransformSpec,
        text: str,
        *,
        inputs: Mapping[str, str] | None = None,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Chunk]:
        """See `sprat.client.Client.transform`."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        effort = Effort(max_tier, accept_at, budget_ms)
        return self._stream(
            self._service.transform(spec, text, inputs=inputs, effort=effort, deadline=deadline)
        )

    def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
    ) -> EmbedResult:
        """See `sprat.client.Client.embed`."""
        return self._loop.run(
            self._service.embed(model, texts, truncation=truncation, partial=partial)
        )

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Message],
        sampling: Sampling = Sampling(),
        *,
        adapter: str = "",
        sequences: int = 1,
        logprobs: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Chunk]:
        """See `sprat.client.Client.generate`."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        return self._stream(
            self._service.generate(
                model,
                prompt,
                sampling,
                adapter=adapter,
                sequences=sequences,
                logprobs=logprobs,
                deadline=deadline,
            )
        )

    def _stream(self, stream: AsyncGenerator[Chunk, None]) -> Iterator[Chunk]:
        try:
            while (chunk := self._loop.run(_next(stream))) is not None:
                yield chunk
        finally:
            # Closing the runtime has closed the stream.
            if not self._is_closed:
                self._loop.run(_close(stream))

    def tokenize(self, model: str, texts: Sequence[str]) -> TokenizeResult:
        """See `sprat.client.Client.tokenize`."""
        return self._loop.run(self._service.tokenize(model, texts))

    def token_states(self, model: str, texts: Sequence[str]) -> list[TokenStates]:
        """States of the tokens of texts, whatever their length: what taggers are trained on.

        Only in process: states are too large to be sent.

        Parameters
        ----------
        model : str
            Name of an encoder.

        Raises
        ------
        InvalidInput
            For a text that nothing can be said of.
        NotFound, TaskNotSupported
            There is no such model, or it has no token states.
        """
        return self._loop.run(self._service.token_states(model, texts))

    def feedback(self, request_id: str, label: str, *, item: int = 0) -> None:
        """See `sprat.client.Client.feedback`."""
        self._loop.run(self._service.feedback(request_id, label, item))

    def list_tasks(self) -> tuple[TaskInfo, ...]:
        """Every task, sorted by name."""
        return self._service.list_tasks()

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Every loaded model, sorted by name."""
        return self._service.list_models()


async def _next(stream: AsyncGenerator[Chunk, None]) -> Chunk | None:
    return await anext(stream, None)


async def _close(stream: AsyncGenerator[Chunk, None]) -> None:
    await stream.aclose()
