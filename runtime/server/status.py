"""From exceptions to gRPC statuses: one table, and rich details for clients that read them."""

from __future__ import annotations

import logging
import secrets
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sprat import errors
from sprat.errors import InvalidInput, NotFound, Retryable, SpratError

log = logging.getLogger(__name__)

DOMAIN = "sprat"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

CODES: dict[type[SpratError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InputTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.TaskNotSupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Retryable: grpc.StatusCode.UNAVAILABLE,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.CorruptFile: grpc.StatusCode.DATA_LOSS,
    errors.StaleBundle: grpc.StatusCode.DATA_LOSS,
    errors.StaleAdapter: grpc.StatusCode.DATA_LOSS,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.SetupError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DownloadError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EndpointError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StoreError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedModel: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineError: grpc.StatusCode.INTERNAL,
    errors.SpratError: grpc.StatusCode.INTERNAL,
}
"""The status of every error class; a test checks that none is missing."""

Metadata = tuple[tuple[str, str | bytes], ...]


def to_status(error: BaseException) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, message and trailing metadata for an exception.

    What is no `SpratError` becomes INTERNAL with an id; its class and place go to the log.
    """
    if not isinstance(error, SpratError):
        incident = secrets.token_hex(6)
        log.error("incident %s: %s", incident, errors.describe(error))
        error = SpratError(f"internal error, incident {incident}", metadata={"incident": incident})
    code = CODES[type(error)]
    status = status_pb2.Status(
        code=code.value[0], message=error.message, details=[_pack(d) for d in _details(error)]
    )
    metadata: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, Retryable):
        metadata.append((PUSHBACK_KEY, str(round(error.retry_after_s * 1000))))
    return code, error.message, tuple(metadata)


def _details(error: SpratError) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if isinstance(error, InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    elif isinstance(error, NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=f"sprat.v1.{error.kind}",
                resource_name=error.name,
                description=error.message,
            )
        )
    elif isinstance(error, errors.CorruptFile):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type="file", resource_name=error.path, description=error.message
            )
        )
    elif isinstance(error, Retryable):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End a call with the status of an exception."""
    code, message, metadata = to_status(error)
    await context.abort(code, message, metadata)
    raise AssertionError("abort returns never")
