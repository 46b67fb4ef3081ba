"""Cascades of moderate and extract tasks, from labelled rows to answers, on real models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ENCODER, Server, sprat, start_server
from tagged import make_bookings, write_encoder, write_rows

from sprat import Client, Runtime
from sprat.bundle import Bundle
from sprat.config import Config
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig, TierConfig
from sprat.train.categories import read_categories
from sprat.train.metrics import calibration_error, calibration_noise
from sprat.values import Extraction, Moderation

pytestmark = pytest.mark.timeout(600)

ACCEPT_AT = 0.98
TRAIN_ROWS, TUNE_ROWS, TEST_ROWS = 800, 1000, 800
SPAM = "URGENT! You have won a 1000 pound prize, call 09061701461 now to claim your FREE award. "
CLEAN = "We walked along the river and talked about the garden and what to cook tonight. "


@dataclass(frozen=True)
class Served:
    """A server of a cascade, and what it was made of."""

    server: Server
    store: Store
    bundle: Path
    rows: Path


@pytest.fixture(scope="module")
def spam(
    store: Store,
    minilm: Path,
    minilm_static: str,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """SMS spam: a head on a static model, which passes on what it is not sure of to MiniLM."""
    folder = tmp_path_factory.mktemp("spam")
    lines = (shared_data / "sms_spam.train.jsonl").read_text("utf-8").splitlines(True)
    test = (shared_data / "sms_spam.test.jsonl").read_text("utf-8").splitlines(True)
    files = {
        "train": lines[:TRAIN_ROWS],
        "tune": lines[TRAIN_ROWS : TRAIN_ROWS + TUNE_ROWS],
        "test": test[:TEST_ROWS],
    }
    for name, part in files.items():
        (folder / f"{name}.jsonl").write_text("".join(part), "utf-8")
    out = folder / "bundle" / "spam"
    out.parent.mkdir()
    done = sprat(
        store,
        *("train", str(folder / "train.jsonl"), "--kind", "moderate", "--clean-label", "ham"),
        *("--base", ENCODER, "--tiers", "static,head", "--static-base", minilm_static),
        *("--test", str(folder / "test.jsonl"), "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    done = sprat(
        store,
        *("tune", str(out), "--data", str(folder / "tune.jsonl"), "--clean-label", "ham"),
        *("--max-loss", "1", "--json", "--html", str(folder / "tuned.html")),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["loss_points"] <= 1
    assert 0 < figures["cost_ratio"] < 1
    assert figures["shares"]["static"] > 0.5
    assert "prize" not in (folder / "tuned.html").read_text()
    config = folder / "sprat.toml"
    config.write_text(
        f'[tasks.spam]\nbundle = "{out}"\ntiers = {{ static = {{ accept_at = {ACCEPT_AT} }} }}\n'
    )
    server = start_server(store, folder, "--config", str(config))
    yield Served(server, store, out, folder / "test.jsonl")
    assert server.stop() == 0
    assert "prize" not in server.log.read_text()


def each_tier(client: Client | Runtime, task: str, texts: list[str], tiers: int) -> list[list[Any]]:
    """What every tier says of texts, by itself: nobody is sure enough for a threshold of 1."""
    return [
        list(client.moderate(task, texts, max_tier=at, accept_at=1.0).items) for at in range(tiers)
    ]


def test_cascade_of_moderators_answers_by_the_cheapest_tier_that_is_sure(spam: Served) -> None:
    texts = list(read_categories(spam.rows, clean_label="ham").texts)[:200]
    with Client(spam.server.address) as client:
        (task,) = client.list_tasks()
        before = task.tiers
        result = client.moderate("spam", texts)
        (after,) = client.list_tasks()
        first, last = each_tier(client, "spam", texts, 2)
    assert [tier.name for tier in task.tiers] == ["static", "head"]
    assert task.tiers[0].accept_at == pytest.approx(ACCEPT_AT)
    tiers = set()
    for cheap, dear, item in zip(first, last, result.items, strict=True):
        assert item is not None
        sure = cheap.confidence >= ACCEPT_AT
        assert (item.tier, item.escalated) == (0 if sure else 1, not sure)
        assert [said.tier for said in item.tiers] == list(range(item.tier + 1))
        assert item.tiers[0].confidence == pytest.approx(cheap.confidence, abs=1e-6)
        own = cheap if sure else dear
        assert (item.abstained, item.degraded) == (False, None)
        assert [each.category for each in item.categories] == ["spam"]
        assert item.categories[0].probability == pytest.approx(
            own.categories[0].probability, abs=0.05
        )
        assert own.abstained, "of a threshold of 1"
        assert (own.action, own.category) == ("flag", "")
        tiers.add(item.tier)
    assert tiers == {0, 1}
    grown = [now.asked - then.asked for now, then in zip(after.tiers, before, strict=True)]
    answered = [now.answered - then.answered for now, then in zip(after.tiers, before, strict=True)]
    assert grown == [len(texts), answered[1]]
    assert sum(answered) == len(texts)


def test_cascade_of_moderators_confidences_are_probabilities(spam: Served) -> None:
    rows = read_categories(spam.rows, clean_label="ham")
    truth = rows.truth(("spam",))
    parts = [list(rows.texts[start : start + 200]) for start in range(0, len(rows), 200)]
    with Client(spam.server.address, timeout_s=120) as client:
        heard = [each_tier(client, "spam", part, 2) for part in parts]
    found = [[item for part in heard for item in part[at]] for at in range(2)]
    for answers in found:
        flagged = np.array([[each.action != "allow" for each in a.categories] for a in answers])
        right = (flagged == truth).all(axis=1)
        confidence = np.array([answer.confidence for answer in answers])
        order = np.argsort(confidence, kind="stable")
        error = float(calibration_error((confidence - right)[order][None])[0])
        noise = calibration_noise(confidence[order], np.random.default_rng(0))
        assert right.mean() > 0.95
        assert error < noise + 0.02
        assert confidence[right].mean() > confidence[~right].mean() + 0.1


def test_cascade_of_moderators_reads_long_texts(spam: Served) -> None:
    with Client(spam.server.address) as client:
        hidden, clean = client.moderate("spam", [CLEAN * 200 + SPAM + CLEAN * 200, CLEAN]).items
    assert hidden is not None
    assert hidden.action != "allow"
    assert hidden.chunks > 50
    assert len(CLEAN) * 199 < hidden.categories[0].start < len(CLEAN) * 201 + len(SPAM)
    assert clean is not None
    assert clean.action == "allow"


def test_cascade_of_moderators_takes_what_the_request_asks(spam: Served) -> None:
    texts = [SPAM, CLEAN, "ok", "call me"]
    with Client(spam.server.address) as client:
        hurried = client.moderate("spam", texts, accept_at=1.0, budget_ms=1e-6)
        cheap = client.moderate("spam", texts, max_tier=0, accept_at=0.0)
        # What cannot be read fails alone.
        partial = client.moderate("spam", [*texts, ""], partial=True)
    for item in hurried.items:
        assert item is not None
        assert (item.tier, item.degraded, item.abstained) == (0, "no_time", True)
    assert [item and (item.tier, item.abstained) for item in cheap.items] == [(0, False)] * 4
    assert [error.index for error in partial.errors] == [4]
    assert all(item is not None for item in partial.items[:4])


def test_cascade_of_moderators_in_process_and_by_command(spam: Served, tmp_path: Path) -> None:
    texts = list(read_categories(spam.rows, clean_label="ham").texts)[:60]
    task = TaskConfig(bundle=str(spam.bundle), tiers={"static": TierConfig(accept_at=ACCEPT_AT)})
    with (
        Client(spam.server.address) as client,
        Runtime(config=Config(tasks={"spam": task}), store=spam.store) as runtime,
    ):
        there, here = (verbs.moderate("spam", texts) for verbs in (client, runtime))
        cheap = each_tier(runtime, "spam", texts, 1)[0]
    assert [item and (item.action, item.tier) for item in here.items] == [
        item and (item.action, item.tier) for item in there.items
    ]
    where = ("--server", spam.server.address)
    unsure = texts[int(np.argmin([item.confidence for item in cheap]))]
    done = sprat(spam.store, "explain", "spam", unsure, *where, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    first, last = report["tiers"]
    assert (first["tier"], first["decision"]) == ("static", "passes on")
    assert first["confidence"] < first["accept_at"]
    assert (last["tier"], last["decision"], last["scores"][0]["label"]) == (
        "head",
        "answers",
        "spam",
    )
    only = ("--max-tier", "0", "--accept-at", "1")
    table = sprat(spam.store, "moderate", "spam", unsure, *where, *only)
    assert table.returncode == 0, table.stderr
    assert "(abstained)" in table.stdout
    assert "confidence" in table.stdout
    assert "tier" in table.stdout
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = sprat(spam.store, "run", "spam", str(source), "-o", str(out), *where)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["tier"] for answer in answers] == [item.tier for item in there.items if item]
    assert {answer["degraded"] for answer in answers} == {None}
    done = sprat(
        spam.store,
        *("run", "spam", str(source), "-o", str(out), *where, "--restart"),
        *only,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(answer["tier"], answer["action"], answer["abstained"]) for answer in answers} == {
        (0, "flag", True)
    }


def test_cascade_of_moderators_has_thresholds_in_its_configuration(
    spam: Served, tmp_path: Path
) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(f'[tasks.s]\nbundle = "{spam.bundle}"\nthresholds.spam.flag_at = 0.3\n')
    done = sprat(spam.store, "serve", "--config", str(config), "--listen", f"unix:{tmp_path}/s")
    assert done.returncode == 1
    assert "tasks.s.thresholds: expected none beside accept_at" in done.stderr


# -- extract ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bookings(
    store: Store, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A tagger on a tiny random encoder, and behind it one on MiniLM."""
    folder = tmp_path_factory.mktemp("bookings")
    own = Store(folder / "home")
    pull(str(write_encoder(folder / "tiny-words")), own)
    shutil.copytree(minilm, own.root / "models" / ENCODER)
    rows = write_rows(folder / "rows.jsonl", make_bookings(100))
    test = write_rows(folder / "test.jsonl", make_bookings(40, seed=1))
    made = []
    for base in ("tiny-words", ENCODER):
        out = folder / "trained" / base / "bookings"
        out.parent.mkdir(parents=True)
        done = sprat(
            own,
            *("train", str(rows), "--kind", "extract", "--base", base, "--test", str(test)),
            *("-o", str(out)),
        )
        assert done.returncode == 0, done.stderr
        made.append(Bundle.load(out))
    (first,), (last,) = (each.manifest.tiers for each in made)
    last = last.model_copy(update={"name": "finetune", "weights": "finetune.safetensors"})
    whole = replace(
        made[1],
        manifest=made[1].manifest.model_copy(update={"tiers": (first, last)}),
        taggers=(made[0].taggers[0], made[1].taggers[0]),
    )
    out = folder / "bookings"
    out.mkdir()
    whole.save(out, report="{}")
    config = folder / "sprat.toml"
    config.write_text(
        f'[tasks.bookings]\nbundle = "{out}"\non_failure = "answer"\n'
        "tiers = { head = { accept_at = 0.8 } }\n"
    )
    server = start_server(own, folder, "--config", str(config))
    yield Served(server, own, out, test)
    assert server.stop() == 0


