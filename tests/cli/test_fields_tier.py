"""Extract bundles from ``sprat add-tier`` to a served cascade, as users run it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
from chat_server import ChatServer, user_text
from servers import sprat, start_server
from tagged import write_encoder, write_rows
from tiny_models import CHAT_TEMPLATE, gguf_file
from visitors import NAMES, make_visitors

from sprat import adapter
from sprat.bundle import Bundle
from sprat.bundle_manifest import REPORT
from sprat.client import Client
from sprat.manifest import sha256_file
from sprat.pull import pull
from sprat.store import Store
from sprat.train.task_file import task_files
from sprat.values import ExtractSpec, Label, LabelSet

ENCODER, TASK = "words", "both"
ROWS = make_visitors(60, seed=3, hard=0.4)
TRAFFIC = make_visitors(400, seed=4, hard=0.4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a tagger, a tiny language model, and rows."""
    folder = tmp_path_factory.mktemp("fields")
    store = Store(folder / "home")
    pull(str(write_encoder(folder / ENCODER)), store)
    content = gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE)
    (folder / "tiny.gguf").write_bytes(content)
    pull(str(folder / "tiny.gguf"), store)
    lora.write_adapter(folder / "polite.gguf", lora.pairs(folder / "tiny.gguf"))
    adapter.add(folder / "polite.gguf", store, base="tiny")
    train = write_rows(folder / "train.jsonl", make_visitors(160, seed=1, hard=0.4))
    run(store, "train", str(train), "--kind", "extract", "--base", ENCODER, "-o", "tagger")
    write_rows(folder / "rows.jsonl", ROWS)
    write_rows(folder / "traffic.jsonl", TRAFFIC)
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    return Store(home / "home")


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    """It knows all names, writes them its own way, and leaves out a few."""
    names = {
        text: text[spans[0].start : spans[0].end] if spans else None
        for rows in (ROWS, TRAFFIC)
        for text, spans in zip(rows.texts, rows.spans, strict=True)
    }

    def answer(body: dict[str, Any]) -> tuple[str, float]:
        name = names[user_text(body)]
        sure = 0.95
        if name == NAMES[-1]:
            name, sure = None, 0.4
        return json.dumps({"name": name and name.upper()}), math.log(sure)

    with ChatServer(answer=answer, usage=(50, 3)) as server:
        yield server


@pytest.fixture(scope="module")
def config(home: Path, chat: ChatServer) -> Path:
    path = home / "sprat.toml"
    path.write_text(
        f'[endpoints.far]\nurl = "{chat.url}"\nmodel = "big"\n'
        f'[tasks.{TASK}]\nbundle = "{TASK}"\ntiers = {{ remote = {{ endpoint = "far" }} }}\n'
    )
    return path


@pytest.fixture(scope="module")
def added(home: Path, store: Store, config: Path, chat: ChatServer) -> dict[str, Any]:
    """The bundle ``both``: the tagger, then the endpoint."""
    labels = home / "labels.json"
    labels.write_text('[{"name": "name", "description": "who comes"}]')
    done = run(
        *(store, "add-tier", "tagger", "--endpoint", "far", "--config", str(config)),
        *("--data", str(home / "rows.jsonl"), "--instructions", "Who comes?", "-o", TASK),
        *("--labels-file", str(labels), "--max-tokens", "40", "--json"),
    )
    return dict(json.loads(done))


@pytest.fixture(scope="module")
def tuned(home: Path, store: Store, config: Path, added: dict[str, Any]) -> dict[str, Any]:
    given = ("tune", TASK, "--data", str(home / "traffic.jsonl"), "--max-loss", "6")
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


def test_fields_tier_is_added_calibrated_and_judged(
    home: Path, store: Store, chat: ChatServer, added: dict[str, Any]
) -> None:
    tier = Bundle.open(store, TASK).manifest.tiers[-1]
    assert tier.remote is not None
    asked = tier.remote.model_dump()
    assert (asked["model"], asked["instructions"], asked["max_tokens"]) == ("big", "Who comes?", 40)
    schema = json.loads(asked["json_schema"])
    assert schema["properties"] == {
        "name": {"type": ["string", "null"], "description": "who comes"}
    }
    assert {body["max_tokens"] for body in chat.bodies[:60]} == {40}
    evaluation = added["evaluation"]
    # All but the name that the endpoint leaves out; capitals are those of the text.
    assert 0.8 < evaluation["metrics"]["exact_match"]["value"] < 1
    assert evaluation["metrics"]["precision"]["value"] == 1
    assert added["tier"]["calibration"]["isotonic"]
    assert evaluation["metrics"]["whole_ece"]["value"] < 0.3
    report = json.loads((store.bundle(TASK)[1] / REPORT).read_text())
    assert list(report["tiers"]) == ["head"]
    assert report["asked"]["remote"]["evaluation"] == evaluation
    assert not any(text in json.dumps(report) for text in ROWS.texts)
    shown = run(store, "inspect", TASK)
    assert "Asked once: Who comes?" in shown
    assert "exact_match" in shown


