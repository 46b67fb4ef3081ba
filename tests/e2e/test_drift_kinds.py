"""Drift of moderators and taggers, from their training on: real models, served and logged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import ENCODER, sprat
from tagged import make_bookings, write_rows

from sprat.bundle import Bundle
from sprat.config import Config
from sprat.service import Service
from sprat.store import Store
from sprat.values import Drift, DriftFigure

pytestmark = pytest.mark.timeout(600)

ROWS = 600


@asynccontextmanager
async def serving(
    store: Store, bundle: Path, log: Path, **accept_at: float
) -> AsyncIterator[Service]:
    """The bundle as a task of its name, with thresholds of its tiers, and a log with texts."""
    tiers = {tier: {"accept_at": least} for tier, least in accept_at.items()}
    task = {"bundle": str(bundle), "tiers": tiers}
    config = {"log": {"path": str(log), "store_text": True}, "tasks": {bundle.name: task}}
    service = await Service.open(Config.model_validate(config), store)
    try:
        yield service
    finally:
        await service.close()


def drift_of(service: Service) -> Drift:
    (task,) = service.list_tasks()
    assert task.drift is not None
    return task.drift


def figure(drift: Drift, what: str) -> DriftFigure:
    return next(each for each in drift.figures if each.what == what)


def in_calls(texts: Sequence[str], size: int = 50) -> list[Sequence[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


@pytest.fixture(scope="module")
def spam(
    store: Store,
    minilm: Path,
    minilm_static: str,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[dict[str, Any]]]:
    """A moderator of two tiers, and the rows that it was evaluated on."""
    folder = tmp_path_factory.mktemp("spam")
    files = {}
    for name in ("train", "test"):
        lines = (shared_data / f"sms_spam.{name}.jsonl").read_text("utf-8").splitlines(True)
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(lines[:ROWS]), "utf-8")
    out = folder / "bundle" / "spam"
    out.parent.mkdir()
    done = sprat(
        store,
        *("train", str(files["train"]), "--kind", "moderate", "--clean-label", "ham"),
        *("--base", ENCODER, "--tiers", "static,head", "--static-base", minilm_static),
        *("--test", str(files["test"]), "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    return out, [json.loads(line) for line in files["test"].read_text("utf-8").splitlines()]


async def test_drift_of_a_moderator_from_its_training_to_a_tuning_on_feedback(
    store: Store, spam: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    bundle, rows = spam
    log = tmp_path / "decisions.db"
    async with serving(store, bundle, log) as service:
        for texts in in_calls([row["text"] for row in rows]):
            await service.moderate("spam", texts)
        # What it was evaluated on is what it says now: the same numbers, made in another place.
        drift = drift_of(service)
        assert (drift.verdict, drift.reference) == ("stable", "evaluation")
        assert (drift.rows, drift.reference_rows) == (ROWS, ROWS)
        assert [each.what for each in drift.figures] == ["confidence", "labels"]
        assert all(each.psi is not None and each.psi < 0.02 for each in drift.figures)
        for texts in in_calls([f"Win {row['text']} call now" for row in rows] * 2):
            await service.moderate("spam", texts)
        assert drift_of(service).verdict == "drifted"
        # The first answers again: what was right is known, and right is said of half of it.
        for start, texts in enumerate(in_calls([row["text"] for row in rows])):
            result = await service.moderate("spam", texts)
            for item, said in enumerate(result.items):
                assert said is not None
                label = rows[50 * start + item]["label"]
                right = "allow" if label == "ham" else label
                is_right = right == (said.category or "allow")
                given = "right" if is_right and item % 2 else right
                await service.feedback(result.request_id, given, item)
    from_log = sprat(store, "drift", str(bundle), "--log", str(log), "--json")
    assert json.loads(from_log.stdout)["reference"] == "evaluation"
    tuned = sprat(
        store,
        *("tune", str(bundle), "--log", str(log), "--max-error", "0.08", "--json"),
        *("-o", str(tmp_path / "spam")),
    )
    assert tuned.returncode == 0, tuned.stderr
    logged = json.loads(tuned.stdout)["logged"]
    assert (logged["with_feedback"], logged["from_last_tier"]) == (ROWS, 0)
    assert 0.8 * ROWS < logged["confirmed"] < ROWS
    # And with that there is a promise, which a server puts to the test.
    async with serving(store, tmp_path / "spam", tmp_path / "new.db") as service:
        result = await service.moderate("spam", [row["text"] for row in rows[:60]])
        for item, said in enumerate(result.items):
            assert said is not None
            if not said.abstained:
                await service.feedback(result.request_id, "right" if item % 2 else "wrong", item)
        error = figure(drift_of(service), "error")
        assert error.rows > 40
        assert error.verdict == "drifted"


async def test_drift_of_a_tagger_alone(store: Store, minilm: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", make_bookings(100))
    data = make_bookings(200, seed=1)
    test, out = write_rows(tmp_path / "test.jsonl", data), tmp_path / "bookings"
    done = sprat(
        store,
        *("train", str(rows), "--kind", "extract", "--base", ENCODER, "--test", str(test)),
        *("-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    (tier,) = Bundle.load(out).manifest.tiers
    assert tier.traffic is not None
    assert (tier.traffic.rows, tier.traffic.labels) == (200, {})
    log = tmp_path / "decisions.db"
    async with serving(store, out, log) as service:
        for texts, asked in zip(in_calls(data.texts, 1), data.requested, strict=True):
            await service.extract("bookings", texts, requested=asked)
        drift = drift_of(service)
        assert (drift.verdict, drift.rows) == ("stable", 200)
        assert [each.what for each in drift.figures] == ["confidence"]
        psi = drift.figures[0].psi
        assert psi is not None
        assert psi < 0.02
        result = await service.extract("bookings", data.texts[:1])
        await service.feedback(result.request_id, "right", 0)
    from_log = sprat(store, "drift", str(out), "--log", str(log), "--json")
    assert from_log.returncode == 0, from_log.stderr
    assert json.loads(from_log.stdout)["rows"] == 201
    refused = sprat(store, "tune", str(out), "--log", str(log))
    assert refused.returncode == 1
    assert "classify, route and moderate tasks only, not of extract" in refused.stderr