def test_cascade_of_taggers_answers_by_the_cheapest_tier_that_is_sure(bookings: Served) -> None:
    texts = list(make_bookings(80, seed=5).texts)
    with Client(bookings.server.address) as client:
        cheap = client.extract("bookings", texts, max_tier=0, accept_at=0.0)
        result = client.extract("bookings", texts)
        (task,) = client.list_tasks()
        strict = client.extract("bookings", texts, accept_at=1.0)
    assert [name for name, _ in task.models] == ["tiny-words", ENCODER]
    assert result.calibrated
    tiers = set()
    for first, item, last in zip(cheap.items, result.items, strict.items, strict=True):
        assert first is not None
        assert item is not None
        assert last is not None
        assert first.confidence is not None
        sure = item.tier == 0
        # The dead band lies between: see `sprat.calibration.least_confidence`.
        assert first.confidence >= 0.8 if sure else first.confidence < 0.83
        assert (item.escalated, item.abstained, item.degraded) == (not sure, False, None)
        assert len(item.tiers) == item.tier + 1
        assert item.value is not None
        if sure:
            assert item.value == first.value
        assert (last.tier, last.abstained, last.value, last.json) == (1, True, None, "")
        tiers.add(item.tier)
    assert tiers == {0, 1}


def test_cascade_of_taggers_takes_what_the_request_asks(bookings: Served) -> None:
    texts = list(make_bookings(20, seed=6).texts)
    with Client(bookings.server.address) as client:
        hurried = client.extract("bookings", texts, accept_at=1.0, budget_ms=1e-6)
        long = "my name is Elsa, see you at 7 pm, " * 40
        (whole,) = client.extract("bookings", [long], long_input="chunk", accept_at=1.0).items
    for item in hurried.items:
        assert item is not None
        assert (item.tier, item.degraded, item.abstained) == (0, "no_time", False)
        assert item.value is not None, "as on_failure says"
    assert whole is not None
    assert (whole.tier, whole.abstained) == (1, True)
    assert whole.fields
    task = TaskConfig(bundle=str(bookings.bundle), tiers={"head": TierConfig(accept_at=0.8)})
    with (
        Client(bookings.server.address) as client,
        Runtime(config=Config(tasks={"bookings": task}), store=bookings.store) as runtime,
    ):
        there, here = (verbs.extract("bookings", texts) for verbs in (client, runtime))
    assert [item and (item.value, item.tier) for item in here.items] == [
        item and (item.value, item.tier) for item in there.items
    ]


