"""Starting, refusing to start, draining and dying: real processes, real signals."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from servers import ENCODER, GENERATOR, TASK, Server, sprat, start_server

from sprat import Client, Sampling
from sprat.errors import InputTooLong, Unauthenticated
from sprat.store import Store

SERVING = health_pb2.HealthCheckResponse.SERVING
DRAIN_S = 0.5
"""As the configuration has it by default."""


def test_health_knows_the_server_the_service_tasks_and_models(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "sprat.v1.Sprat", f"sprat.task.{TASK}", f"sprat.model.{ENCODER}"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=5)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(server: Server, version: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="sprat.v1.Sprat"),
        ]
        services, file = call(iter(requests), timeout=5)
    names = {s.name for s in services.list_services_response.service}
    assert {"sprat.v1.Sprat", "grpc.health.v1.Health"} <= names
    assert b"ClassifyRequest" in file.file_descriptor_response.file_descriptor_proto[0]


def test_socket_is_private(server: Server) -> None:
    path = Path(server.address.removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_second_server_on_the_socket_is_refused(server: Server, store: Store) -> None:
    done = sprat(store, "serve", "--model", ENCODER, "--listen", server.address)
    assert done.returncode == 1
    assert "in use" in done.stderr
    with Client(server.address) as client:
        assert client.list_models()


def test_port_in_use_is_refused(store: Store, minilm: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = sprat(store, "serve", "--model", ENCODER, "--listen", address)
    assert done.returncode == 1
    assert f"{address} cannot be bound" in done.stderr


def test_exposed_address_without_protection_is_refused(store: Store, minilm: Path) -> None:
    done = sprat(store, "serve", "--model", ENCODER, "--listen", "0.0.0.0:0")
    assert done.returncode == 1
    assert "server.token_file" in done.stderr


def test_loopback_with_token_serves_only_its_bearers(
    store: Store, minilm: Path, tmp_path: Path
) -> None:
    made = sprat(store, "token", str(tmp_path / "tokens"))
    token = made.stdout.strip()
    assert token not in (tmp_path / "tokens").read_text()
    server = start_server(
        store,
        tmp_path,
        *("--model", ENCODER, "--listen", "127.0.0.1:0"),
        *("--token-file", str(tmp_path / "tokens")),
    )
    try:
        with Client(server.address, token=token) as client:
            assert client.embed(ENCODER, ["x"]).vectors.shape == (1, 384)
        with Client(server.address, token="wrong") as client, pytest.raises(Unauthenticated):
            client.list_models()
    finally:
        assert server.stop() == 0


def test_sigterm_while_busy_finishes_calls_in_flight(
    store: Store, smollm: Path, tmp_path: Path
) -> None:
    server = start_server(store, tmp_path, "--model", GENERATOR, drain_s=DRAIN_S)
    pieces: list[str] = []
    finished = threading.Event()

    def stream() -> None:
        with Client(server.address) as client:
            chunks = client.generate(GENERATOR, "Once upon a time", Sampling(max_tokens=60))
            for chunk in chunks:
                pieces.append(chunk.text)
                if chunk.finish_reason:
                    finished.set()

    thread = threading.Thread(target=stream)
    thread.start()
    _wait_for(lambda: bool(pieces))
    assert server.stop() == 0
    thread.join(10)
    assert finished.is_set()
    assert not (tmp_path / "s.sock").exists()


def test_second_signal_ends_calls_in_flight(store: Store, smollm: Path, tmp_path: Path) -> None:
    server = start_server(store, tmp_path, "--model", GENERATOR, drain_s=DRAIN_S)
    errors: list[BaseException] = []
    pieces: list[str] = []

    def stream() -> None:
        with Client(server.address) as client:
            try:
                for chunk in client.generate(GENERATOR, "Once", Sampling(max_tokens=1900)):
                    pieces.append(chunk.text)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    _wait_for(lambda: bool(pieces))
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(10)
    thread.join(10)
    assert time.monotonic() - started < 8
    assert errors


def test_killed_server_leaves_a_socket_that_the_next_one_takes(
    store: Store, minilm: Path, tmp_path: Path
) -> None:
    first = start_server(store, tmp_path, "--model", ENCODER)
    first.process.kill()
    first.process.wait()
    assert (tmp_path / "s.sock").exists()
    second = start_server(store, tmp_path, "--model", ENCODER)
    with Client(second.address) as client:
        assert client.list_models()
    assert second.stop() == 0


def test_bundle_of_another_model_is_refused(store: Store, bundle: Path, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(bundle, stale)
    manifest = json.loads((stale / "bundle.json").read_text())
    manifest["tiers"][0]["base"]["digest"] = "0" * 64
    (stale / "bundle.json").write_text(json.dumps(manifest))
    done = sprat(store, "serve", "--task", str(stale), "--listen", f"unix:{tmp_path}/s.sock")
    assert done.returncode == 1
    assert "another" in done.stderr or "retrain" in done.stderr
    assert not (tmp_path / "s.sock").exists()


def test_corrupt_store_file_is_refused_by_name(store: Store, minilm: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(minilm, home / "models" / ENCODER)
    weights = home / "models" / ENCODER / "ct2" / "model.bin"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    done = sprat(Store(home), "serve", "--model", ENCODER, "--listen", f"unix:{tmp_path}/s.sock")
    assert done.returncode == 1
    assert "model.bin" in done.stderr
    assert "sha256" in done.stderr


def test_gguf_cut_in_half_is_refused(smollm: Path, tmp_path: Path) -> None:
    weights = smollm / json.loads((smollm / "model.json").read_text())["weights"]
    half = tmp_path / "half.gguf"
    half.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    done = sprat(Store(tmp_path / "home"), "pull", str(half))
    assert done.returncode == 1
    assert "half.gguf" in done.stderr


def test_log_holds_no_input_text(store: Store, bundle: Path, tmp_path: Path) -> None:
    server = start_server(
        store, tmp_path, "--task", str(bundle), "--listen", f"unix:{tmp_path}/s.sock"
    )
    with Client(server.address) as client:
        client.classify(TASK, ["a very secret sentence"])
        with pytest.raises(InputTooLong):
            client.classify(TASK, ["secret " * 1000])
    assert server.stop() == 0
    log = server.log.read_text()
    assert "compute threads" in log
    assert "secret" not in log


def _wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