def test_fields_tier_is_tuned_with_the_tagger(tuned: dict[str, Any]) -> None:
    assert tuned["best_tier"] == "remote"
    assert tuned["cost_ms"]["remote"] == 40
    assert 0 < tuned["shares"]["remote"] < 1
    assert tuned["cost_ratio"] < 1


def test_fields_tier_is_evaluated_and_compared(
    home: Path, store: Store, config: Path, tuned: dict[str, Any]
) -> None:
    rows = str(write_rows(home / "new.jsonl", TRAFFIC.take(range(150))))
    asks = ("--endpoint", "far", "--config", str(config))
    report = json.loads(run(store, "eval", TASK, rows, *asks, "--against", "tagger", "--json"))
    assert report["by"] == "strings"
    figures = {name: each["value"] for name, each in report["metrics"].items()}
    head, remote = report["shares"]
    assert remote["cost_ms"] > 0
    assert 0 < remote["answers"] < 1
    # The endpoint leaves a name out: nothing else may be wrong with it.
    alone = report["tiers"]["remote"]["metrics"]
    assert alone["precision"]["value"] == 1
    assert figures["exact_match"] > report["tiers"]["head"]["metrics"]["exact_match"]["value"]
    assert figures["coverage"] == pytest.approx(head["answers"] + remote["answers"])
    rows_of_both = report["against"]["comparison"]["rows"]
    assert rows_of_both["only_first"] > rows_of_both["only_second"]
    page = home / "report.html"
    run(store, "eval", TASK, rows, *asks, "--min-exact-match", "0.5", "--html", str(page))
    assert "Reliability: whole answers" in page.read_text()
    assert "then remote on big" in page.read_text()
    both = (TASK, rows, "--tier", "remote", *asks, "--max-whole-ece", "0.2", "--json")
    own = json.loads(run(store, "eval", *both))
    assert own["metrics"] == alone
    spans = json.loads(run(store, "eval", TASK, rows, "--tier", "head", "--json"))
    assert spans["n"] == 150
    assert "expected --endpoint for tier remote" in refused(store, "eval", TASK, rows)
    unused = refused(store, "eval", TASK, rows, "--tier", "head", *asks)
    assert "--endpoint: no tier that is evaluated is remote" in unused


def test_fields_tier_answers_the_hard_texts_of_a_server(
    store: Store, config: Path, chat: ChatServer, tuned: dict[str, Any], tmp_path: Path
) -> None:
    asked = len(chat.bodies)
    texts = TRAFFIC.texts[:60]
    server = start_server(store, tmp_path, "--config", str(config))
    try:
        with Client(server.address) as client:
            result = client.extract(TASK, texts)
            (info,) = client.list_tasks()
        explained = json.loads(
            run(store, "explain", TASK, texts[0], "--server", server.address, "--json")
        )
    finally:
        assert server.stop() == 0
    escalated = [
        (text, item)
        for text, item in zip(texts, result.items, strict=True)
        if item is not None and item.tier == 1
    ]
    assert 0 < len(escalated) < len(texts)
    assert len(chat.bodies) - asked >= len(escalated)
    for text, item in escalated:
        assert item.confidence is not None
        for field in item.fields:
            assert field.grounded
            if item.value is not None:
                assert item.value["name"] == text[field.start : field.end]
    far = info.tiers[1]
    assert far.endpoint is not None
    assert far.asked == len(escalated)
    assert [tier["tier"] for tier in explained["tiers"]] == ["head", "remote"]
    assert explained["tiers"][1]["confidence"] is not None
    log = server.log.read_text()
    assert not any(text in log for text in texts)


def train_for(store: Store, spec: ExtractSpec | LabelSet) -> None:
    """Say of the adapter what it was trained for, as a training does."""
    folder = store.adapter("polite")[1]
    for file, content in task_files(spec, "polite").items():
        (folder / file).write_text(content, encoding="utf-8")


def schema(**properties: Any) -> str:
    return json.dumps({"type": "object", "properties": properties})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            LabelSet("tiny", (Label("a"), Label("b")), adapter="polite"),
            "expected one for extract, but polite was trained for another kind of task",
        ),
        (
            ExtractSpec("tiny", schema(time={"type": "string"}), adapter="polite"),
            "adapter: polite: schema: expected the fields of the bundle, name; found time",
        ),
        (
            ExtractSpec("tiny", schema(name={"type": "integer"}), adapter="polite"),
            "schema.properties.name: expected a string",
        ),
    ],
)
def test_fields_tier_refuses_adapters_for_something_else(
    home: Path, store: Store, spec: ExtractSpec | LabelSet, said: str
) -> None:
    train_for(store, spec)
    rows = ("--data", str(home / "rows.jsonl"), "-o", "never")
    given = ("add-tier", "tagger", "--model", "tiny", "--adapter", "polite")
    assert said in refused(store, *given, *rows)