def test_cascade_of_taggers_by_command(bookings: Served, tmp_path: Path) -> None:
    where = ("--server", bookings.server.address)
    text = "my name is Elsa, see you at 7 pm"
    done = sprat(bookings.store, "explain", "bookings", text, *where, "--accept-at", "1", "--json")
    assert done.returncode == 0, done.stderr
    first, last = json.loads(done.stdout)["tiers"]
    assert (first["tier"], first["decision"]) == ("head", "passes on")
    assert (last["tier"], last["decision"]) == ("finetune", "abstains")
    assert {score["label"] for score in last["scores"]} == {"/name", "/time"}
    done = sprat(bookings.store, "extract", "bookings", text, *where, "--max-tier", "0")
    assert done.returncode == 0, done.stderr
    assert "tier" in done.stdout
    assert "confidence" in done.stdout
    refused = sprat(
        bookings.store, "extract", "m", "x", "--schema", str(bookings.rows), "--max-tier", "0"
    )
    assert "expected none beside --schema" in refused.stderr
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = make_bookings(30, seed=7).texts
    source.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    done = sprat(bookings.store, "run", "bookings", str(source), "-o", str(out), *where)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert {answer["tier"] for answer in answers} <= {0, 1}
    assert all(0 <= answer["confidence"] <= 1 for answer in answers)


