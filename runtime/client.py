"""Clients of a sprat server: `Client` blocks, `AsyncClient` awaits; the same methods and results.

Results are `sprat.values`; vectors are numpy arrays. What the server raises is raised here as the
same class of `sprat.errors`, with the same facts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprat import codec, errors
from sprat.errors import ConfigError, NotReady, SpratError
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
from sprat.store import home
from sprat.values import (
    Chunk,
    ClassifyResult,
    EmbedResult,
    LabelSet,
    Message,
    ModelInfo,
    Sampling,
    TaskInfo,
    TokenizeResult,
    Truncation,
)

DEFAULT_TIMEOUT_S = 60.0

_RETRIED = ("Classify", "Embed", "Tokenize", "ListTasks", "ListModels")
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "sprat.v1.Sprat", "method": m} for m in _RETRIED],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""Unary calls change nothing on the server, so they are tried again while it is unavailable."""

_OPTIONS = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

_BY_REASON: dict[str, type[SpratError]] = {}


def _register(kind: type[SpratError]) -> None:
    _BY_REASON.setdefault(kind.reason, kind)
    for child in kind.__subclasses__():
        _register(child)


_register(SpratError)

_BY_CODE: dict[grpc.StatusCode, type[SpratError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.NotReady,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.QueueFull,
}
"""For statuses that gRPC itself made, which carry no ErrorInfo."""


def to_error(error: grpc.RpcError) -> SpratError:
    """The sprat error behind a failed call."""
    # Both kinds of calls have these; the type stubs of RpcError know neither.
    call: Any = error
    code: grpc.StatusCode = call.code()
    message = str(call.details() or code.name)
    metadata: dict[str, str] = {}
    kind = _BY_CODE.get(code, SpratError)
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and (info := _error_info(value)):
            kind = _BY_REASON.get(info.reason, kind)
            metadata = dict(info.metadata)
    if issubclass(kind, errors.Retryable):
        metadata.setdefault("retry_after_s", "1.0")
    made = kind.__new__(kind)
    SpratError.__init__(made, message, metadata=metadata)
    return made


def _error_info(packed: bytes) -> Any:
    """The ErrorInfo that a sprat server sent; None from anybody else."""
    info = error_details_pb2.ErrorInfo()
    try:
        details = status_pb2.Status.FromString(packed).details
        found = any(detail.Unpack(info) for detail in details)
    except DecodeError:
        return None
    return info if found and info.domain == "sprat" else None


_OVERALL = health_pb2.HealthCheckRequest()


def _not_ready(error: grpc.RpcError, timeout_s: float) -> NotReady:
    reason = to_error(error)
    if isinstance(reason, errors.DeadlineExceeded):
        return NotReady(f"no server was ready within {timeout_s:g} s")
    return NotReady(f"the server cannot become ready: {reason.message}")


def _target(target: str | None) -> str:
    return target or f"unix:{home() / 'run' / 'sprat.sock'}"


def _read(what: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(what, f"{path} cannot be read: {error.strerror}") from None


def _credentials(
    tls_ca: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials | None:
    if (certificate is None) != (key is None):
        # gRPC would end the process.
        raise ConfigError("tls_certificate", "tls_certificate and tls_key are needed together")
    if tls_ca is None and certificate is None:
        return None
    return grpc.ssl_channel_credentials(
        _read("tls_ca", tls_ca), _read("tls_key", key), _read("tls_certificate", certificate)
    )


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


class Client:
    """A blocking client. Safe to share between threads; close it or use it as a context manager.

    Parameters
    ----------
    target : str, optional
        ``unix:PATH`` or ``HOST:PORT``; absent: the default Unix socket of this user.
    token : str, optional
        Bearer token.
    tls_ca : Path, optional
        PEM file of the authority that signed the server's certificate; turns TLS on.
    tls_certificate, tls_key : Path, optional
        PEM files of this client, where the server asks for them (mTLS).
    timeout_s : float or None
        Deadline of every unary call, in seconds; None waits for ever.

    Examples
    --------
    >>> with Client() as client:  # doctest: +SKIP
    ...     client.classify("tickets", ["Where is my parcel?"]).items[0].label
    'shipping'
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
        credentials = _credentials(tls_ca, tls_certificate, tls_key)
        address = _target(target)
        self._channel = (
            grpc.insecure_channel(address, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, _OPTIONS)
        )
        self._stub: Any = SpratStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = _metadata(token)
        self._timeout_s = timeout_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Return when the server is there and every model is loaded.

        Raises
        ------
        NotReady
            When that takes longer than ``timeout_s`` seconds, or the server stops before.
        """
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        watch = health.Watch(_OVERALL, timeout=timeout_s, wait_for_ready=True)
        try:
            for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.RpcError as error:
            raise _not_ready(error, timeout_s) from None
        finally:
            watch.cancel()
        raise NotReady("the server stopped before it was ready")

    def classify(
        self,
        task: str,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
    ) -> ClassifyResult:
        """Give each text one label of a task.

        Parameters
        ----------
        task : str
            Name of a classify task.
        texts : sequence of str
            From 1 to the server's limit.
        top_k : int, optional
            How many scores a text gets, from 1; absent: all labels.
        truncation : {"refuse", "truncate"}
            What happens to a text of more tokens than the model takes.
        partial : bool
            Answer the good texts when some are bad, and list those in ``errors``.

        Raises
        ------
        InvalidInput, InputTooLong, NotFound, QueueFull, NotReady, DeadlineExceeded
            See `sprat.errors`.
        """
        request = codec.classify_request(task, texts, top_k, truncation, partial)
        return codec.classify_result(self._call(self._stub.Classify, request))

    def choose(
        self,
        labels: LabelSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        partial: bool = False,
    ) -> ClassifyResult:
        """Give each text one of a request's own labels, with a generative model.

        Scores are the model's own and not calibrated. Texts are never truncated. Parameters and
        errors as in `classify`.
        """
        request = codec.choose_request(labels, texts, top_k, partial)
        return codec.classify_result(self._call(self._stub.Classify, request))

    def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
    ) -> EmbedResult:
        """L2-normalized sentence vectors, float32[N, D]. Parameters and errors as in `classify`."""
        request = codec.embed_request(model, texts, truncation, partial)
        return codec.embed_result(self._call(self._stub.Embed, request))

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Message],
        sampling: Sampling = Sampling(),
        *,
        timeout_s: float | None = None,
    ) -> Iterator[Chunk]:
        """Stream the continuation of a raw prompt, or the answer to a chat.

        Closing the iterator stops the generation on the server.

        Parameters
        ----------
        timeout_s : float, optional
            Deadline of the whole answer, in seconds; absent: none.
        """
        request = codec.generate_request(model, prompt, sampling)
        call = self._stub.Generate(request, timeout=timeout_s, metadata=self._metadata)
        try:
            for response in call:
                yield codec.chunk(response)
        except grpc.RpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    def tokenize(self, model: str, texts: Sequence[str]) -> TokenizeResult:
        """How a model cuts texts into tokens."""
        request = codec.tokenize_request(model, texts)
        return codec.tokenize_result(self._call(self._stub.Tokenize, request))

    def list_tasks(self) -> tuple[TaskInfo, ...]:
        """Every task of the server, sorted by name."""
        return codec.task_infos(self._call(self._stub.ListTasks, pb.ListTasksRequest()))

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Every loaded model, sorted by name."""
        return codec.model_infos(self._call(self._stub.ListModels, pb.ListModelsRequest()))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise to_error(error) from None


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
        credentials = _credentials(tls_ca, tls_certificate, tls_key)
        address = _target(target)
        self._channel = (
            grpc.aio.insecure_channel(address, _OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, _OPTIONS)
        )
        self._stub: Any = SpratStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = _metadata(token)
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
        watch = health.Watch(_OVERALL, timeout=timeout_s, wait_for_ready=True)
        try:
            async for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError as error:
            raise _not_ready(error, timeout_s) from None
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
    ) -> ClassifyResult:
        """See `Client.classify`."""
        request = codec.classify_request(task, texts, top_k, truncation, partial)
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
        timeout_s: float | None = None,
    ) -> AsyncIterator[Chunk]:
        """See `Client.generate`."""
        request = codec.generate_request(model, prompt, sampling)
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
