"""The RPCs of sprat.v1: decode, call the service, encode; every exception becomes a status."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from sprat import codec
from sprat.errors import InvalidInput, NotReady, QueueFull
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.server import status
from sprat.service import Service

SERVICE_NAME = "sprat.v1.Sprat"

Request = TypeVar("Request", bound=Message)
Spec = TypeVar("Spec")
Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Service, Any, float], Awaitable[Message]]
Stream = Callable[[Service, Any, float], AsyncGenerator[Message, None]]


async def _classify(service: Service, request: pb.ClassifyRequest, deadline: float) -> Message:
    if request.HasField("label_set"):
        return await _choose(service, request, deadline)
    return codec.classify_response(
        await service.classify(
            request.task,
            list(request.texts),
            top_k=request.top_k if request.HasField("top_k") else None,
            truncation=codec.truncation(request.truncation),
            partial=request.partial_results,
            effort=codec.effort(request),
            deadline=deadline,
        )
    )


async def _choose(service: Service, request: pb.ClassifyRequest, deadline: float) -> Message:
    if request.task:
        raise InvalidInput("task: expected none beside label_set", field="task")
    return codec.classify_response(
        await service.choose(
            codec.label_set(request.label_set),
            list(request.texts),
            top_k=request.top_k if request.HasField("top_k") else None,
            truncation=codec.truncation(request.truncation),
            partial=request.partial_results,
            effort=codec.effort(request),
            deadline=deadline,
        )
    )


async def _route(service: Service, request: pb.RouteRequest, deadline: float) -> Message:
    return codec.route_response(
        await service.route(
            _asked(request, "route_set", codec.route_set),
            list(request.texts),
            top_k=request.top_k if request.HasField("top_k") else None,
            truncation=codec.truncation(request.truncation),
            partial=request.partial_results,
            effort=codec.effort(request),
            deadline=deadline,
        )
    )


async def _moderate(service: Service, request: pb.ModerateRequest, deadline: float) -> Message:
    return codec.moderate_response(
        await service.moderate(
            request.task,
            list(request.texts),
            partial=request.partial_results,
            effort=codec.effort(request),
            deadline=deadline,
        )
    )


async def _extract(service: Service, request: pb.ExtractRequest, deadline: float) -> Message:
    return codec.extract_response(
        await service.extract(
            _asked(request, "spec", codec.extract_spec),
            list(request.texts),
            requested=list(request.requested),
            long_input=codec.long_input(request.long_input),
            partial=request.partial_results,
            effort=codec.effort(request),
            deadline=deadline,
        )
    )


async def _decide(service: Service, request: pb.DecideRequest, deadline: float) -> Message:
    return codec.decide_response(
        await service.decide(
            _asked(request, "question_set", codec.question_set),
            list(request.texts),
            partial=request.partial_results,
            deadline=deadline,
        )
    )


async def _transform(
    service: Service, request: pb.TransformRequest, deadline: float
) -> AsyncGenerator[Message, None]:
    chunks = service.transform(
        _asked(request, "spec", codec.transform_spec),
        request.text,
        inputs=dict(request.inputs),
        effort=codec.effort(request),
        deadline=deadline,
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            yield codec.transform_response(chunk)


def _asked(request: Any, field: str, decode: Callable[[Any], Spec]) -> str | Spec:
    """The name of the task that a request asks, or the spec that it brings itself."""
    if request.HasField(field):
        if request.task:
            raise InvalidInput(f"task: expected none beside {field}", field="task")
        return decode(getattr(request, field))
    if not request.task:
        raise InvalidInput(f"{field}: expected one, or a task", field=field)
    return str(request.task)


async def _embed(service: Service, request: pb.EmbedRequest, deadline: float) -> Message:
    return codec.embed_response(
        await service.embed(
            request.model,
            list(request.texts),
            truncation=codec.truncation(request.truncation),
            partial=request.partial_results,
            deadline=deadline,
        )
    )


async def _generate(
    service: Service, request: pb.GenerateRequest, deadline: float
) -> AsyncGenerator[Message, None]:
    chunks = service.generate(
        request.model,
        codec.prompt(request),
        codec.sampling(request),
        adapter=request.adapter,
        sequences=request.sequences if request.HasField("sequences") else 1,
        logprobs=request.logprobs if request.HasField("logprobs") else None,
        deadline=deadline,
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            yield codec.generate_response(chunk)


async def _tokenize(service: Service, request: pb.TokenizeRequest, _: float) -> Message:
    return codec.tokenize_response(await service.tokenize(request.model, list(request.texts)))


async def _feedback(service: Service, request: pb.FeedbackRequest, _: float) -> Message:
    await service.feedback(request.request_id, request.label, request.item)
    return pb.FeedbackResponse()


async def _list_tasks(service: Service, _: pb.ListTasksRequest, __: float) -> Message:
    return codec.list_tasks_response(service.list_tasks())


async def _list_models(service: Service, _: pb.ListModelsRequest, __: float) -> Message:
    return codec.list_models_response(service.list_models())


UNARY: dict[str, tuple[type[Message], Unary]] = {
    "Classify": (pb.ClassifyRequest, _classify),
    "Route": (pb.RouteRequest, _route),
    "Moderate": (pb.ModerateRequest, _moderate),
    "Decide": (pb.DecideRequest, _decide),
    "Extract": (pb.ExtractRequest, _extract),
    "Embed": (pb.EmbedRequest, _embed),
    "Tokenize": (pb.TokenizeRequest, _tokenize),
    "Feedback": (pb.FeedbackRequest, _feedback),
    "ListTasks": (pb.ListTasksRequest, _list_tasks),
    "ListModels": (pb.ListModelsRequest, _list_models),
}
STREAM: dict[str, tuple[type[Message], Stream]] = {
    "Transform": (pb.TransformRequest, _transform),
    "Generate": (pb.GenerateRequest, _generate),
}


class Servicer:
    """Answers sprat.v1 calls once a service is there.

    Parameters
    ----------
    max_concurrent_calls : int
        Calls in flight; more are refused with QUEUE_FULL.

    Attributes
    ----------
    service : Service or None
        None while models are loading: calls are answered with UNAVAILABLE.
    """

    def __init__(self, max_concurrent_calls: int) -> None:
        self.service: Service | None = None
        self._max_concurrent_calls = max_concurrent_calls
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def idle(self) -> None:
        """Return when no call is in flight."""
        await self._is_idle.wait()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The RPC handlers, to be registered with a server."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, (kind, unary) in UNARY.items():
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                self._unary(unary), _deserializer(kind), _serialize
            )
        for name, (kind, stream) in STREAM.items():
            handlers[name] = grpc.unary_stream_rpc_method_handler(
                self._stream(stream), _deserializer(kind), _serialize
            )
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    def _unary(self, call: Unary) -> Callable[[Any, Context], Awaitable[Message]]:
        async def answer(request: Message | InvalidInput, context: Context) -> Message:
            try:
                service = self._admit(request, context)
                return await call(service, request, _deadline(context))
            except Exception as error:
                await status.abort(context, error)

        return answer

    def _stream(self, call: Stream) -> Callable[[Any, Context], AsyncGenerator[Message, None]]:
        async def answer(
            request: Message | InvalidInput, context: Context
        ) -> AsyncGenerator[Message, None]:
            try:
                service = self._admit(request, context)
                async with aclosing(call(service, request, _deadline(context))) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:
                await status.abort(context, error)

        return answer

    def _admit(self, request: Message | InvalidInput, context: Context) -> Service:
        """Count a call in; it is counted out when its answer is sent."""
        if isinstance(request, InvalidInput):
            raise request
        if self.service is None:
            raise NotReady("models are loading", retry_after_s=0.5)
        if self._in_flight >= self._max_concurrent_calls:
            raise QueueFull(
                f"{self._in_flight} calls are in flight, at most "
                f"{self._max_concurrent_calls} are accepted",
                retry_after_s=0.1,
            )
        self._in_flight += 1
        self._is_idle.clear()
        context.add_done_callback(self._count_out)  # type: ignore[arg-type] # any callable will do
        return self.service

    def _count_out(self, _: Context) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._is_idle.set()


def _deserializer(kind: type[Request]) -> Callable[[bytes], Request | InvalidInput]:
    """Reads a request; what cannot be read becomes an error that the handler answers with.

    gRPC's own answer to an exception in a deserializer would be a bare UNKNOWN.
    """

    def read(data: bytes) -> Request | InvalidInput:
        try:
            return kind.FromString(data)
        except DecodeError:
            return InvalidInput(
                f"request: {len(data)} bytes are no {kind.DESCRIPTOR.full_name} "
                "(malformed, or a string that is not UTF-8)",
                field="request",
            )

    return read


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _deadline(context: Context) -> float:
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