def test_cascade_of_taggers_is_tuned_by_command(bookings: Served, tmp_path: Path) -> None:
    data = make_bookings(400, seed=9)
    unlike = replace(data, texts=tuple(f"{t} x{i}" for i, t in enumerate(data.texts)))
    rows = write_rows(tmp_path / "rows.jsonl", unlike)
    out = tmp_path / "tuned"
    arguments = ("tune", str(bookings.bundle), "--data", str(rows), "--max-loss", "2")
    done = sprat(bookings.store, *arguments, "-o", str(out), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert set(figures["accept_at"]) == {"head", "finetune"}
    assert figures["loss_points"] <= 2
    assert Bundle.load(out).manifest.tuning is not None
    refused = sprat(bookings.store, *arguments, "--clean-label", "ham")
    assert "--clean-label: expected a moderate task" in refused.stderr


def test_cascade_answers_say_yes_or_abstain(spam: Served, bookings: Served) -> None:
    """An abstention looks like one, whoever reads it."""
    with Client(spam.server.address) as client:
        (moderation,) = client.moderate("spam", ["hm"], accept_at=1.0).items
    with Client(bookings.server.address) as client:
        (extraction,) = client.extract("bookings", ["my name is Ada"], accept_at=1.0).items
    assert isinstance(moderation, Moderation)
    assert isinstance(extraction, Extraction)
    assert moderation.abstained
    assert moderation.action == "flag"
    assert extraction.abstained
    assert extraction.value is None
