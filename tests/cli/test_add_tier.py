"""``sprat add-tier``, and all that a bundle with a language tier goes through, as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lora
import pytest
from servers import sprat, start_server
from tiny_models import CHAT_TEMPLATE, encoder_files, gguf_file, write_files
from topics import toy_rows, write_rows

from sprat import adapter
from sprat.client import Client
from sprat.pull import pull
from sprat.store import Store


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a head, a tiny language model and an adapter of it, and rows."""
    folder = tmp_path_factory.mktemp("tiers")
    store = Store(folder / "home")
    pull(str(write_files(folder / "tiny-encoder", encoder_files())), store)
    gguf = folder / "tiny.gguf"
    gguf.write_bytes(gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE))
    pull(str(gguf), store)
    made = lora.write_adapter(folder / "polite.gguf", lora.pairs(gguf))
    adapter.add(made, store, base="tiny")
    train = write_rows(folder / "train.jsonl", toy_rows(100, 1))
    for name, count, seed in (("few", 20, 2), ("rows", 80, 3), ("traffic", 240, 4)):
        write_rows(folder / f"{name}.jsonl", toy_rows(count, seed))
    run(store, "train", str(train), "--base", "tiny-encoder", "-o", "head")
    (folder / "labels.json").write_text(
        json.dumps([{"name": "money", "description": "about money"}, "delivery"])
    )
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "home")


@pytest.fixture(scope="module")
def added(home: Path, store: Store) -> dict[str, Any]:
    """The bundle ``both``: the head, then the language model."""
    given = ("add-tier", "head", "--model", "tiny", "--adapter", "polite", "-o", "both")
    asks = ("--instructions", "Which desk?", "--labels-file", str(home / "labels.json"))
    rows = ("--data", str(home / "rows.jsonl"))
    return dict(json.loads(run(store, *given, *asks, *rows, "--json")))


def run(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(store: Store, *arguments: str) -> str:
    done = sprat(store, *arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_add_tier_writes_a_bundle_with_one_tier_more(store: Store, added: dict[str, Any]) -> None:
    manifest, folder = store.bundle("both", check=True)
    assert added["version"] == manifest.version != store.bundle("head")[0].version
    head, tier = manifest.tiers
    assert head == store.bundle("head")[0].tiers[0]
    assert added["tier"] == tier.model_dump(mode="json")
    assert tier.language is not None
    assert [label.name for label in tier.language.labels] == ["money", "delivery"]
    assert tier.language.labels[0].description == "about money"
    assert tier.language.instructions == "Which desk?"
    assert tier.language.adapter is not None
    assert tier.language.adapter.digest == store.adapter("polite")[0].digest
    report = json.loads((folder / "report.json").read_text())
    assert list(report["tiers"]) == ["head", "language"]
    assert report["tiers"]["language"]["evaluation"] == added["evaluation"]
    assert added["evaluation"]["n"] == tier.evaluation.n == 40
    assert {"accuracy", "ece"} <= added["evaluation"]["intervals"].keys()


def test_add_tier_is_shown_evaluated_and_explained(
    home: Path, store: Store, added: dict[str, Any]
) -> None:
    shown = run(store, "inspect", "both")
    assert "Tier language, on 40 held-out rows" in shown
    assert f"Adapter: polite, digest {store.adapter('polite')[0].digest}" in shown
    assert "Asked, with constrained scoring: Which desk?" in shown
    card = json.loads(run(store, "inspect", "both", "--json"))
    assert card["adapters"]["polite"]["card"]["rank"] == lora.RANK
    assert len(card["licences"]) == 3
    rows = str(home / "traffic.jsonl")
    last = json.loads(run(store, "eval", "both", rows, "--json"))
    assert last["n"] == 240
    against = json.loads(
        run(store, "eval", "both", rows, "--tier", "head", "--against", "both", "--json")
    )
    assert against["against"]["report"]["accuracy"] == last["accuracy"]
    explained = json.loads(run(store, "explain", "both", "parcel late", "--json"))
    (only,) = explained["tiers"]
    assert (only["model"], explained["answer"]["tier"]) == ("tiny", 0)
    assert only["cpu_ms"] > 0


def test_add_tier_is_tuned_and_served(home: Path, store: Store, added: dict[str, Any]) -> None:
    traffic = ("--data", str(home / "traffic.jsonl"))
    # At most a share of 45 % wrong: anything answers that.
    tuned = json.loads(
        run(store, "tune", "both", *traffic, "--max-error", "0.45", "--json", "--dry-run")
    )
    assert tuned["cost_ms"].keys() == {"head", "language"}
    assert tuned["cost_ms"]["language"] > tuned["cost_ms"]["head"] > 0
    config = home / "sprat.toml"
    config.write_text('[tasks.both]\nbundle = "both"\ntiers = { head = { accept_at = 0.9 } }\n')
    (home / "run").mkdir()
    server = start_server(store, home / "run", "--config", str(config))
    texts = [json.loads(line)["text"] for line in (home / "rows.jsonl").read_text().splitlines()]
    with Client(server.address) as client:
        (task,) = client.list_tasks()
        assert [tier.name for tier in task.tiers] == ["head", "language"]
        assert [name for name, _ in task.models] == ["tiny-encoder", "tiny"]
        result = client.classify("both", texts)
        done = client.list_tasks()[0].tiers
    tiers = [item.tier for item in result.items if item]
    assert len(tiers) == len(texts)
    assert set(tiers) == {0, 1}
    assert done[1].asked == sum(tiers)
    for item in result.items:
        assert item is not None
        assert item.cpu_ms == pytest.approx(sum(said.cpu_ms or 0.0 for said in item.tiers))
        assert all(said.cpu_ms for said in item.tiers)
    table = run(store, "explain", "both", texts[tiers.index(1)], "--server", server.address)
    assert "CPU ms" in table
    assert "passes on" in table
    assert server.stop() == 0


def test_add_tier_refuses_what_makes_none(home: Path, store: Store, added: dict[str, Any]) -> None:
    rows = ("--data", str(home / "rows.jsonl"))
    again = ("add-tier", "both", "--model", "tiny", *rows)
    assert "both: has a tier language already" in refused(store, *again)
    encoder = ("add-tier", "head", "--model", "tiny-encoder", *rows)
    assert "expected a generative model, but tiny-encoder is an enc" in refused(store, *encoder)
    few = ("add-tier", "head", "--model", "tiny", "--data", str(home / "few.jsonl"))
    assert "expected 50 or more different texts, found 20" in refused(store, *few)
    taken = ("add-tier", "head", "--model", "tiny", *rows, "-o", "both")
    assert "there already" in refused(store, *taken)
    assert store.bundle("head")[0].tiers[0].name == "head"
    assert len(store.bundle("head")[0].tiers) == 1


def test_bench_measures_a_language_tier_as_it_is_asked(
    home: Path, store: Store, added: dict[str, Any]
) -> None:
    rows = ("--data", str(home / "few.jsonl"), "--seconds", "0.5")
    measured = json.loads(run(store, "bench", "--tiers", "both", *rows, "--json"))
    head, language = measured["tiers"]
    assert (head["name"], head["engine"], head["asked"]) == ("head", "ct2", "")
    assert (language["name"], language["engine"]) == ("language", "llama")
    assert len(language["asked"]) == 64
    assert language["tokens"] > 0
    assert json.loads(run(store, "inspect", "both", "--json"))["costs"] == measured
