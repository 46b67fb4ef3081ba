"""Tiers that moderators ask, from ``sprat add-tier`` to a served cascade, as users run it.

The language model is a tiny random one, which knows nothing: what commands make of it is the point.
The endpoint knows the truth.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
from chat_server import ChatServer, user_text
from servers import sprat, start_server
from tiny_models import CHAT_TEMPLATE, encoder_files, gguf_file, write_files
from topics import TOY, write_rows

from sprat import adapter
from sprat.asked_manifest import Categories
from sprat.bundle_manifest import AskedModeration
from sprat.client import Client
from sprat.pull import pull
from sprat.store import Store
from sprat.values import Label

NAMES = sorted(TOY)


def message_rows(count: int, seed: int, *, hard: float = 0.3) -> list[dict[str, Any]]:
    """Words of none, one or both topics; in a share of the rows of others, too: nobody can tell."""
    rng = random.Random(seed)
    made: dict[str, list[str]] = {}
    while len(made) < count:
        found = [name for name in NAMES if rng.random() < 0.4]
        words = [rng.choice(TOY[name]) for name in found for _ in range(rng.randint(2, 4))]
        if rng.random() < hard:
            others = [name for name in NAMES if name not in found]
            words += [rng.choice(TOY[name]) for name in others for _ in range(rng.randint(2, 4))]
        words += ["xyz"] * rng.randint(1, 4)
        rng.shuffle(words)
        made.setdefault(" ".join(words), found)
    return [{"text": text, "labels": found} for text, found in made.items()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a moderator of one tier and a tiny language model, and rows."""
    folder = tmp_path_factory.mktemp("moderators")
    store = Store(folder / "home")
    pull(str(write_files(folder / "tiny-encoder", encoder_files())), store)
    gguf = folder / "tiny.gguf"
    gguf.write_bytes(gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE))
    pull(str(gguf), store)
    made = lora.write_adapter(folder / "polite.gguf", lora.pairs(gguf))
    adapter.add(made, store, base="tiny")
    for name, count, seed in (("train", 120, 1), ("few", 20, 2), ("rows", 80, 3)):
        write_rows(
            folder / f"{name}.jsonl",
            message_rows(count, seed),
        )
    write_rows(folder / "traffic.jsonl", message_rows(300, 4))
    (folder / "labels.json").write_text(
        json.dumps([{"name": "money", "description": "What costs something."}, "delivery"])
    )
    given = ("--kind", "moderate", "--base", "tiny-encoder", "-o", "head")
    run(store, "train", str(folder / "train.jsonl"), *given)
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "home")


@pytest.fixture(scope="module")
def added(home: Path, store: Store) -> dict[str, Any]:
    """The bundle ``both``: the heads, then the language model under an adapter."""
    asks = ("--instructions", "Posts.", "--labels-file", str(home / "labels.json"))
    given = ("add-tier", "head", "--model", "tiny", "--adapter", "polite", "-o", "both", *asks)
    return dict(json.loads(run(store, *given, "--data", str(home / "rows.jsonl"), "--json")))


@pytest.fixture(scope="module")
def truth(home: Path) -> dict[str, list[str]]:
    """What the endpoint knows of the rows."""
    lines = [
        json.loads(line)
        for name in ("rows", "traffic")
        for line in (home / f"{name}.jsonl").read_text().splitlines()
    ]
    return {row["text"]: row["labels"] for row in lines}


@pytest.fixture(scope="module")
def chat(truth: dict[str, list[str]]) -> Iterator[ChatServer]:
    def answer(body: dict[str, Any]) -> tuple[str, float]:
        return json.dumps({"categories": truth[user_text(body)]}), math.log(0.95)

    with ChatServer(answer=answer, usage=(50, 9)) as server:
        yield server


@pytest.fixture(scope="module")
def config(home: Path, chat: ChatServer) -> Path:
    path = home / "sprat.toml"
    path.write_text(
        f'[endpoints.far]\nurl = "{chat.url}"\nmodel = "big"\ninput_price = 0.01\n'
        '[tasks.far]\nbundle = "far"\ntiers = { remote = { endpoint = "far" } }\n'
    )
    return path


