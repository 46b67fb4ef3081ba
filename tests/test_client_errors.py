"""Failed calls without, or with foreign, details: still errors of ours."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from sprat import client as clients
from sprat import errors
from sprat.errors import SpratError
from sprat.server import status


class Failed(grpc.RpcError):
    """An RpcError as both kinds of channels make it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str | None = "text",
        metadata: tuple[tuple[str, Any], ...] | None = (),
    ) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.NotReady),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, errors.Cancelled),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.QueueFull),
        (grpc.StatusCode.UNIMPLEMENTED, SpratError),
        (grpc.StatusCode.INTERNAL, SpratError),
        (grpc.StatusCode.UNKNOWN, SpratError),
    ],
)
def test_client_error_without_details(code: grpc.StatusCode, kind: type[SpratError]) -> None:
    error = clients.to_error(Failed(code))
    assert type(error) is kind
    assert error.message == "text"
    if isinstance(error, errors.Retryable):
        assert error.retry_after_s == 1.0


@pytest.mark.parametrize(("details", "metadata"), [(None, ()), ("", None)])
def test_client_error_without_anything(details: str | None, metadata: Any) -> None:
    error = clients.to_error(Failed(grpc.StatusCode.UNKNOWN, details, metadata))
    assert error.message == "UNKNOWN"


def packed(reason: str, domain: str) -> tuple[tuple[str, Any], ...]:
    made = status_pb2.Status()
    made.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"field": "x"})
    )
    return ((status.DETAILS_KEY, made.SerializeToString()),)


def test_client_error_details_of_a_newer_server() -> None:
    metadata = packed("SOMETHING_NEW", "sprat")
    error = clients.to_error(Failed(grpc.StatusCode.UNAVAILABLE, "text", metadata))
    assert type(error) is errors.NotReady
    assert error.metadata["field"] == "x"


def test_client_error_details_of_somebody_else() -> None:
    """A proxy's reasons are not ours, even where the words are."""
    metadata = packed("INPUT_TOO_LONG", "proxy.example.org")
    error = clients.to_error(Failed(grpc.StatusCode.INTERNAL, "text", metadata))
    assert type(error) is SpratError


def test_client_error_details_that_cannot_be_read() -> None:
    metadata = ((status.DETAILS_KEY, b"\xff\xff"),)
    error = clients.to_error(Failed(grpc.StatusCode.UNAVAILABLE, "text", metadata))
    assert type(error) is errors.NotReady
