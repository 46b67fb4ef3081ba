"""The server process: listen, load, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import grpc
import grpc.aio
from google.protobuf import struct_pb2, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sprat.config import Config, ServerConfig
from sprat.proto.v1 import sprat_pb2
from sprat.server import listen
from sprat.server.auth import BearerTokens, read_token_file
from sprat.server.servicer import SERVICE_NAME, Servicer
from sprat.service import Service
from sprat.store import Store

log = logging.getLogger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SETTLE_S = 0.1
"""How long a call that was accepted at the last moment may take to reach its handler."""
HEALTH_NAME = "grpc.health.v1.Health"
REFLECTION_NAMES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


async def serve(
    config: Config,
    store: Store,
    *,
    on_ready: Callable[[str, float], None] = lambda address, seconds: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends calls in flight.

    Parameters
    ----------
    config : Config
        What to serve, and where.
    store : Store
        Where the models and bundles are.
    on_ready : callable
        Called with the address and the seconds since the call when all models are loaded.

    Raises
    ------
    ConfigError, NotFound, CorruptFile, StaleBundle, EngineError
        When the server cannot start.
    """
    started = time.perf_counter()
    stop, force = _signals()
    address = listen.parse(config.server.listen or listen.default_address())
    listen.check_exposure(address, config.server)
    tls = listen.credentials(config.server)
    interceptors = []
    if config.server.token_file is not None:
        interceptors.append(BearerTokens(read_token_file(config.server.token_file)))
    server = grpc.aio.server(options=_options(config.server), interceptors=interceptors)
    servicer = Servicer(config.server.max_concurrent_calls)
    # The health servicer starts out as SERVING.
    health_servicer: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
    for name in _health_names(config.tasks, config.models):
        await health_servicer.set(name, NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    server.add_generic_rpc_handlers((servicer.handler(),))
    if config.server.reflection:
        _add_reflection(server)

    with ExitStack() as stack:
        collector = None
        if config.server.metrics:
            # Who asks for none does not pay for its import.
            from sprat.server import metrics

            collector = stack.enter_context(metrics.served(config.server))
        bound = stack.enter_context(listen.bound(server, address, tls))
        await server.start()
        log.info("listening on %s, loading", bound)
        service: Service | None = None
        try:
            opening = asyncio.ensure_future(Service.open(config, store))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            service = await opening
            if not stop.is_set():
                servicer.service = service
                if collector is not None:
                    collector.service = service
                tasks = (task.name for task in service.list_tasks())
                models = (model.name for model in service.list_models())
                for name in _health_names(tasks, models):
                    await health_servicer.set(name, SERVING)
                on_ready(bound, time.perf_counter() - started)
            await stopping
            await _drain(server, servicer, health_servicer, config.server, force)
        finally:
            await server.stop(None)
            if service is not None:
                await service.close()
    log.info("stopped")


async def _drain(
    server: grpc.aio.Server,
    servicer: Servicer,
    health_servicer: Any,
    config: ServerConfig,
    force: asyncio.Event,
) -> None:
    """Tell balancers, let calls in flight finish within the grace period; ``force`` ends it."""
    log.info("draining for up to %g s", config.drain_s + config.grace_s)
    await health_servicer.enter_graceful_shutdown()
    forced = asyncio.ensure_future(force.wait())
    await asyncio.wait({forced}, timeout=config.drain_s)
    finished = asyncio.ensure_future(server.stop(config.grace_s))
    await asyncio.wait({forced, finished}, timeout=SETTLE_S, return_when=asyncio.FIRST_COMPLETED)
    idle = asyncio.ensure_future(servicer.idle())
    await asyncio.wait({forced, finished, idle}, return_when=asyncio.FIRST_COMPLETED)
    forced.cancel()
    idle.cancel()
    if force.is_set():
        log.warning("second signal: calls in flight are ended")
    # Health watchers and reflection streams never end by themselves.
    await server.stop(None)
    await finished


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Events for the first and the second SIGTERM or SIGINT."""
    stop, force = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            force.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop, force


def _options(config: ServerConfig) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        # Answers are bounded by requests; a limit here would only lose finished work.
        ("grpc.max_send_message_length", -1),
        # A second server on the same port fails instead of sharing its calls.
        ("grpc.so_reuseport", 0),
        # Clients may ping every 30 s, also between calls, to keep idle connections alive.
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _health_names(tasks: Iterable[str], models: Iterable[str]) -> list[str]:
    """The server as a whole, the service, and one name per task and model."""
    return [
        "",
        SERVICE_NAME,
        *(f"sprat.task.{name}" for name in tasks),
        *(f"sprat.model.{name}" for name in models),
    ]


def _add_reflection(server: grpc.aio.Server) -> None:
    """Reflection under both names; the package knows the older one only, the protocol is one."""
    names = (SERVICE_NAME, HEALTH_NAME, *REFLECTION_NAMES)
    pool = DescriptorPool()
    for module in (struct_pb2, sprat_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    older = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(older)
    newer = text_format.MessageToString(older).replace("v1alpha", "v1")
    pool.Add(text_format.Parse(newer, FileDescriptorProto()))
    servicer = reflection.aio.ReflectionServicer(names, pool)  # type: ignore[attr-defined]
    for name in REFLECTION_NAMES:
        method = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}),)
        )
