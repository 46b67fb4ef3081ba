"""Both clients against a real server: the same answers, the same errors."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    LABELS,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    ids,
    make_service,
    until,
    vector,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sprat import client as clients
from sprat import errors
from sprat.client import AsyncClient, Client
from sprat.errors import SpratError
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.scheduler import LoopThread
from sprat.server.servicer import Servicer
from sprat.service import Service
from sprat.values import Message, Sampling

LONG = "a " * 30


class Backend:
    """A server on a thread of its own, as a client sees it: somewhere else."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.encoder = Encoder()
        self.generator = Generator(context_length=100_000, cells=10**9)
        self.servicer = Servicer(max_concurrent_calls=100)
        self.is_closed = False
        self._loop = LoopThread()
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._service: Service = make_service(self.encoder, self.generator)
        self.servicer.service = self._service
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self.servicer.handler(),))
        self.health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    def set_health(self, value: Any) -> None:
        async def change() -> None:
            await self.health.set("", value)

        self._loop.run(change())

    def loading(self, is_loading: bool) -> None:
        self.servicer.service = None if is_loading else self._service

    def close(self) -> None:
        self.is_closed = True
        self.encoder.gate.set()
        self.generator.gate.set()

        async def end() -> None:
            await self._server.stop(None)
            await self._service.close()

        self._loop.run(end())
        self._loop.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    made = Backend(f"unix:{tmp_path_factory.mktemp('b')}/s")
    yield made
    made.close()


@pytest.fixture
def backend(shared: Backend) -> Iterator[Backend]:
    yield shared
    shared.encoder.gate.set()
    shared.encoder.failure = None
    shared.encoder.calls.clear()
    shared.generator.gate.set()
    shared.generator.on_step = None
    shared.loading(False)


Call = Callable[..., Any]


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest, backend: Backend) -> Iterator[Call]:
    """Calls a method of either client; streams become lists."""
    if request.param == "blocking":
        with Client(backend.address) as blocking:

            def call_blocking(method: str, *arguments: Any, **options: Any) -> Any:
                made = getattr(blocking, method)(*arguments, **options)
                return list(made) if inspect.isgenerator(made) else made

            yield call_blocking
        return

    # One event loop that uses grpc.aio a process: the backend's.
    async def make() -> AsyncClient:
        return AsyncClient(backend.address)

    client = backend._loop.run(make())

    async def call_method(method: str, *arguments: Any, **options: Any) -> Any:
        made = getattr(client, method)(*arguments, **options)
        if inspect.isasyncgen(made):
            return [item async for item in made]
        return await made

    yield lambda *arguments, **options: backend._loop.run(call_method(*arguments, **options))
    backend._loop.run(client.close())


# -- answers ---------------------------------------------------------------------------------


def test_client_classify(call: Call) -> None:
    result = call("classify", TASK, ["a", "b c"], top_k=2)
    assert [len(item.scores) for item in result.items] == [2, 2]
    assert {s.label for item in result.items for s in item.scores} <= set(LABELS)
    assert result.items[0].confidence == result.items[0].scores[0].score
    assert (result.model, result.calibrated) == (ENCODER, True)
    assert result.timings.total_ns > 0


def test_client_classify_takes_a_threshold_and_checks_it(call: Call) -> None:
    (item,) = call("classify", TASK, ["a"], accept_at=1.0, max_tier=3, budget_ms=1e4).items
    assert item.abstained
    for field, value in (("accept_at", 1.5), ("max_tier", -1), ("budget_ms", -1.0)):
        with pytest.raises(errors.InvalidInput) as caught:
            call("classify", TASK, ["a"], **{field: value})
        assert caught.value.field == field


def test_client_embed(call: Call) -> None:
    result = call("embed", ENCODER, ["a b", "c"])
    np.testing.assert_array_equal(result.vectors, [vector(ids("a b")), vector(ids("c"))])
    assert result.vectors.dtype == np.float32
    assert result.input_tokens.tolist() == [4, 3]


def test_client_truncation_and_partial(call: Call) -> None:
    with pytest.raises(errors.InputTooLong):
        call("embed", ENCODER, [LONG])
    cut = call("embed", ENCODER, [LONG], truncation="truncate")
    assert cut.dropped_tokens.tolist() == [16]
    partial = call("classify", TASK, ["a", "", LONG], partial=True)
    assert [item is None for item in partial.items] == [False, True, True]
    assert [error.index for error in partial.errors] == [1, 2]


def test_client_generate(call: Call) -> None:
    chunks = call("generate", GENERATOR, "abc", Sampling(max_tokens=5))
    assert "".join(chunk.text for chunk in chunks) == "abcab"
    assert chunks[-1].finish_reason == "length"
    assert (chunks[-1].prompt_tokens, chunks[-1].output_tokens) == (4, 5)
    chat = [Message("system", "s"), Message("user", "u")]
    chunks = call("generate", GENERATOR, chat, Sampling(max_tokens=9))
    assert "".join(chunk.text for chunk in chunks) == "<system>s"