@pytest.fixture(scope="module")
def far(home: Path, store: Store, config: Path, chat: ChatServer) -> str:
    """The bundle ``far``: the heads, then the endpoint; and what was said on stderr."""
    done = sprat(
        *(store, "add-tier", "head", "--endpoint", "far", "--config", str(config), "-o", "far"),
        *("--data", str(home / "rows.jsonl"), "--instructions", "Posts."),
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def tuned(home: Path, store: Store, config: Path, far: str) -> dict[str, Any]:
    given = ("tune", "far", "--data", str(home / "traffic.jsonl"), "--max-loss", "10")
    asks = ("--endpoint", "far", "-c", str(config), "--remote-cost-ms", "40")
    return dict(json.loads(run(store, *given, *asks, "--json")))


def run(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


# -- a language tier -------------------------------------------------------------------------


def test_moderate_tier_writes_a_bundle_with_one_tier_more(
    store: Store, added: dict[str, Any]
) -> None:
    manifest, folder = store.bundle("both", check=True)
    assert added["version"] == manifest.version != store.bundle("head")[0].version
    head, tier = manifest.tiers
    assert head == store.bundle("head")[0].tiers[0]
    assert added["tier"] == tier.model_dump(mode="json")
    assert [each["name"] for each in added["tier"]["language"]["categories"]] == [
        "money",
        "delivery",
    ]
    assert added["tier"]["language"]["categories"][0]["description"] == "What costs something."
    assert added["tier"]["language"]["adapter"]["digest"] == store.adapter("polite")[0].digest
    assert isinstance(tier.moderation, AskedModeration)
    assert len(tier.moderation.odds) == len(tier.moderation.thresholds) == 2
    assert tier.whole is not None
    report = json.loads((folder / "report.json").read_text())
    assert list(report["tiers"]) == ["head"]
    assert report["asked"]["language"]["evaluation"] == added["evaluation"]
    assert added["evaluation"]["n"] == tier.evaluation.n
    assert 36 <= tier.evaluation.n <= 44


def test_moderate_tier_is_shown_evaluated_and_explained(
    home: Path, store: Store, added: dict[str, Any]
) -> None:
    shown = run(store, "inspect", "both")
    assert "Tier language, on" in shown
    assert "Posts." in shown
    assert "Adapter: polite, digest" in shown
    rows = str(home / "traffic.jsonl")
    last = json.loads(run(store, "eval", "both", rows, "--json"))
    assert last["n"] == 300
    head = ("--tier", "head", "--against", "both", "--json")
    against = json.loads(run(store, "eval", "both", rows, *head))
    assert against["against"]["report"]["micro_f1"] == last["micro_f1"]
    explained = json.loads(run(store, "explain", "both", "parcel late", "--json"))
    (only,) = explained["tiers"]
    assert (only["model"], explained["answer"]["tier"]) == ("tiny", 0)
    assert {each["label"] for each in only["scores"]} == set(NAMES)


def test_moderate_tier_keeps_a_policy(home: Path, store: Store) -> None:
    policy = home / "policy.toml"
    policy.write_text('["*"]\nflag = {at = 0.3}\nblock = {at = 0.8}\n')
    given = ("add-tier", "head", "--model", "tiny", "--policy", str(policy), "-o", "strict")
    run(store, *given, "--data", str(home / "rows.jsonl"))
    moderation = store.bundle("strict")[0].tiers[-1].moderation
    assert moderation is not None
    assert [(each.flag_at, each.block_at) for each in moderation.thresholds] == [(0.3, 0.8)] * 2


def test_moderate_tier_under_an_adapter_is_asked_for_the_labels_that_it_knows(
    home: Path, store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    rows = [
        {"text": row["text"], "label": row["labels"][0] if row["labels"] else "fine"}
        for row in message_rows(60, 7)
    ]
    labelled = write_rows(tmp_path / "labelled.jsonl", rows)
    train = ("train", str(labelled), "--kind", "classify", "--base", "tiny")
    run(store, *train, "--epochs", "1", "--instructions", "Which one?", "-o", "labels")
    given = ("add-tier", "head", "--model", "tiny", "--adapter", "labels", "-o", "knowing")
    run(store, *given, "--data", str(home / "rows.jsonl"))
    tier = store.bundle("knowing", check=True)[0].tiers[-1]
    assert isinstance(tier.language, Categories)
    assert tier.language.clean == Label("fine")
    assert tier.language.instructions == "Which one?"
    answer = json.loads(run(store, "explain", "knowing", "parcel late", "--json"))["answer"]
    assert {each["category"] for each in answer["categories"]} == set(NAMES)
    seen = refused(store, *given[:-1], "never", "--data", str(labelled))
    assert "adapter labels was trained on rows of this file" in seen


def test_moderate_tier_is_tuned_and_served(
    home: Path, store: Store, added: dict[str, Any], tmp_path: Path
) -> None:
    traffic = ("--data", str(home / "traffic.jsonl"))
    measured = json.loads(run(store, "bench", "--tiers", "both", "--seconds", "0.5", "--json"))
    assert [tier["name"] for tier in measured["tiers"]] == ["head", "language"]
    tuned = json.loads(
        run(store, "tune", "both", *traffic, "--max-error", "0.7", "--json", "--dry-run")
    )
    assert tuned["cost_ms"].keys() == {"head", "language"}
    config = tmp_path / "sprat.toml"
    config.write_text('[tasks.both]\nbundle = "both"\ntiers = { head = { accept_at = 0.9 } }\n')
    server = start_server(store, tmp_path, "--config", str(config))
    texts = ["parcel late", "refund xyz parcel", "word " * 900]
    try:
        with Client(server.address) as client:
            result = client.moderate("both", texts)
            (info,) = client.list_tasks()
    finally:
        assert server.stop() == 0
    items = [item for item in result.items if item is not None]
    assert [tier.name for tier in info.tiers] == ["head", "language"]
    assert sum(item.tier for item in items) == info.tiers[1].asked
    for item in items:
        assert {each.category for each in item.categories} == set(NAMES)
        assert item.confidence is not None
        assert len(item.tiers) == item.tier + 1


# -- a remote tier ---------------------------------------------------------------------------


def test_moderate_tier_sends_the_prompt_the_schema_and_the_text(far: str, chat: ChatServer) -> None:
    assert "endpoint far, today (UTC): 80 requests, 4000 tokens read, 720 written" in far
    body = chat.bodies[0]
    assert body["messages"][0]["content"].startswith(
        "Posts.\n- delivery\n- money\nAnswer with JSON"
    )
    assert body.keys() == {
        *("model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"),
        "response_format",
    }
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["categories"]["items"]["enum"] == NAMES


def test_moderate_tier_of_an_endpoint_is_evaluated(
    home: Path, store: Store, config: Path, far: str
) -> None:
    rows = str(home / "traffic.jsonl")
    asks = ("--endpoint", "far", "--config", str(config))
    report = json.loads(run(store, "eval", "far", rows, *asks, "--json"))
    assert (report["n"], report["exact"]["value"]) == (300, 1.0)
    alone = json.loads(run(store, "eval", "far", rows, *asks, "--tier", "remote", "--json"))
    assert alone["exact"] == report["exact"]
    assert "expected --endpoint for tier remote" in refused(store, "eval", "far", rows)
    head = ("eval", "far", rows, "--tier", "head")
    run(store, *head)
    assert "no tier that is evaluated is remote" in refused(store, *head, *asks)


def test_moderate_tier_of_an_endpoint_is_tuned_evaluated_and_served(
    home: Path,
    store: Store,
    config: Path,
    chat: ChatServer,
    tuned: dict[str, Any],
    truth: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    assert tuned["cost_ms"]["remote"] == 40
    assert tuned["best_tier"] == "remote"
    assert 0 < tuned["shares"]["remote"] < 0.7
    asks = ("--endpoint", "far", "--config", str(config))
    done = sprat(store, "eval", "far", str(home / "traffic.jsonl"), *asks, "--json")
    assert json.loads(done.stdout)["exact"]["value"] > 0.8
    assert "endpoint far, today (UTC)" in done.stderr
    asked = len(chat.bodies)
    server = start_server(store, tmp_path, "--config", str(config))
    texts = list(truth)[-100:]
    try:
        with Client(server.address) as client:
            result = client.moderate("far", texts)
            (info,) = client.list_tasks()
    finally:
        assert server.stop() == 0
    items = [item for item in result.items if item is not None]
    escalated = [(text, item) for text, item in zip(texts, items, strict=True) if item.tier == 1]
    assert len(chat.bodies) - asked == len(escalated) == info.tiers[1].asked
    assert info.tiers[1].endpoint is not None
    for text, item in escalated:
        flagged = [each.category for each in item.categories if each.action != "allow"]
        assert flagged == truth[text]
        assert all((each.start, each.end) == (0, len(text)) for each in item.categories)
    log = server.log.read_text()
    assert not any(text in log for text in texts)


def test_moderate_tier_asks_another_server(home: Path, store: Store, tmp_path: Path) -> None:
    """Its probabilities count, by odds and thresholds of our own; its spans are ours."""
    peer = start_server(store, tmp_path, "--task", "head")
    config = tmp_path / "peer.toml"
    config.write_text(
        f'[endpoints.peer]\nurl = "{peer.address}"\nmodel = "head"\n'
        '[tasks.near]\nbundle = "near"\n'
        'tiers = { head = { accept_at = 1.0 }, remote = { endpoint = "peer" } }\n'
    )
    asks = ("--endpoint", "peer", "--config", str(config))
    near = tmp_path / "near"
    near.mkdir()
    try:
        given = ("add-tier", "head", *asks, "-o", "near", "--data", str(home / "rows.jsonl"))
        assert "expected none for a sprat server" in refused(store, *given, "--instructions", "a")
        run(store, *given)
        server = start_server(store, near, "--config", str(config))
        text = "xyz " * 100 + "refund broken " + "xyz " * 100
        with Client(peer.address) as client:
            (own,) = client.moderate("head", [text]).items
        with Client(server.address) as client:
            (item,) = client.moderate("near", [text]).items
        assert server.stop() == 0
    finally:
        assert peer.stop() == 0
    assert item is not None
    assert own is not None
    assert (item.tier, item.chunks, item.input_tokens) == (1, own.chunks, own.input_tokens)
    assert [(each.start, each.end) for each in item.categories] == [
        (each.start, each.end) for each in own.categories
    ]
    moderation = store.bundle("near")[0].tiers[-1].moderation
    assert isinstance(moderation, AskedModeration)
    for each, there, odds in zip(item.categories, own.categories, moderation.odds, strict=True):
        there_odds = math.log(there.probability / (1 - there.probability))
        expected = 1 / (1 + math.exp(-(odds.slope * there_odds + odds.offset)))
        assert each.probability == pytest.approx(expected, abs=1e-4)


# -- bad input -------------------------------------------------------------------------------


def test_moderate_tier_refuses_bad_input(
    home: Path, store: Store, config: Path, added: dict[str, Any], tmp_path: Path
) -> None:
    rows = ("--data", str(home / "rows.jsonl"))
    given = ("add-tier", "head", "--model", "tiny", "-o", "never")
    assert "has a tier language already" in refused(
        store, "add-tier", "both", "--model", "tiny", *rows
    )
    few = refused(store, *given, "--data", str(home / "few.jsonl"))
    assert "expected 50 or more different texts, found 20" in few
    odd = write_rows(tmp_path / "odd.jsonl", [*message_rows(60, 9), {"text": "a", "labels": ["b"]}])
    assert "labels: unknown" in refused(store, *given, "--data", str(odd))
    clean = write_rows(
        tmp_path / "clean.jsonl",
        [
            {**row, "labels": [each for each in row["labels"] if each == "money"]}
            for row in message_rows(80, 9)
        ],
    )
    assert "expected rows of category 'delivery' and others" in refused(
        store, *given, "--data", str(clean)
    )
    assert "scoring: expected an adapter beside it" in refused(
        store, *given, *rows, "--scoring", "full"
    )
    assert "max_tokens: a task of kind moderate is not asked so" in refused(
        store, *given, *rows, "--max-tokens", "9"
    )
    assert "war" in refused(store, *given, *rows, "--policy", str(_policy(tmp_path)))
    label = tmp_path / "labels.json"
    label.write_text('["war"]')
    assert "'war' not among those of bundle head" in refused(
        store, *given, *rows, "--labels-file", str(label)
    )
    assert "expected a generative model" in refused(
        store, "add-tier", "head", "--model", "tiny-encoder", *rows
    )
    assert "never" not in [manifest.name for manifest, _ in store.bundles()]


def _policy(folder: Path) -> Path:
    path = folder / "policy.toml"
    path.write_text("[war]\nflag = {at = 0.3}\n")
    return path
