"""Bearer tokens: strict files, and one answer to every kind of call without one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from sprat import client
from sprat.errors import ConfigError, SpratError, Unauthenticated
from sprat.server.auth import BearerTokens, hash_token, new_token, read_token_file

TOKEN = new_token()
OTHER = new_token()


def token_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "tokens"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- tokens and their file -------------------------------------------------------------------


def test_auth_tokens_are_long_random_and_typable() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert TOKEN.startswith("sprat_")
    assert len(TOKEN) >= 6 + 43
    assert TOKEN.isascii()
    assert not set(TOKEN) & set(" \t#\"'")


def test_auth_hash_is_sha256_in_hex() -> None:
    assert hash_token("a") == "sha256:" + hashlib.sha256(b"a").hexdigest()


def test_auth_file_with_comments_and_blank_lines(tmp_path: Path) -> None:
    path = token_file(
        tmp_path,
        f"# who may call\n\n  {hash_token(TOKEN)}  # the shop\r\n{hash_token(OTHER)}#laptop\n   \n",
    )
    assert read_token_file(path) == (hash_token(TOKEN), hash_token(OTHER))


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (TOKEN, 2),
        ("sha256:" + "0" * 63, 2),
        ("sha256:" + "0" * 65, 2),
        ("sha256:" + "G" * 64, 2),
        ("sha256:" + "A" * 64, 2),
        ("md5:" + "0" * 64, 2),
        ("sha256: " + "0" * 64, 2),
        ("sha256:" + "0" * 64 + " shop", 2),
    ],
)
def test_auth_file_error_names_the_line_but_not_what_stands_there(
    tmp_path: Path, line: str, number: int
) -> None:
    path = token_file(tmp_path, f"# first\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_token_file(path)
    assert caught.value.path == "server.token_file"
    assert f"{path}:{number}: " in caught.value.message
    assert line not in caught.value.message


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_auth_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="holds no token"):
        read_token_file(token_file(tmp_path, text))


def test_auth_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.*cannot be read"):
        read_token_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token_file(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token_file(token_file(tmp_path, b"\xff\xfe"))


# -- calls -----------------------------------------------------------------------------------


async def echo(request: bytes, _: Any) -> bytes:
    return request


async def repeat(request: bytes, _: Any) -> AsyncIterator[bytes]:
    yield request
    yield request


async def join(requests: AsyncIterator[bytes], _: Any) -> bytes:
    return b"".join([request async for request in requests])


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Any]:
    tokens = BearerTokens((hash_token(OTHER), hash_token(TOKEN)))
    methods: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.unary_stream_rpc_method_handler(repeat),
        "Join": grpc.stream_unary_rpc_method_handler(join),
    }
    server = grpc.aio.server(
        handlers=(grpc.method_handlers_generic_handler("t", methods),), interceptors=(tokens,)
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)  # type: ignore[attr-defined]
    reflection.enable_server_reflection(["t"], server)
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as made:
        yield made
    await server.stop(None)


Metadata = tuple[tuple[str, str], ...]


def bearer(token: str, scheme: str = "Bearer") -> Metadata:
    return (("authorization", f"{scheme} {token}"),)


async def call(channel: Any, method: str, metadata: Metadata) -> list[Any]:
    """Every message of the answer."""

    async def requests() -> AsyncIterator[Any]:
        if method == "Reflection":
            yield reflection_pb2.ServerReflectionRequest(list_services="")
        else:
            yield b"a"
            yield b"b"

    options = {"metadata": metadata, "timeout": 10}
    if method == "Unary":
        return [await channel.unary_unary("/t/Unary")(b"x", **options)]
    if method == "Stream":
        return [m async for m in channel.unary_stream("/t/Stream")(b"x", **options)]
    if method == "Join":
        return [await channel.stream_unary("/t/Join")(requests(), **options)]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return [m async for m in stub.ServerReflectionInfo(requests(), **options)]


METHODS = ["Unary", "Stream", "Join", "Reflection"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("token", [TOKEN, OTHER], ids=["last", "first"])
async def test_auth_known_tokens_pass(channel: Any, method: str, token: str) -> None:
    answers = await call(channel, method, bearer(token))
    if method != "Reflection":
        assert answers == {"Unary": [b"x"], "Stream": [b"x", b"x"], "Join": [b"ab"]}[method]
    else:
        assert answers[0].list_services_response.service[0].name == "t"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_auth_scheme_is_case_insensitive(channel: Any, scheme: str) -> None:
    assert await call(channel, "Unary", bearer(TOKEN, scheme)) == [b"x"]


REFUSED: list[tuple[str, Metadata, str]] = [
    ("none", (), "got none"),
    ("empty", (("authorization", ""),), "unknown token"),
    ("no token", (("authorization", "Bearer"),), "unknown token"),
    ("unknown", bearer(new_token()), "unknown token"),
    ("cut", bearer(TOKEN[:-1]), "unknown token"),
    ("longer", bearer(TOKEN + "x"), "unknown token"),
    ("other scheme", bearer(TOKEN, "Basic"), "unknown token"),
    ("no scheme", (("authorization", TOKEN),), "unknown token"),
    ("hash", bearer(hash_token(TOKEN)), "unknown token"),
    ("other header", (("x-authorization", f"Bearer {TOKEN}"),), "got none"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("metadata", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
async def test_auth_refuses_every_kind_of_call(
    channel: Any, method: str, metadata: Metadata, message: str
) -> None:
    error = await refused(channel, method, metadata)
    assert type(error) is Unauthenticated
    assert message in error.message
    assert TOKEN not in error.message


async def refused(channel: Any, method: str, metadata: Metadata) -> SpratError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, metadata)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    return client.to_error(caught.value)


async def test_auth_unknown_methods_tell_nothing_without_a_token(
    channel: Any,
) -> None:
    method = channel.unary_unary("/t/Nothing")
    for metadata, code in (
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (bearer(TOKEN), grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"", metadata=metadata, timeout=10)
        assert caught.value.code() == code


async def test_auth_health_is_open(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    async for answer in watch:
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        break


async def test_auth_names_that_only_start_like_health_are_not_open(
    channel: Any,
) -> None:
    method = channel.unary_unary("/grpc.health.v1.HealthX/Check")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_auth_a_refused_stream_does_not_wait_for_its_requests(
    channel: Any,
) -> None:
    upload = channel.stream_unary("/t/Join")(timeout=10)
    assert await upload.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_auth_the_server_survives_a_flood_of_refusals(channel: Any) -> None:
    answers = await asyncio.gather(
        *(refused(channel, METHODS[i % 4], bearer(new_token())) for i in range(200))
    )
    assert {type(a) for a in answers} == {Unauthenticated}
    assert await call(channel, "Unary", bearer(TOKEN)) == [b"x"]
