"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprat import codec
from sprat.client.channel import (
    DEFAULT_TIMEOUT_S,
    OVERALL,
    bearer,
    credentials,
    not_ready,
    options,
    socket_address,
    to_error,
)
from sprat.errors import NotReady
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
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
    TransformSpec,
    Truncation,
)


class AsyncClient:
    """A client for asyncio. Use it on the event loop that it was made on.

    Parameters, methods, results and errors as in `Client`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls_ca: Path | None = None,
        tls_certificate: Path | None = None,
        tls_key: Path | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        secured = credentials(tls_ca, tls_certificate, tls_key)
        address = socket_address(target)
        self._channel = (
            grpc.aio.insecure_channel(address, options(address))
            if secured is None
            else grpc.aio.secure_channel(address, secured, options(address))
        )
        self._stub: Any = SpratStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = bearer(token)
        self._timeout_s = timeout_s

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """See `Client.wait_until_ready`."""
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        watch = health.Watch(OVERALL, timeout=timeout_s, wait_for_ready=True)
        try:
            async for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError as error:
            raise not_ready(error, timeout_s) from None
        finally:
            watch.cancel()
        raise NotReady("the server stopped before it was ready")

    async def classify(
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
        """See `Client.classify`."""
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.classify_request(task, texts, top_k, truncation, partial, effort)
        return codec.classify_result(await self._call(self._stub.Classify, request))

    async def choose(
        self,
        labels: LabelSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        partial: bool = False,
    ) -> ClassifyResult:
        """See `Client.choose`."""
        request = codec.choose_request(labels, texts, top_k, partial)
        return codec.classify_result(await self._call(self._stub.Classify, request))

    async def route(
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
        """See `Client.route`."""
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.route_request(routes, texts, top_k, truncation, partial, effort)
        return codec.route_result(await self._call(self._stub.Route, request))

    async def moderate(
        self,
        task: str,
        texts: Sequence[str],
        *,
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ModerateResult:
        """See `Client.moderate`."""
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.moderate_request(task, texts, partial, effort)
        return codec.moderate_result(await self._call(self._stub.Moderate, request))

    async def decide(
        self, questions: str | QuestionSet, texts: Sequence[str], *, partial: bool = False
    ) -> DecideResult:
        """See `Client.decide`."""
        request = codec.decide_request(questions, texts, partial)
        return codec.decide_result(await self._call(self._stub.Decide, request))

    async def extract(
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
        """See `Client.extract`."""
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.extract_request(spec, texts, requested, long_input, partial, effort)
        return codec.extract_result(await self._call(self._stub.Extract, request))

    async def transform(
        self,
        spec: str | TransformSpec,
        text: str,
        *,
        inputs: Mapping[str, str] | None = None,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Chunk]:
        """See `Client.transform`."""
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.transform_request(spec, text, inputs, effort)
        call = self._stub.Transform(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                yield codec.transform_chunk(response)
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
    ) -> EmbedResult:
        """See `Client.embed`."""
        request = codec.embed_request(model, texts, truncation, partial)
        return codec.embed_result(await self._call(self._stub.Embed, request))

    async def generate(
        self,
        model: str,
        prompt: str | Sequence[Message],
        sampling: Sampling = Sampling(),
        *,
        adapter: str = "",
        sequences: int = 1,
        logprobs: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Chunk]:
        """See `Client.generate`."""
        request = codec.generate_request(model, prompt, sampling, adapter, sequences, logprobs)
        call = self._stub.Generate(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in call:
                yield codec.chunk(response)
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    async def tokenize(self, model: str, texts: Sequence[str]) -> TokenizeResult:
        """See `Client.tokenize`."""
        request = codec.tokenize_request(model, texts)
        return codec.tokenize_result(await self._call(self._stub.Tokenize, request))

    async def feedback(self, request_id: str, label: str, *, item: int = 0) -> None:
        """See `Client.feedback`."""
        request = codec.feedback_request(request_id, label, item)
        await self._call(self._stub.Feedback, request)

    async def list_tasks(self) -> tuple[TaskInfo, ...]:
        """See `Client.list_tasks`."""
        return codec.task_infos(await self._call(self._stub.ListTasks, pb.ListTasksRequest()))

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """See `Client.list_models`."""
        return codec.model_infos(await self._call(self._stub.ListModels, pb.ListModelsRequest()))

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None
