"""From exceptions to statuses and back: every class, with its facts, over a real connection."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

import sprat
from sprat import client, errors
from sprat.errors import SpratError
from sprat.server import status

SAMPLES: list[SpratError] = [
    SpratError("broken"),
    errors.InvalidInput("top_k: expected 1 or more, got 0", field="top_k"),
    errors.InputTooLong(field="texts[3]", tokens=300, limit=256),
    errors.NotFound("task", "tickets", ("routes",)),
    errors.TaskNotSupported("embed needs an encoder", metadata={"model": "m"}),
    errors.Retryable("later", retry_after_s=2.5),
    errors.NotReady("models are loading", retry_after_s=0.5),
    errors.QueueFull("no room", retry_after_s=0.125, metadata={"waiting": "9"}),
    errors.DeadlineExceeded("too late"),
    errors.Cancelled("the caller gave up"),
    errors.CorruptFile("model.bin", "cut"),
    errors.StaleBundle("bundle.json", "made with another model"),
    errors.StaleAdapter("adapter.json", "made for another model"),
    errors.Unauthenticated("unknown token"),
    errors.PermissionDenied("not yours"),
    errors.SetupError("something is missing"),
    errors.ConfigError("server.listen", "expected unix:PATH"),
    errors.DataError("rows.jsonl", 7, "no label"),
    errors.DownloadError("no source"),
    errors.EndpointError("https://models.example.org: status 401"),
    errors.StoreError("no space"),
    errors.UnsupportedModel("bart"),
    errors.EngineError("cannot load"),
]
by_class = pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)


def tree(kind: type[SpratError] = SpratError) -> list[type[SpratError]]:
    return [kind, *(c for child in kind.__subclasses__() for c in tree(child))]


def details(metadata: status.Metadata) -> status_pb2.Status:
    return status_pb2.Status.FromString(dict(metadata)[status.DETAILS_KEY])


def unpack(metadata: status.Metadata, kind: type[Any]) -> Any:
    found = kind()
    packed = [d for d in details(metadata).details if d.Unpack(found)]
    assert len(packed) == 1, f"expected one {kind.__name__}"
    return found


# -- the table -------------------------------------------------------------------------------


def test_status_every_error_class_has_a_row() -> None:
    for module in pkgutil.walk_packages(sprat.__path__, "sprat."):
        if module.name.split(".")[1] not in ("__main__", "benchmarks", "quantize", "train"):
            importlib.import_module(module.name)
    assert set(tree()) == set(status.CODES)
    assert {type(error) for error in SAMPLES} == set(tree())


def test_status_table_is_the_one_in_the_docstring_of_errors() -> None:
    drawn = dict(re.findall(r"(\w+) +([A-Z_]+)(?:\s|$)", (errors.__doc__ or "").split("::")[1]))
    for kind, code in status.CODES.items():
        assert drawn[kind.__name__] == code.name


@by_class
def test_status_code_message_and_facts(error: SpratError) -> None:
    code, message, metadata = status.to_status(error)
    assert code == status.CODES[type(error)]
    assert message == error.message
    packed = details(metadata)
    assert (packed.code, packed.message) == (code.value[0], error.message)
    info = unpack(metadata, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason, "sprat")
    assert dict(info.metadata) == error.metadata


# -- details by class ------------------------------------------------------------------------


def test_status_invalid_input_names_the_field() -> None:
    _, _, metadata = status.to_status(errors.InputTooLong(field="texts[3]", tokens=9, limit=5))
    (violation,) = unpack(metadata, error_details_pb2.BadRequest).field_violations
    assert violation.field == "texts[3]"
    assert violation.description == "texts[3]: 9 tokens, at most 5 are accepted"
    assert violation.reason == "INPUT_TOO_LONG"


def test_status_not_found_names_the_resource() -> None:
    _, _, metadata = status.to_status(errors.NotFound("model", "m"))
    info = unpack(metadata, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("sprat.v1.model", "m")
    assert info.description == "no model named 'm'"


@pytest.mark.parametrize("kind", [errors.CorruptFile, errors.StaleBundle, errors.StaleAdapter])
def test_status_corrupt_file_names_the_file(kind: type[errors.CorruptFile]) -> None:
    _, _, metadata = status.to_status(kind("model.bin", "cut"))
    info = unpack(metadata, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("file", "model.bin")


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.125, 125), (2.5, 2500), (0.0, 0)])
@pytest.mark.parametrize("kind", [errors.NotReady, errors.QueueFull])
def test_status_retryable_says_when(
    kind: type[errors.Retryable], seconds: float, milliseconds: int
) -> None:
    _, _, metadata = status.to_status(kind("later", retry_after_s=seconds))
    assert dict(metadata)[status.PUSHBACK_KEY] == str(milliseconds)
    delay = unpack(metadata, error_details_pb2.RetryInfo).retry_delay
    assert delay.ToMilliseconds() == milliseconds


@by_class
def test_status_pushback_only_where_a_retry_helps(error: SpratError) -> None:
    _, _, metadata = status.to_status(error)
    assert (status.PUSHBACK_KEY in dict(metadata)) is isinstance(error, errors.Retryable)


# -- what was not foreseen -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, AssertionError, MemoryError])
def test_status_unforeseen_tells_nobody_the_text(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise kind("secret input text")
    except kind as error:
        with caplog.at_level(logging.DEBUG):
            code, message, metadata = status.to_status(error)
    assert code == grpc.StatusCode.INTERNAL
    incident = re.fullmatch(r"internal error, incident ([0-9a-f]{12})", message)
    assert incident
    info = unpack(metadata, error_details_pb2.ErrorInfo)
    assert info.metadata["incident"] == incident[1]
    assert f"incident {incident[1]}: {kind.__name__} at test_status.py:" in caplog.text
    assert "secret" not in caplog.text
    assert b"secret" not in dict(metadata)[status.DETAILS_KEY]


def test_status_unforeseen_incidents_differ() -> None:
    assert status.to_status(ValueError())[1] != status.to_status(ValueError())[1]


# -- over a connection -----------------------------------------------------------------------


class Raiser:
    """Answers every call with one error."""

    error: BaseException = SpratError("unset")

    async def unary(self, _: bytes, context: Any) -> None:
        await status.abort(context, self.error)

    async def stream(self, _: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await status.abort(context, self.error)


@pytest.fixture
async def raiser(tmp_path: Path) -> AsyncIterator[tuple[Raiser, str]]:
    made = Raiser()
    methods: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(made.unary),
        "Stream": grpc.unary_stream_rpc_method_handler(made.stream),
    }
    server = grpc.aio.server(handlers=(grpc.method_handlers_generic_handler("t", methods),))
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    yield made, address
    await server.stop(None)


async def caught_async(address: str, method: str) -> SpratError:
    channel: Any
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            if method == "/t/Unary":
                await channel.unary_unary(method)(b"", timeout=10)
            else:
                async for _ in channel.unary_stream(method)(b"", timeout=10):
                    pass
        return client.to_error(caught.value)


def caught_sync(address: str, method: str) -> SpratError:
    channel: Any
    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            if method == "/t/Unary":
                channel.unary_unary(method)(b"", timeout=10)
            else:
                list(channel.unary_stream(method)(b"", timeout=10))
        return client.to_error(caught.value)


@by_class
@pytest.mark.parametrize("method", ["/t/Unary", "/t/Stream"])
async def test_status_round_trip_restores_class_and_facts(
    raiser: tuple[Raiser, str], error: SpratError, method: str
) -> None:
    made, address = raiser
    made.error = error
    restored = await caught_async(address, method)
    assert type(restored) is type(error)
    assert restored.message == error.message
    assert str(restored) == error.message
    assert restored.metadata == error.metadata


async def test_status_round_trip_restores_through_a_blocking_client(
    raiser: tuple[Raiser, str],
) -> None:
    made, address = raiser
    made.error = errors.InputTooLong(field="texts[3]", tokens=300, limit=256)
    for method in ("/t/Unary", "/t/Stream"):
        restored = await asyncio.to_thread(caught_sync, address, method)
        assert isinstance(restored, errors.InputTooLong)
        assert (restored.field, restored.tokens, restored.limit) == ("texts[3]", 300, 256)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("task", "ü" * 100_000, tuple(f"task-{i}-{'x' * 50}" for i in range(500))),
        errors.InvalidInput("texts[1]: line\nbreak, % and ü", field="texts[1]"),
    ],
    ids=["huge", "odd characters"],
)
async def test_status_round_trip_survives_header_limits(
    raiser: tuple[Raiser, str], error: SpratError
) -> None:
    made, address = raiser
    made.error = error
    restored = await caught_async(address, "/t/Unary")
    assert type(restored) is type(error)
    assert restored.message == error.message


async def test_status_round_trip_of_the_unforeseen(raiser: tuple[Raiser, str]) -> None:
    made, address = raiser
    made.error = ZeroDivisionError("secret")
    restored = await caught_async(address, "/t/Unary")
    assert type(restored) is SpratError
    assert restored.metadata["incident"] in restored.message
    assert "secret" not in restored.message
