"""A cascade, from labelled rows to answers: tiny models, trained by the command, really served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cascades import ACCEPT_AT, TEXTS, TOPICS, task_config, trained
from servers import TASK, Server, sprat, start_server

from sprat import Client, Runtime
from sprat.bundle import Bundle
from sprat.config import Config
from sprat.store import Store
from sprat.task_config import TaskConfig, TierConfig


@dataclass(frozen=True)
class Served:
    """A server of the cascade, and what it was made of."""

    server: Server
    store: Store
    bundle: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("cascade")
    store, bundle = trained(folder)
    config = folder / "sprat.toml"
    config.write_text(task_config(bundle))
    server = start_server(store, folder, "--config", str(config))
    yield Served(server, store, bundle)
    assert server.stop() == 0


def test_cascade_answers_by_the_cheapest_tier_that_is_sure(served: Served) -> None:
    with Client(served.server.address) as client:
        cheap = client.classify(TASK, TEXTS, max_tier=0, accept_at=0)
        before = client.list_tasks()[0].tiers
        result = client.classify(TASK, TEXTS)
        (task,) = client.list_tasks()
    assert [name for name, _ in task.models] == ["tiny-static", "tiny"]
    tiers = set()
    for first, item in zip(cheap.items, result.items, strict=True):
        assert first is not None
        assert item is not None
        assert (first.tier, first.confidence is None) == (0, False)
        sure = first.confidence >= ACCEPT_AT  # type: ignore[operator]
        assert (item.tier, item.escalated) == (0 if sure else 1, not sure)
        assert item.tiers[0].confidence == pytest.approx(first.confidence)
        assert len(item.tiers) == item.tier + 1
        assert (item.abstained, item.degraded) == (False, None)
        assert item.cpu_ms == pytest.approx(sum(said.cpu_ms or 0 for said in item.tiers))
        assert all(said.cpu_ms for said in item.tiers)
        tiers.add(item.tier)
    assert tiers == {0, 1}
    assert (result.model, result.task_version) == ("tiny", task.version)
    grown = [now.asked - then.asked for now, then in zip(task.tiers, before, strict=True)]
    answered = [now.answered - then.answered for now, then in zip(task.tiers, before, strict=True)]
    assert grown == [len(TEXTS), answered[1]]
    assert sum(answered) == len(TEXTS)


def test_cascade_takes_what_the_request_asks(served: Served) -> None:
    with Client(served.server.address) as client:
        strict = client.classify(TASK, TEXTS, accept_at=1.0)
        assert {item.tier for item in strict.items if item} == {1}
        assert all(item.abstained for item in strict.items if item)
        hurried = client.classify(TASK, TEXTS, accept_at=1.0, budget_ms=1e-6)
    for item in hurried.items:
        assert item is not None
        assert (item.tier, item.degraded) == (0, "no_time")
        assert (item.abstained, bool(item.label)) == (False, True), "as on_failure says"


def test_cascade_in_process_is_the_same(served: Served) -> None:
    task = TaskConfig(bundle=str(served.bundle), tiers={"static": TierConfig(accept_at=ACCEPT_AT)})
    with (
        Client(served.server.address) as client,
        Runtime(config=Config(tasks={TASK: task}), store=served.store) as runtime,
    ):
        there = client.classify(TASK, TEXTS)
        here = runtime.classify(TASK, TEXTS)
        assert runtime.list_tasks()[0].version == client.list_tasks()[0].version
    assert [item and (item.label, item.tier) for item in here.items] == [
        item and (item.label, item.tier) for item in there.items
    ]


def test_cascade_explained(served: Served) -> None:
    with Client(served.server.address) as client:
        cheap = client.classify(TASK, TEXTS, max_tier=0, accept_at=0)
    found = zip(cheap.items, TEXTS, strict=True)
    (_, unsure), *_, (_, sure) = sorted((item.confidence, text) for item, text in found if item)
    where = ("--server", served.server.address)
    done = sprat(served.store, "explain", TASK, unsure, *where, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    first, last = report["tiers"]
    assert (first["tier"], first["model"], first["decision"]) == (
        "static",
        "tiny-static",
        "passes on",
    )
    assert first["confidence"] < ACCEPT_AT == pytest.approx(first["accept_at"])
    assert (last["tier"], last["decision"]) == ("head", "answers")
    assert {score["label"] for score in last["scores"]} == set(TOPICS)
    assert first["cpu_ms"] > 0
    assert last["cpu_ms"] > 0
    assert report["answer"]["cpu_ms"] > 0
    assert report["answer"]["tier"] == 1
    table = sprat(served.store, "explain", TASK, sure, *where).stdout
    assert "not asked" in table
    assert "threshold" in table
    hurried = sprat(
        served.store, "explain", TASK, unsure, *where, "--budget-ms", "0.000001", "--accept-at", "1"
    )
    assert "answers: the next tier had no time" in hurried.stdout


def test_cascade_explained_without_a_calibration_of_the_last_tier(
    served: Served, tmp_path: Path
) -> None:
    """The tiers that the text reached are shown, the others cannot be asked."""
    made = Bundle.load(served.bundle)
    static, head = made.manifest.tiers
    tiers = (
        static.model_copy(update={"accept_at": ACCEPT_AT}),
        head.model_copy(update={"calibration": None}),
    )
    folder = tmp_path / "bare"
    folder.mkdir()
    Bundle(made.manifest.model_copy(update={"tiers": tiers}), made.heads).named("bare").save(
        folder, report="{}"
    )
    with Client(served.server.address) as client:
        cheap = client.classify(TASK, TEXTS, max_tier=0, accept_at=0)
    found = zip(cheap.items, TEXTS, strict=True)
    (_, unsure), *_, (_, sure) = sorted((item.confidence, text) for item, text in found if item)
    decisions = []
    for text in (unsure, sure):
        done = sprat(served.store, "explain", str(folder), text, "--json")
        assert done.returncode == 0, done.stderr
        first, last = json.loads(done.stdout)["tiers"]
        assert first["confidence"] is not None
        assert first["scores"]
        assert last["confidence"] is None
        assert bool(last["scores"]) == (last["decision"] == "answers")
        decisions.append((first["decision"], last["decision"]))
    assert decisions == [("passes on", "answers"), ("answers", "not asked")]


def test_cascade_explained_in_process_is_a_bundle_as_it_is(served: Served) -> None:
    done = sprat(served.store, "explain", str(served.bundle), "parcel", "--json")
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["tiers"]
    assert (only["model"], only["decision"]) == ("tiny", "answers")
    done = sprat(served.store, "explain", "nothing", "parcel", "--server", served.server.address)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no task named 'nothing'; known: tickets")


def test_cascade_from_the_command_line(served: Served) -> None:
    where = ("--server", served.server.address)
    done = sprat(served.store, "classify", TASK, *TEXTS[:3], *where)
    assert done.returncode == 0, done.stderr
    assert "tier" in done.stdout.splitlines()[1] + done.stdout.splitlines()[0]
    limited = sprat(
        served.store,
        *("classify", TASK, *TEXTS, *where, "--max-tier", "0", "--accept-at", "0.6", "--json"),
    )
    items = json.loads(limited.stdout)["items"]
    assert {item["tier"] for item in items} == {0}
    assert all(item["abstained"] == (item["confidence"] < 0.6) for item in items)
    refused = sprat(served.store, "classify", TASK, "late", *where, "--budget-ms", "0")
    assert refused.returncode == 1
    assert "budget_ms: expected more than 0" in refused.stderr
    beside = sprat(served.store, "classify", "m", "x", "--labels", "a,b", "--max-tier", "0", *where)
    assert "expected none beside --labels" in beside.stderr


def test_cascade_with_a_tier_that_is_not_there_does_not_start(
    served: Served, tmp_path: Path
) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(
        f'[tasks.{TASK}]\nbundle = "{served.bundle}"\ntiers.finetune.accept_at = 0.5\n'
    )
    done = sprat(
        served.store, "serve", "--config", str(config), "--listen", f"unix:{tmp_path}/s.sock"
    )
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"error: tasks.{TASK}.tiers.finetune: expected a tier of bundle {TASK}: static, head\n"
    )


def test_cascade_over_a_file_says_which_tier_answered(served: Served, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    where = ("--server", served.server.address)
    done = sprat(served.store, "run", TASK, str(source), "-o", str(out), *where)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert {answer["tier"] for answer in answers} == {0, 1}
    assert {answer["degraded"] for answer in answers} == {None}