def test_client_tokenize(call: Call) -> None:
    result = call("tokenize", ENCODER, ["a z"])
    assert result.items[0].ids == tuple(ids("a z"))
    assert result.items[0].tokens == ("[CLS]", "a", "z", "[SEP]")
    assert result.max_tokens == 16


def test_client_lists(call: Call) -> None:
    (task,) = call("list_tasks")
    assert (task.name, task.labels, task.calibrated) == (TASK, LABELS, True)
    encoder, generator = call("list_models")
    assert (encoder.name, encoder.dimension) == (ENCODER, 4)
    assert (generator.name, generator.kind) == (GENERATOR, "generative")


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("classify", "nothing", ["a"]), errors.NotFound),
        (("classify", TASK, []), errors.InvalidInput),
        (("classify", TASK, ["\ud800"]), errors.InvalidInput),
        (("embed", GENERATOR, ["a"]), errors.TaskNotSupported),
        (("generate", ENCODER, "a"), errors.TaskNotSupported),
        (("generate", GENERATOR, "a", Sampling(top_p=3.0)), errors.InvalidInput),
        (("generate", GENERATOR, []), errors.InvalidInput),
        (("tokenize", "nothing", ["a"]), errors.NotFound),
    ],
    ids=str,
)
def test_client_raises_what_the_server_raised(
    call: Call, arguments: tuple[Any, ...], kind: type[SpratError]
) -> None:
    with pytest.raises(SpratError) as caught:
        call(*arguments)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is None
    if isinstance(caught.value, errors.NotFound):
        assert caught.value.name == "nothing"


def test_client_raises_engine_failures(call: Call, backend: Backend) -> None:
    backend.encoder.failure = lambda _: RuntimeError("secret")
    with pytest.raises(errors.EngineError) as caught:
        call("embed", ENCODER, ["a"])
    assert "secret" not in caught.value.message


def test_client_retries_while_models_load(call: Call, backend: Backend) -> None:
    backend.loading(True)
    timer = threading.Timer(0.05, backend.loading, [False])
    timer.start()
    assert call("list_tasks")
    timer.join()


def test_client_raises_not_ready_when_retries_did_not_help(call: Call, backend: Backend) -> None:
    backend.loading(True)
    with pytest.raises(errors.NotReady):
        call("generate", GENERATOR, "a")


def test_client_without_a_server(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}/none", timeout_s=0.3) as client, pytest.raises(SpratError) as e:
        client.list_tasks()
    assert type(e.value) in (errors.NotReady, errors.DeadlineExceeded)


def test_client_deadline(backend: Backend) -> None:
    backend.encoder.gate.clear()
    with Client(backend.address, timeout_s=0.05) as client:
        with pytest.raises(errors.DeadlineExceeded):
            client.embed(ENCODER, ["a"])
        backend.generator.on_step = lambda: time.sleep(0.002)
        with pytest.raises(errors.DeadlineExceeded):
            list(client.generate(GENERATOR, "a", Sampling(max_tokens=90_000), timeout_s=0.05))
    until(lambda: not backend.generator.live, "the engine goes on")


def test_client_closing_the_iterator_stops_the_server(backend: Backend) -> None:
    backend.generator.on_step = lambda: time.sleep(0.001)
    with Client(backend.address) as client:
        stream = client.generate(GENERATOR, "ab", Sampling(max_tokens=90_000))
        assert next(stream).text == "a"
        stream.close()  # type: ignore[attr-defined]
        until(lambda: not backend.generator.live, "the engine goes on")


def test_client_async_cancellation_stops_the_server(backend: Backend) -> None:
    backend.generator.on_step = lambda: time.sleep(0.001)

    async def main() -> None:
        async with AsyncClient(backend.address) as client:
            started = asyncio.Event()

            async def read() -> None:
                async for _ in client.generate(GENERATOR, "ab", Sampling(max_tokens=90_000)):
                    started.set()

            task = asyncio.ensure_future(read())
            await asyncio.wait_for(started.wait(), WAIT_S)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()

    backend._loop.run(main())
    until(lambda: not backend.generator.live, "the engine goes on")


def test_client_is_shared_between_threads(backend: Backend) -> None:
    wrong: list[str] = []
    with Client(backend.address) as client:

        def work(letter: str) -> None:
            for _ in range(20):
                got = client.embed(ENCODER, [letter]).vectors[0]
                if not np.array_equal(got, vector(ids(letter))):
                    wrong.append(letter)

        threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert wrong == []


