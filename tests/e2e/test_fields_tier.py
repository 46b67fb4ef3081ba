"""Fields asked of real models: MiniLM's tagger, then SmolLM2; and of a second server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import certificate
from fields import with_tier
from servers import ENCODER, GENERATOR, Server, sprat, start_server
from tagged import write_rows
from visitors import make_visitors

from sprat import Client, Runtime
from sprat.asked_manifest import fields_schema
from sprat.bundle import Bundle
from sprat.config import Config
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.opening import open_endpoint
from sprat.errors import ConfigError
from sprat.store import Store
from sprat.task_config import TaskConfig, TierConfig
from sprat.values import Extraction, ExtractResult, Label

INSTRUCTIONS = "Which name does the visitor have?"
SCHEMA = fields_schema([Label("name", "name of the person, if the text has one")], ())
TEXTS = make_visitors(12, seed=5).texts


def save(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir(parents=True)
    bundle.save(folder, report="{}")
    return folder


@pytest.fixture(scope="module")
def tagger(
    store: Store, minilm: Path, smollm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A tagger on MiniLM whose threshold nothing reaches."""
    folder = tmp_path_factory.mktemp("tagger")
    train = write_rows(folder / "train.jsonl", make_visitors(60, seed=1))
    given = ("train", str(train), "--kind", "extract", "--base", ENCODER)
    done = sprat(store, *given, "--accept-at", "1.0", "-o", str(folder / "visitors"))
    assert done.returncode == 0, done.stderr
    return Bundle.load(folder / "visitors")


@pytest.fixture(scope="module")
def both(store: Store, tagger: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tagger, then SmolLM2, whose chances are taken for confidences."""
    base = store.model(GENERATOR)[0]
    asks = {
        "base": {"name": base.name, "digest": base.digest},
        "language": {"json_schema": SCHEMA, "instructions": INSTRUCTIONS, "max_tokens": 24},
    }
    return save(with_tier(tagger, asks), tmp_path_factory.mktemp("both") / "visitors")


@pytest.fixture(scope="module")
def served(
    store: Store, both: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path, Path]]:
    """A server of it, over TLS and with a token: its authority, its token."""
    folder = tmp_path_factory.mktemp("served")
    pair = certificate(folder, "peer", ["IP:127.0.0.1", "DNS:localhost"])
    token, hashes = folder / "token", folder / "hashes"
    token.write_text(sprat(store, "token", str(hashes)).stdout)
    server = start_server(
        *(store, folder, "--task", str(both), "--listen", "127.0.0.1:0"),
        *("--tls-certificate", str(pair[0]), "--tls-key", str(pair[1])),
        *("--token-file", str(hashes)),
    )
    yield server, pair[0], token
    assert server.stop() == 0


@pytest.fixture(scope="module")
def answers(served: tuple[Server, Path, Path]) -> ExtractResult:
    server, ca, token = served
    with Client(server.address, tls_ca=ca, token=token.read_text().strip()) as client:
        return client.extract("visitors", TEXTS)


def test_fields_tier_of_a_real_model_answers_by_grpc(answers: ExtractResult) -> None:
    assert (answers.model, answers.calibrated) == (GENERATOR, True)
    right = 0
    for text, item in zip(TEXTS, answers.items, strict=True):
        assert item is not None
        assert (item.tier, [each.tier for each in item.tiers]) == (1, [0, 1])
        first, second = item.tiers
        assert 0 < (first.cpu_ms or 0) < (second.cpu_ms or 0)
        if item.abstained:
            assert (item.value, item.confidence) == (None, 0.0)
            continue
        assert 0 < (item.confidence or 0) < 1
        for field in item.fields:
            # The whole is no more probable than a part of it.
            assert (item.confidence or 0) <= field.score + 1e-6
            assert item.value == {"name": text[field.start : field.end]}
            right += item.value["name"] in text
    assert right >= 3


def test_fields_tier_of_a_real_model_says_the_same_in_process(
    store: Store, both: Path, answers: ExtractResult
) -> None:
    with Runtime(tasks=[str(both)], store=store) as runtime:
        here = runtime.extract("visitors", TEXTS[:4])
        plain = runtime.extract("visitors", TEXTS[:4], accept_at=0.9999)
    same = [_same(one, other) for one, other in zip(here.items, answers.items, strict=False)]
    # Quantized weights answer a little differently in another batch.
    assert sum(same) >= 3
    assert all(item is not None and item.abstained for item in plain.items)


def _same(one: Extraction | None, other: Extraction | None) -> bool:
    return one is not None and other is not None and one.json == other.json


async def test_fields_tier_asks_another_server(
    store: Store,
    tagger: Bundle,
    served: tuple[Server, Path, Path],
    answers: ExtractResult,
    tmp_path: Path,
) -> None:
    server, ca, token = served
    config = EndpointConfig(
        url=f"sprat://{server.address}", model="visitors", ca=ca, key_file=token, timeout_s=60
    )
    peer = open_endpoint("far", config, tmp_path)
    found = await peer.task_version("extract", ["name"])
    for kind, labels in (("extract", ["name", "time"]), ("classify", ["name"])):
        with pytest.raises(ConfigError, match="visitors is of kind extract with 1 labels"):
            await peer.task_version(kind, labels)
    await peer.aclose()
    for version, answered in ((found, True), ("0" * 12, False)):
        asked = {"model": "visitors", "task_version": version, "json_schema": SCHEMA}
        name = f"near-{answered}".lower()
        near = save(with_tier(tagger.named(name), {"remote": asked}), tmp_path / name)
        tiers = {"remote": TierConfig(endpoint="far")}
        tasks = {name: TaskConfig(bundle=str(near), tiers=tiers)}
        runtime = Runtime(config=Config(tasks=tasks, endpoints={"far": config}), store=store)
        try:
            # It asks on its own thread; this loop has nothing to do with it.
            result = runtime.extract(name, TEXTS)
        finally:
            runtime.close()
        for item, far in zip(result.items, answers.items, strict=True):
            assert item is not None
            assert far is not None
            if not answered:
                assert (item.tier, item.degraded, item.abstained) == (0, "failure", True)
                continue
            assert item.tier == 1
            if not far.abstained and item.json == far.json:
                assert item.confidence == pytest.approx(far.confidence, abs=0.15)
        if answered:
            same = sum(map(_same, result.items, answers.items))
            assert same >= len(TEXTS) - 3
