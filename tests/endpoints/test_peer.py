"""Another sprat server as a tier: a real one, over TLS and with a token."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from chat_server import certificate
from doubles import LABELS, bundle, no_leaked_threads
from remotes import configuration, with_remote
from servers import Server, sprat, start_server
from tiny_models import encoder_files, write_files

from sprat.asked_manifest import RemoteRewriting
from sprat.bundle_manifest import BundleManifest
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.breaker import FAILURES
from sprat.endpoints.opening import open_endpoint
from sprat.errors import ConfigError, EngineError, SpratError, Unauthenticated
from sprat.inprocess import Runtime
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.pull import pull
from sprat.store import Store
from sprat.values import ClassifyResult

ENCODER, FAR, NEAR = "tiny-encoder", "far-task", "tiered"
TEXTS = ("a", "b c", "third z")


@dataclass(frozen=True)
class Peer:
    """A server of the task ``far-task``, and how to reach it."""

    server: Server
    store: Store
    ca: Path
    token: Path
    version: str

    @property
    def url(self) -> str:
        return f"sprat://{self.server.address}"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("peer")
    store = Store(folder / "home")
    pull(str(write_files(folder / ENCODER, encoder_files())), store)
    made = bundle(store.model(ENCODER)[0], accept_at=0.99).named(FAR)
    manifest, _ = store.add_bundle(FAR, lambda path: made.save(path, report="{}"))
    pair = certificate(folder, "peer", ["IP:127.0.0.1", "DNS:localhost"])
    token, hashes = folder / "token", folder / "hashes"
    token.write_text(sprat(store, "token", str(hashes)).stdout)
    server = start_server(
        *(store, folder, "--task", FAR, "--listen", "127.0.0.1:0"),
        *("--tls-certificate", str(pair[0]), "--tls-key", str(pair[1])),
        *("--token-file", str(hashes)),
    )
    yield Peer(server, store, pair[0], token, manifest.version)
    assert server.stop() == 0


@pytest.fixture
def store(peer: Peer, tmp_path: Path) -> Store:
    """A store of its own with a cascade onto the peer's task."""
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / ENCODER, encoder_files())), store)
    add(store, peer.version)
    return store


def add(store: Store, version: str) -> BundleManifest:
    asks = {"model": FAR, "task_version": version}
    head = bundle(store.model(ENCODER)[0], accept_at=1.0)
    made = with_remote(head, asks=asks).named(NEAR)
    return store.add_bundle(NEAR, lambda path: made.save(path, report="{}"), replace=True)[0]


def ask(store: Store, peer: Peer, *texts: str, **changes: Any) -> ClassifyResult:
    settings = {"url": peer.url, "ca": peer.ca, "key_file": peer.token, "model": FAR, **changes}
    config = configuration(NEAR, **settings)
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        return runtime.classify(NEAR, texts or TEXTS, partial=True)


def test_peer_answers_with_its_confidence(store: Store, peer: Peer) -> None:
    result = ask(store, peer)
    with Runtime(tasks=[FAR], store=peer.store) as runtime:
        alone = runtime.classify(FAR, TEXTS)
    for far, own in zip(result.items, alone.items, strict=True):
        assert far is not None
        assert own is not None
        # It abstains there, below its own threshold; here another one counts.
        assert own.abstained
        assert (far.label, far.tier) == (own.scores[0].label, 1)
        assert far.confidence == pytest.approx(own.confidence, abs=1e-5)
        assert far.input_tokens == own.input_tokens
    assert (result.model, result.model_version) == (FAR, peer.version)