# -- readiness -------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Backend]:
    made = Backend(f"unix:{tmp_path}/s")
    yield made
    if not made.is_closed:
        made.close()


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def wait_async(backend: Backend, timeout_s: float) -> None:
    async def main() -> None:
        async with AsyncClient(backend.address) as client:
            await client.wait_until_ready(timeout_s)

    backend._loop.run(main())


def wait_blocking(backend: Backend, timeout_s: float) -> None:
    with Client(backend.address) as client:
        client.wait_until_ready(timeout_s)


waiters = pytest.mark.parametrize("wait", [wait_blocking, wait_async])


@waiters
def test_client_wait_until_ready(own: Backend, wait: Callable[[Backend, float], None]) -> None:
    wait(own, WAIT_S)
    own.set_health(NOT_SERVING)
    timer = threading.Timer(0.03, own.set_health, [SERVING])
    timer.start()
    wait(own, WAIT_S)
    timer.join()


@waiters
def test_client_wait_until_ready_gives_up(
    own: Backend, wait: Callable[[Backend, float], None]
) -> None:
    own.set_health(NOT_SERVING)
    with pytest.raises(errors.NotReady, match=r"within 0\.05 s"):
        wait(own, 0.05)


def test_client_wait_until_ready_of_no_server(tmp_path: Path) -> None:
    with (
        Client(f"unix:{tmp_path}/none") as client,
        pytest.raises(errors.NotReady, match=r"within 0\.05 s"),
    ):
        client.wait_until_ready(0.05)


def test_client_wait_until_ready_of_a_server_that_stops(own: Backend) -> None:
    own.set_health(NOT_SERVING)
    timer = threading.Timer(0.05, own.close)
    timer.start()
    with Client(own.address) as client, pytest.raises(errors.NotReady, match="cannot become"):
        client.wait_until_ready(WAIT_S)
    timer.join()


# -- connections -----------------------------------------------------------------------------


def test_client_default_target_is_the_socket_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    backend = Backend(f"unix:{tmp_path}/run/sprat.sock")
    try:
        with Client() as client:
            assert client.list_tasks()
    finally:
        backend.close()


TLS_CASES = [
    ("tls_certificate",),
    ("tls_key",),
    ("tls_ca", "tls_certificate"),
    ("tls_ca", "tls_key"),
]


@pytest.mark.parametrize("given", TLS_CASES, ids=str)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_client_tls_files_come_in_pairs(
    tmp_path: Path, given: tuple[str, ...], kind: type[Client]
) -> None:
    """Half a pair would make gRPC end the whole process."""
    path = tmp_path / "file.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(errors.ConfigError, match="are needed together"):
        kind("127.0.0.1:1", **dict.fromkeys(given, path))  # type: ignore[arg-type]


def test_client_tls_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Client("127.0.0.1:1", tls_ca=tmp_path / "none.pem")
    assert caught.value.path == "tls_ca"
    assert "No such file" in caught.value.message


def test_client_tls_file_that_is_junk_is_an_error_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_bytes(b"\x00junk")
    script = (
        "import sys; from pathlib import Path; from sprat import Client, errors\n"
        "try:\n"
        "    Client('127.0.0.1:1', tls_ca=Path(sys.argv[1]), timeout_s=2).list_tasks()\n"
        "except errors.SpratError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "junk.pem")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() in ("ConfigError", "NotReady"), done.stderr[-500:]


async def test_client_sends_its_token(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def answer(_: bytes, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        return b""

    async def stream(_: bytes, context: Any) -> AsyncIterator[bytes]:
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        yield b""

    methods: dict[str, Any] = {
        "ListTasks": grpc.unary_unary_rpc_method_handler(answer),
        "Generate": grpc.unary_stream_rpc_method_handler(stream),
    }
    handler = grpc.method_handlers_generic_handler("sprat.v1.Sprat", methods)
    server = grpc.aio.server(handlers=(handler,))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with AsyncClient(f"unix:{tmp_path}/s", token="secret") as client:
        await client.list_tasks()
        [_ async for _ in client.generate("m", "a")]

    def blocking() -> None:
        with Client(f"unix:{tmp_path}/s", token="secret") as client:
            client.list_tasks()
            list(client.generate("m", "a"))
        with Client(f"unix:{tmp_path}/s") as client:
            client.list_tasks()

    await asyncio.to_thread(blocking)
    assert seen == ["Bearer secret"] * 4 + [None]
    await server.stop(None)


def test_client_retries_only_calls_that_change_nothing() -> None:
    (method,) = json.loads(clients.SERVICE_CONFIG)["methodConfig"]
    names = {n["method"] for n in method["name"]}
    rpcs = pb.DESCRIPTOR.services_by_name["Sprat"].methods
    assert names == {m.name for m in rpcs if not m.server_streaming}
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