def test_fields_tier_of_a_model_that_says_nothing_true_is_not_added(
    home: Path, store: Store
) -> None:
    made = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    train_for(store, ExtractSpec("tiny", json.dumps(made), adapter="polite"))
    rows = ("--data", str(home / "rows.jsonl"), "-o", "never", "--max-tokens", "6")
    given = ("add-tier", "tagger", "--model", "tiny", "--adapter", "polite")
    assert "none of 30 answers holds" in refused(store, *given, *rows)
    described = home / "labels.json"
    described.write_text('[{"name": "name", "description": "who comes"}]')
    said = refused(store, *given, *rows, "--labels-file", str(described))
    assert "labels: expected none beside adapter polite, which knows its own schema" in said
    names = [manifest.name for manifest, _ in store.bundles()]
    assert "never" not in names


def test_fields_tier_asks_as_its_adapter_was_trained(home: Path, store: Store) -> None:
    source = schema(name={"type": "string"})
    train_for(store, ExtractSpec("tiny", source, "Who?", max_tokens=9, adapter="polite"))
    given = ("add-tier", "tagger", "--model", "tiny", "--adapter", "polite", "-o", "local")
    added = json.loads(run(store, *given, "--data", str(home / "rows.jsonl"), "--json"))
    asked = added["tier"]["language"]
    assert json.loads(asked["json_schema"]) == json.loads(source)
    assert (asked["instructions"], asked["max_tokens"]) == ("Who?", 9)
    assert asked["adapter"]["digest"] == store.adapter("polite")[0].digest
    few = write_rows(home / "few.jsonl", make_visitors(8, seed=9))
    timed = ("--data", str(few), "--seconds", "0.5", "--json")
    head, language = json.loads(run(store, "bench", "--tiers", "local", *timed))["tiers"]
    assert (head["name"], language["name"], language["engine"]) == ("head", "language", "llama")
    assert len(language["asked"]) == 64
    assert language["cpu_ms"]["value"] > 0
    assert "Asked: Who?" in run(store, "inspect", "local")
    explained = json.loads(run(store, "explain", "local", "I am Ada", "--json"))
    assert [tier["model"] for tier in explained["tiers"]] == ["tiny"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scoring", "full"), "scoring: a task of kind extract is not asked so; expected"),
        (("--labels-file", "unknown.json"), "'shop' not among those of bundle tagger: 'name'"),
        (("--data", "other.jsonl"), "known fields: 'name'"),
        (("--data", "few.jsonl"), "expected 50 or more different texts, found 20"),
        (("--data", "labels.jsonl"), "spans: missing"),
        (("--max-tokens", "0"), "Invalid value"),
    ],
)
def test_fields_tier_refuses_what_cannot_be_asked(
    home: Path, store: Store, options: tuple[str, str], said: str
) -> None:
    (home / "unknown.json").write_text('["shop"]')
    write_rows(home / "few.jsonl", make_visitors(20, seed=8))
    labelled = [json.dumps({"text": f"row {at}", "label": "a"}) for at in range(60)]
    (home / "labels.jsonl").write_text("\n".join(labelled))
    other = [
        json.dumps({"text": f"shop {at}", "spans": [{"field": "shop", "start": 0, "end": 4}]})
        for at in range(60)
    ]
    (home / "other.jsonl").write_text("\n".join(other))
    name, value = options
    path = home / value
    value = str(path) if path.is_file() else value
    given = ["add-tier", "tagger", "--model", "tiny", "-o", "never"]
    if name != "--data":
        given += ["--data", str(home / "rows.jsonl")]
    done = sprat(store, *given, name, value)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())


def test_fields_tier_refuses_the_rows_of_the_adapter(home: Path, store: Store) -> None:
    train_for(store, ExtractSpec("tiny", schema(name={"type": "string"}), adapter="polite"))
    rows = home / "rows.jsonl"
    seen = {"provenance": {"train": {"sha256": sha256_file(rows)}}}
    report = store.adapter("polite")[1] / REPORT
    report.write_text(json.dumps(seen))
    try:
        given = ("add-tier", "tagger", "--model", "tiny", "--adapter", "polite", "-o", "never")
        said = refused(store, *given, "--data", str(rows))
    finally:
        report.unlink()
    assert "adapter polite was trained on rows of this file" in said
