"""The server's life: loading, ready, draining, forced; as probes and clients see it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import grpc
import grpc.aio
import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    eventually,
    make_service,
    no_leaked_threads,
)
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from scraping import address_in, scraped

from sprat import client
from sprat.config import Config, ModelConfig, ServerConfig
from sprat.errors import ConfigError, CorruptFile, NotReady, QueueFull
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
from sprat.server import app
from sprat.server.auth import hash_token
from sprat.service import Service
from sprat.store import Store
from sprat.task_config import TaskConfig

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NAMES = [
    "",
    "sprat.v1.Sprat",
    f"sprat.task.{TASK}",
    f"sprat.model.{ENCODER}",
    f"sprat.model.{GENERATOR}",
]


@dataclass
class App:
    """A server in this process, and a channel to it."""

    task: asyncio.Task[None]
    channel: grpc.aio.Channel
    encoder: Encoder
    generator: Generator
    loads: asyncio.Event
    ready: list[tuple[str, float]] = field(default_factory=list)

    @property
    def stub(self) -> Any:
        return SpratStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel)

    async def check(self, name: str) -> Any:
        request = health_pb2.HealthCheckRequest(service=name)
        return (await self.health.Check(request, timeout=WAIT_S, wait_for_ready=True)).status

    async def is_ready(self) -> None:
        self.loads.set()
        await eventually(lambda: self.ready or self.task.done(), "never ready")
        if self.task.done():
            await self.task

    def signal(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def ends(self, within_s: float = WAIT_S) -> None:
        done, _ = await asyncio.wait({self.task}, timeout=within_s)
        assert done, f"the server did not end within {within_s} s"
        await self.task


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(
            *, encoder: Encoder | None = None, failure: Exception | None = None, **server: Any
        ) -> App:
            """Start `app.serve`; it loads the doubles when `App.loads` is set."""
            encoder = encoder or Encoder()
            generator = Generator(context_length=100_000, cells=10**9)
            loads = asyncio.Event()

            async def load(*_: Any) -> Service:
                await loads.wait()
                if failure:
                    raise failure
                return make_service(encoder, generator, threads=4)

            monkeypatch.setattr(Service, "open", load)
            options = {"listen": f"unix:{tmp_path}/s", "drain_s": 0.0, "grace_s": 10.0, **server}
            config = Config(
                server=ServerConfig(**options),
                models={GENERATOR: ModelConfig(), ENCODER: ModelConfig()},
                tasks={TASK: TaskConfig(bundle=TASK)},
            )
            ready: list[tuple[str, float]] = []
            task = asyncio.ensure_future(
                app.serve(config, Store(tmp_path), on_ready=lambda *what: ready.append(what))
            )
            channel = grpc.aio.insecure_channel(
                options["listen"], [("grpc.use_local_subchannel_pool", 1)]
            )
            await stack.enter_async_context(channel)
            made = App(task, channel, encoder, generator, loads, ready)
            stack.push_async_callback(end, made)
            return made

        yield begin


async def end(made: App) -> None:
    made.encoder.gate.set()
    made.generator.gate.set()
    made.loads.set()
    if not made.task.done():
        await asyncio.sleep(0)
        made.task.cancel()
        await asyncio.wait({made.task}, timeout=WAIT_S)


# -- loading ---------------------------------------------------------------------------------


async def test_app_is_not_serving_while_loading(start: Start) -> None:
    server = await start()
    for name in NAMES:
        assert await server.check(name) == NOT_SERVING, name
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ListTasks(pb.ListTasksRequest(), timeout=WAIT_S)
    error = client.to_error(caught.value)
    assert isinstance(error, NotReady)
    assert error.retry_after_s > 0
    assert not server.ready


async def test_app_is_serving_when_loaded(start: Start, tmp_path: Path) -> None:
    server = await start()
    await server.is_ready()
    ((address, seconds),) = server.ready
    assert address == f"unix:{tmp_path}/s"
    assert 0 < seconds < WAIT_S
    for name in NAMES:
        assert await server.check(name) == SERVING, name
    answer = await server.stub.Classify(pb.ClassifyRequest(task=TASK, texts=["a"]), timeout=WAIT_S)
    assert answer.results[0].label


@pytest.mark.parametrize("name", ["nothing", "sprat.v1.Nothing", "sprat.task.nothing", TASK])
async def test_app_health_of_unknown_names(start: Start, name: str) -> None:
    server = await start()
    await server.is_ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.check(name)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = server.health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
    assert (await anext(aiter(watch))).status == SERVICE_UNKNOWN
    watch.cancel()


@pytest.mark.parametrize("name", NAMES)
async def test_app_health_watch_follows_the_whole_life(start: Start, name: str) -> None:
    server = await start(drain_s=WAIT_S)
    watch = aiter(
        server.health.Watch(
            health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S, wait_for_ready=True
        )
    )
    assert (await anext(watch)).status == NOT_SERVING
    server.loads.set()
    assert (await anext(watch)).status == SERVING
    server.signal()
    assert (await anext(watch)).status == NOT_SERVING
    server.signal()
    await server.ends()


async def test_app_passes_on_what_loading_raised_and_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    with no_leaked_threads():
        server = await start(failure=CorruptFile("model.bin", "cut"))
        await server.check("")
        server.loads.set()
        with pytest.raises(CorruptFile):
            await server.ends()
    assert not (tmp_path / "s").exists()
    assert not server.ready


async def test_app_stopped_while_loading_ends_without_being_ready(
    start: Start, tmp_path: Path
) -> None:
    server = await start()
    await server.check("")
    server.signal()
    await asyncio.sleep(0.01)
    server.loads.set()
    await server.ends()
    assert not server.ready
    assert not (tmp_path / "s").exists()


async def test_app_refuses_an_address_in_use_before_it_loads(start: Start) -> None:
    first = await start()
    await first.is_ready()
    second = await start()
    with pytest.raises(ConfigError, match="in use by another sprat server"):
        await second.ends()
    assert await first.check("") == SERVING


async def test_app_refuses_exposure_before_it_binds(start: Start) -> None:
    server = await start(listen="0.0.0.0:0")
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        await server.ends()


# -- serving ---------------------------------------------------------------------------------


def reflect(channel: grpc.aio.Channel, version: str) -> Callable[..., Any]:
    return channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )


async def ask(channel: grpc.aio.Channel, version: str, **question: str) -> Any:
    async def questions() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(**question)

    return await anext(aiter(reflect(channel, version)(questions(), timeout=WAIT_S)))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_app_reflection_lists_and_describes_every_service(start: Start, version: str) -> None:
    server = await start()
    await server.is_ready()
    listed = (await ask(server.channel, version, list_services="")).list_services_response
    names = [service.name for service in listed.service]
    assert {"sprat.v1.Sprat", "grpc.health.v1.Health"} <= set(names)
    assert f"grpc.reflection.{version}.ServerReflection" in names
    for name in names:
        answer = await ask(server.channel, version, file_containing_symbol=name)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(f)
            for f in answer.file_descriptor_response.file_descriptor_proto
        ]
        described = {f"{f.package}.{s.name}" for f in files for s in f.service}
        assert name in described, f"grpcurl cannot describe {name}"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_app_reflection_can_be_switched_off(start: Start, version: str) -> None:
    server = await start(reflection=False)
    await server.is_ready()
    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(server.channel, version, list_services="")
        # INTERNAL is gRPC's own: the refusal came while the question was still on its way.
        if caught.value.code() != grpc.StatusCode.INTERNAL:
            break
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_app_asks_for_tokens_where_there_is_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(hash_token("secret") + "\n")
    server = await start(token_file=tmp_path / "tokens")
    await server.is_ready()
    assert await server.check("") == SERVING
    request = pb.ListTasksRequest()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ListTasks(request, timeout=WAIT_S)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    metadata = (("authorization", "Bearer secret"),)
    assert (await server.stub.ListTasks(request, timeout=WAIT_S, metadata=metadata)).tasks


async def test_app_bounds_the_size_of_a_request(start: Start) -> None:
    server = await start(max_message_bytes=2048)
    await server.is_ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.Tokenize(
            pb.TokenizeRequest(model=ENCODER, texts=["a" * 3000]), timeout=WAIT_S
        )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    fits = pb.TokenizeRequest(model=ENCODER, texts=["a" * 1900])
    assert (await server.stub.Tokenize(fits, timeout=WAIT_S)).results


async def test_app_bounds_calls_in_flight_but_not_health(start: Start) -> None:
    server = await start(max_concurrent_calls=1)
    await server.is_ready()
    server.encoder.gate.clear()
    busy = server.stub.Embed(pb.EmbedRequest(model=ENCODER, texts=["a"]), timeout=WAIT_S)
    await eventually(lambda: server.encoder.calls, "the call never came")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ListTasks(pb.ListTasksRequest(), timeout=WAIT_S)
    assert isinstance(client.to_error(caught.value), QueueFull)
    assert await server.check("") == SERVING
    server.encoder.gate.set()
    await busy


# -- draining --------------------------------------------------------------------------------


async def test_app_drain_finishes_calls_in_flight(start: Start) -> None:
    server = await start()
    await server.is_ready()
    server.encoder.gate.clear()
    # Two texts: a lone one would take every permit, the stream's too.
    busy = server.stub.Embed(pb.EmbedRequest(model=ENCODER, texts=["a", "b"]), timeout=WAIT_S)
    stream = server.stub.Generate(
        pb.GenerateRequest(model=GENERATOR, prompt="ab", sampling=pb.Sampling(max_tokens=500)),
        timeout=WAIT_S,
    )
    first = await anext(aiter(stream))
    await eventually(lambda: server.encoder.calls, "the call never came")
    server.signal()
    await asyncio.sleep(0.02)
    assert not server.task.done()
    server.encoder.gate.set()
    assert len((await busy).vectors) == 32
    assert first.text + "".join([a.text async for a in stream]) == "ab" * 250
    await server.ends()
    assert server.encoder.closed
    assert server.generator.closed


async def test_app_drain_says_not_serving_before_it_refuses(start: Start) -> None:
    server = await start(drain_s=WAIT_S)
    await server.is_ready()
    server.signal()
    await asyncio.sleep(0.02)
    for name in NAMES:
        assert await server.check(name) == NOT_SERVING
    assert (await server.stub.ListTasks(pb.ListTasksRequest(), timeout=WAIT_S)).tasks
    server.signal()
    await server.ends()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub.ListTasks(pb.ListTasksRequest(), timeout=WAIT_S)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_app_drain_of_an_idle_server_is_quick(start: Start) -> None:
    server = await start(grace_s=60.0)
    await server.is_ready()
    server.signal()
    await server.ends(within_s=2.0)


async def test_app_drain_does_not_wait_for_watchers(start: Start) -> None:
    """A balancer watches health, and a debugger reflection, for as long as they live."""
    server = await start(grace_s=60.0)
    await server.is_ready()
    watch = server.health.Watch(health_pb2.HealthCheckRequest())
    await anext(aiter(watch))

    async def silent() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        await asyncio.sleep(60)

    debugger = reflect(server.channel, "v1")(silent())
    await anext(aiter(debugger))
    server.signal()
    await server.ends(within_s=2.0)
    debugger.cancel()


async def test_app_grace_period_ends_calls_that_do_not(start: Start) -> None:
    server = await start(grace_s=0.05)
    await server.is_ready()
    server.generator.on_step = lambda: time.sleep(0.001)
    stream = server.stub.Generate(
        pb.GenerateRequest(model=GENERATOR, prompt="a", sampling=pb.Sampling(max_tokens=90_000))
    )
    await anext(aiter(stream))
    server.signal()
    await server.ends(within_s=5.0)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream:
            pass
    assert server.generator.closed


async def test_app_second_signal_ends_calls_at_once(start: Start) -> None:
    server = await start(grace_s=60.0)
    await server.is_ready()
    server.generator.on_step = lambda: time.sleep(0.001)
    stream = server.stub.Generate(
        pb.GenerateRequest(model=GENERATOR, prompt="a", sampling=pb.Sampling(max_tokens=90_000))
    )
    await anext(aiter(stream))
    server.signal()
    await asyncio.sleep(0.02)
    assert not server.task.done()
    server.signal()
    await server.ends(within_s=5.0)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stream:
            pass


async def test_app_leaves_no_socket_and_no_threads(start: Start, tmp_path: Path) -> None:
    with no_leaked_threads():
        server = await start()
        await server.is_ready()
        server.signal()
        await server.ends()
    assert sorted(p.name for p in tmp_path.iterdir()) == []


# -- metrics ---------------------------------------------------------------------------------


async def test_app_metrics_at_a_port_in_use_are_refused_before_loading(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = await start(metrics=address)
        with pytest.raises(ConfigError, match=f"{address} cannot be bound: Address already in use"):
            await server.ends()
    assert not server.loads.is_set()


async def test_app_metrics_live_as_long_as_the_server(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sprat")
    server = await start(metrics="localhost:0", drain_s=WAIT_S)
    await server.check("")
    address = address_in(caplog.text)
    assert "sprat_task_info{" not in (await scraped(address))[1]
    await server.is_ready()
    assert f'sprat_task_info{{kind="classify",task="{TASK}"' in (await scraped(address))[1]
    server.signal()
    await eventually(lambda: "draining" in caplog.text, "never draining")
    assert (await scraped(address))[0] == 200
    server.signal()
    await server.ends()
    with pytest.raises(URLError):
        await scraped(address)
