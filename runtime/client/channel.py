"""What both clients share: the channel's options and credentials, and errors from statuses."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from sprat import errors
from sprat.errors import ConfigError, NotReady, SpratError
from sprat.store import home

DEFAULT_TIMEOUT_S = 60.0

_RETRIED = (
    *("Classify", "Route", "Moderate", "Decide", "Extract", "Embed"),
    *("Tokenize", "Feedback", "ListTasks", "ListModels"),
)
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
"""Unary calls are tried again while the server is unavailable: they change nothing on it, and what
feedback says may be said twice."""

_OPTIONS: list[tuple[str, str | int]] = [
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


OVERALL = health_pb2.HealthCheckRequest()


def not_ready(error: grpc.RpcError, timeout_s: float) -> NotReady:
    """What `wait_until_ready` raises for a failed watch."""
    reason = to_error(error)
    if isinstance(reason, errors.DeadlineExceeded):
        return NotReady(f"no server was ready within {timeout_s:g} s")
    return NotReady(f"the server cannot become ready: {reason.message}")


def socket_address(target: str | None) -> str:
    """Where the server is: the default Unix socket of this user where no target is given."""
    return target or f"unix:{home() / 'run' / 'sprat.sock'}"


def options(address: str) -> list[tuple[str, str | int]]:
    """Options of a channel; what is for this machine does not go through a proxy."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return [*_OPTIONS, ("grpc.enable_http_proxy", 0)] if is_loopback else _OPTIONS


def _read(what: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(what, f"{path} cannot be read: {error.strerror}") from None


def credentials(
    tls_ca: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials | None:
    """Channel credentials from PEM files; None without any.

    Raises
    ------
    ConfigError
        A file cannot be read, or a certificate comes without its key.
    """
    if (certificate is None) != (key is None):
        # gRPC would end the process.
        raise ConfigError("tls_certificate", "tls_certificate and tls_key are needed together")
    if tls_ca is None and certificate is None:
        return None
    return grpc.ssl_channel_credentials(
        _read("tls_ca", tls_ca), _read("tls_key", key), _read("tls_certificate", certificate)
    )


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """The call metadata of a token."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