def test_peer_on_this_machine_is_not_asked_through_a_proxy(
    store: Store, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (item,) = ask(store, peer, "a").items
    assert item is not None
    assert (item.tier, item.degraded) == (1, None)


def test_peer_is_not_trusted_with_another_authority(
    store: Store, peer: Peer, tmp_path: Path
) -> None:
    other, _ = certificate(tmp_path, "other", ["IP:127.0.0.1"])
    (item,) = ask(store, peer, "a", ca=other, timeout_s=10).items
    assert item is not None
    assert (item.tier, item.degraded in ("failure", "no_time")) == (0, True)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_peer_refuses_without_its_token(
    store: Store, peer: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    path = None
    if token is not None:
        path = tmp_path / "token"
        path.write_text(token)
    (item,) = ask(store, peer, "a", key_file=path).items
    assert item is not None
    assert (item.tier, item.degraded) == (0, "failure")
    assert "token" in caplog.text


def test_peer_with_another_version_of_its_task_is_missed(store: Store, peer: Peer) -> None:
    add(store, "0" * 12)
    (item,) = ask(store, peer, "a").items
    assert item is not None
    assert (item.tier, item.degraded) == (0, "failure")
    with pytest.raises(SpratError, match=f"has version {peer.version}, but the tier was calib"):
        config = configuration(
            *(NEAR, peer.url),
            ca=peer.ca,
            key_file=peer.token,
            model=FAR,
            on_failure="error",
        )
        with Runtime(config=config, store=store) as runtime:
            runtime.classify(NEAR, ["a"])


def test_peer_that_refuses_a_text_answers_the_others(store: Store, peer: Peer) -> None:
    long = "a " * 40
    # Only the peer's own limit is in the way of the long one: here it is cut.
    settings = {"url": peer.url, "ca": peer.ca, "key_file": peer.token, "model": FAR}
    with Runtime(config=configuration(NEAR, **settings), store=store) as runtime:
        result = runtime.classify(NEAR, ["a", long, "b"], truncation="truncate")
    assert [item and item.degraded for item in result.items] == [None, "failure", None]


def test_peer_that_is_gone_opens_the_breaker(store: Store, peer: Peer, tmp_path: Path) -> None:
    config = configuration(NEAR, f"unix:{tmp_path}/nobody.sock", model=FAR, timeout_s=2)
    with Runtime(config=config, store=store) as runtime:
        for _ in range(FAILURES):
            (item,) = runtime.classify(NEAR, ["a"]).items
            assert item is not None
            assert item.degraded in ("failure", "no_time")
        far = runtime.list_tasks()[0].tiers[1].endpoint
    assert far is not None
    assert far.state == "open"


@pytest.mark.parametrize(
    ("model", "labels", "said"),
    [
        (FAR, LABELS, None),
        (FAR, tuple(reversed(LABELS)), None),
        (FAR, ("x", "y"), "with the labels of the bundle; far-task is of kind classify with 3"),
        ("other", LABELS, "the server has no task 'other'; known: far-task"),
    ],
)
async def test_peer_says_the_version_of_a_task_with_the_same_labels(
    peer: Peer, tmp_path: Path, model: str, labels: tuple[str, ...], said: str | None
) -> None:
    config = EndpointConfig(url=peer.url, ca=peer.ca, key_file=peer.token, model=model)
    endpoint = open_endpoint("far", config, tmp_path)
    try:
        if said is None:
            assert await endpoint.task_version("classify", labels) == peer.version
        else:
            with pytest.raises(ConfigError, match=said) as caught:
                await endpoint.task_version("classify", labels)
            assert caught.value.path == "endpoints.far.model"
    finally:
        await endpoint.aclose()


async def test_peer_without_a_token_says_nothing(peer: Peer, tmp_path: Path) -> None:
    endpoint = open_endpoint("far", EndpointConfig(url=peer.url, ca=peer.ca, model=FAR), tmp_path)
    with pytest.raises(Unauthenticated):
        await endpoint.task_version("classify", LABELS)
    await endpoint.aclose()


def test_peer_of_a_chat_model_is_an_error_at_the_start(store: Store, peer: Peer) -> None:
    add(store, "")
    with pytest.raises(ConfigError, match="expected the chat endpoint with model far-task"):
        ask(store, peer)


@pytest.mark.parametrize("cut", ["status", "no end", "nothing"])
async def test_peer_answer_without_an_end_is_missed(tmp_path: Path, cut: str) -> None:
    """A server that is stopped in the middle of a stream, or an odd one."""

    async def transform(request: pb.TransformRequest, context: Any) -> AsyncIterator[Any]:
        if cut != "nothing":
            yield pb.TransformResponse(text="Good")
        if cut == "status":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    handler = grpc.unary_stream_rpc_method_handler(
        transform,
        pb.TransformRequest.FromString,
        pb.TransformResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("sprat.v1.Sprat", {"Transform": handler}),)
    )
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    endpoint = open_endpoint("far", EndpointConfig(url=address, model=FAR), tmp_path)
    asked = RemoteRewriting(model=FAR, task_version="0" * 12)
    question = endpoint.texts(asked, schema=None, has_logprobs=False)
    try:
        (said,) = await question.ask(["a text"], deadline=math.inf)
    finally:
        await endpoint.aclose()
        await server.stop(None)
    assert isinstance(said, EngineError)
    assert "a text" not in str(said)
