"""From served answers to the verdict on them and to new thresholds, all of it real."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cascades import trained
from scraping import Page, address_in, scrape
from servers import TASK, Server, sprat, start_server
from topics import toy_rows
from tuned import tuning

from sprat import Client, Runtime
from sprat.bundle import Bundle
from sprat.config import Config
from sprat.decisions import summarize
from sprat.errors import ConfigError
from sprat.progress import Silent
from sprat.service import Service
from sprat.store import Store
from sprat.train.data import Dataset
from sprat.train.thresholds import cascade
from sprat.train.traffic import traffic_of
from sprat.train.tune import score_tiers
from sprat.values import DriftFigure

WAIT_S = 30.0


def rows(count: int, seed: int, *, purity: float) -> Dataset:
    """Rows of two topics, easy or hard to tell apart."""
    made = toy_rows(count, seed, purity=purity)
    texts, labels = (tuple(row[field] for row in made) for field in ("text", "label"))
    return Dataset(texts, labels, tuple(range(1, count + 1)), "rows")


USUAL, OTHER = rows(300, 1, purity=0.9), rows(300, 2, purity=0.5)


@dataclass(frozen=True)
class Served:
    """A server of a tuned cascade with a decision log."""

    server: Server
    store: Store
    bundle: Path
    log: Path


def tuned_bundle(store: Store, trained_at: Path, folder: Path) -> Path:
    """The bundle with a threshold at the middle of its first tier's confidences."""
    bundle = Bundle.load(trained_at)

    @contextmanager
    def open_embed(model: str) -> Iterator[Any]:
        with Runtime(models=[model], store=store) as runtime:
            yield lambda texts: runtime.embed(model, texts).vectors

    scores = score_tiers(
        bundle,
        USUAL,
        open_embed=open_embed,
        engine_of=lambda model: store.model(model)[0].engine,
        progress=Silent(),
    )
    thresholds = (float(np.quantile(scores[0].confidence_n, 0.4, method="higher")), 0.0)
    answers = cascade(scores, thresholds)
    traffic = traffic_of(scores, thresholds, answers, bundle.manifest.labels)
    assert 30 < traffic.early < 270
    tiers = tuple(
        tier.model_copy(update={"accept_at": least})
        for tier, least in zip(bundle.manifest.tiers, thresholds, strict=True)
    )
    evidence = tuning(traffic, rule="error", limit=0.2)
    manifest = bundle.manifest.model_copy(update={"tiers": tiers, "tuning": evidence})
    out = folder / TASK
    out.mkdir(parents=True)
    replace(bundle, manifest=manifest).save(out, report="{}")
    return out


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("drift")
    store, untuned = trained(folder)
    bundle = tuned_bundle(store, untuned, folder / "tuned")
    log = folder / "log" / "decisions.db"
    config = folder / "sprat.toml"
    config.write_text(
        f'[log]\npath = "{log}"\nstore_text = true\nshadow_share = 1.0\n'
        f'[tasks.{TASK}]\nbundle = "{bundle}"\n'
    )
    server = start_server(store, folder, "--config", str(config), "--metrics", "127.0.0.1:0")
    yield Served(server, store, bundle, log)
    assert server.stop() == 0


def until_logged(log: Path, rows: int) -> None:
    """Wait, bounded, until so many rows are written."""
    end = time.monotonic() + WAIT_S
    while sum(task.rows for task in summarize(log)[0]) < rows:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_drift_is_found_by_server_and_log_and_mended_by_tuning(
    served: Served, tmp_path: Path
) -> None:
    address = ("--server", served.server.address)
    from_log = ("drift", str(served.bundle), "--log", str(served.log))
    with Client(served.server.address) as client:
        for start in range(0, 300, 50):
            client.classify(TASK, USUAL.texts[start : start + 50])
        client.classify(TASK, USUAL.texts[:20], accept_at=1.0)  # Not the task's own thresholds.
        (task,) = client.list_tasks()
    assert task.drift is not None
    assert (task.drift.verdict, task.drift.rows) == ("stable", 300)
    before = sprat(served.store, "drift", TASK, *address)
    assert before.returncode == 0, before.stderr
    assert "static: confidence" in before.stdout
    assert before.stdout.rstrip().endswith("stable")
    until_logged(served.log, 320)
    same = sprat(served.store, *from_log, "--json")
    assert same.returncode == 0, same.stderr
    document = json.loads(same.stdout)
    assert document["verdict"] == "stable"
    assert document["other_thresholds"] > 0
    assert document["rows"] + document["other_thresholds"] == 320
    error = next(each for each in document["figures"] if each["what"] == "error")
    assert (error["verdict"], error["rows"]) == ("too_few", 0)

    with Client(served.server.address) as client:
        for start in range(0, 300, 50):
            texts = OTHER.texts[start : start + 50]
            result = client.classify(TASK, texts)
            for item, right in enumerate(OTHER.labels[start : start + 50]):
                client.feedback(result.request_id, right, item=item)
    now = sprat(served.store, "drift", TASK, *address, "--json")
    assert now.returncode == 1
    assert json.loads(now.stdout)["verdict"] == "drifted"
    assert f"task {TASK}: drifted on the last" in served.server.log.read_text()
    # The server learned of the feedback, too.
    error = next(each for each in json.loads(now.stdout)["figures"] if each["what"] == "error")
    assert (error["rows"], error["verdict"]) == (300, "drifted")
    assert "the guarantee no longer holds" in json.loads(now.stdout)["note"]
    assert "error (" in served.server.log.read_text()
    page = tmp_path / "drift.html"
    later = sprat(served.store, *from_log, "--html", str(page))
    assert later.returncode == 1
    assert "DRIFTED: the guarantee no longer holds" in later.stdout
    shown = page.read_text("utf-8")
    assert "Confidence of static" in shown
    assert not any(text in shown for text in USUAL.texts + OTHER.texts)

    mended = sprat(
        served.store,
        *("tune", str(served.bundle), "--log", str(served.log), "--max-cost", "1000", "--json"),
        *("-o", str(tmp_path / TASK)),
    )
    assert mended.returncode == 0, mended.stderr
    logged = json.loads(mended.stdout)["logged"]
    assert logged["with_feedback"] == 300
    assert 0 < logged["confirmed"] < 300
    assert Bundle.load(tmp_path / TASK).manifest.tuning.logged.with_feedback == 300  # type: ignore[union-attr]


def test_drift_stands_in_the_metrics_of_the_server(served: Served) -> None:
    """Beside what each tier did; as `list_tasks` has it."""
    with Client(served.server.address) as client:
        client.classify(TASK, USUAL.texts[:50])
        (task,) = client.list_tasks()
    status, text = scrape(address_in(served.server.log.read_text()))
    page = Page(text)
    assert status == 200
    assert task.drift is not None
    for tier in task.tiers:
        place = {"task": TASK, "tier": tier.name}
        assert page("sprat_task_tier_asked_texts_total", **place) == tier.asked
        assert page("sprat_task_tier_answered_texts_total", **place) == tier.answered
        assert page("sprat_task_tier_accept_at_ratio", **place) == pytest.approx(tier.accept_at)
    assert task.tiers[0].asked > task.tiers[0].answered > 0
    assert page("sprat_task_drift_rows", task=TASK) == task.drift.rows > 0
    assert page("sprat_task_drift_verdict", task=TASK, verdict=task.drift.verdict) == 1
    psi = next(each.psi for each in task.drift.figures if each.what == "labels")
    assert page("sprat_task_drift_psi", task=TASK, figure="labels", tier="") == psi
    assert (page("sprat_compute_threads") or 0) >= 1
    assert (page("process_resident_memory_bytes") or 0) > 1e6
    assert not any(each in text for each in USUAL.texts + OTHER.texts)


@asynccontextmanager
async def open_service(
    served: Served, log: Path | None, **accept_at: float
) -> AsyncIterator[Service]:
    """Another start, with this log and thresholds of tiers."""
    tiers = {tier: {"accept_at": least} for tier, least in accept_at.items()}
    config = Config.model_validate(
        {
            "log": {} if log is None else {"path": str(log)},
            "tasks": {TASK: {"bundle": str(served.bundle), "tiers": tiers}},
        }
    )
    service = await Service.open(config, served.store)
    try:
        yield service
    finally:
        await service.close()


def error_of(service: Service) -> DriftFigure | None:
    """What a service says of its promise; None where there is nothing to compare with."""
    (task,) = service.list_tasks()
    assert task.drift is not None
    return next((each for each in task.drift.figures if each.what == "error"), None)


async def test_drift_is_remembered_by_the_next_start(served: Served, tmp_path: Path) -> None:
    """And feedback that comes then is on answers of the same version, or does not count."""
    log = tmp_path / "decisions.db"
    answered = []
    async with open_service(served, log) as service:
        before = error_of(service)
        assert before is not None
        assert (before.rows, before.verdict) == (0, "too_few")
        for start in range(0, 150, 50):
            result = await service.classify(TASK, USUAL.texts[start : start + 50])
            for item, said in enumerate(result.items):
                assert said is not None
                answered.append((result.request_id, item, said.label))
        for request, item, label in answered[:40]:
            await service.feedback(request, label, item)
        found = error_of(service)
        assert found is not None
        assert (found.rows, found.share, found.verdict) == (40, 0.0, "stable")
    async with open_service(served, log) as service:
        (task,) = service.list_tasks()
        assert task.drift is not None
        assert task.drift.rows == 150
        assert error_of(service) == found
        for request, item, label in answered[40:50]:
            await service.feedback(request, "delivery" if label != "delivery" else "money", item)
        now = error_of(service)
        assert now is not None
        assert (now.rows, now.share) == (50, 0.2)
    async with open_service(served, log, static=0.123) as service:
        (task,) = service.list_tasks()
        assert task.drift is not None
        assert (task.drift.verdict, task.drift.rows) == ("unknown", 0)
        # Of a version that is not served now: it is kept, and counts for that one.
        request, item, label = answered[50]
        await service.feedback(request, label, item)
        result = await service.classify(TASK, USUAL.texts[:1])
        await service.feedback(result.request_id, label, 0)
        assert error_of(service) is None
    async with open_service(served, log) as service:
        (task,) = service.list_tasks()
        assert task.drift is not None
        assert task.drift.rows == 150
        last = error_of(service)
        assert last is not None
        assert last.rows == 51


async def test_drift_without_a_log_is_of_the_newest_answers_alone(served: Served) -> None:
    async with open_service(served, None) as service:
        result = await service.classify(TASK, USUAL.texts[:50])
        with pytest.raises(ConfigError, match="no decision log is kept, and no feedback"):
            await service.feedback("0" * 16, "money", 0)
        assert result.request_id == ""
        (task,) = service.list_tasks()
        error = error_of(service)
    assert task.drift is not None
    assert task.drift.rows == 50
    assert error is not None
    assert (error.rows, error.verdict) == (0, "too_few")


async def test_drift_of_a_tier_alone_is_watched_from_its_training_on(
    served: Served, tmp_path: Path
) -> None:
    """Tiers keep what their held-out rows looked like; of a route as of a classifier."""
    manifest = Bundle.load(served.bundle).manifest
    assert all(tier.traffic is not None for tier in manifest.tiers)
    log = tmp_path / "decisions.db"
    async with open_service(served, log, static=0.0) as service:
        for start in range(0, 300, 50):
            await service.classify(TASK, USUAL.texts[start : start + 50])
        (task,) = service.list_tasks()
    assert task.tiers == ()
    assert task.drift is not None
    assert (task.drift.reference, task.drift.rows) == ("evaluation", 300)
    traffic = manifest.tiers[-1].traffic
    assert traffic is not None
    assert task.drift.reference_rows == traffic.rows == sum(traffic.labels.values())
    assert [(each.what, each.tier) for each in task.drift.figures] == [
        ("confidence", "head"),
        ("labels", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("drift", "other"), "no task named 'other'; known: tickets"),
        (("drift", TASK, "--since", "7d"), "--since and --logged-as: expected --log"),
        (("drift", "BUNDLE", "--log", "LOG", "--since", "soon"), "--since: expected 7d, 12h"),
        (("drift", "BUNDLE", "--log", "LOG", "--logged-as", "x"), "expected decisions of task x"),
        (("drift", "BUNDLE", "--log", "BUNDLE"), "expected a decision log, found no file"),
        (("tune", "BUNDLE"), "expected one of --data and --log"),
        (("tune", "BUNDLE", "--log", "LOG", "--logged-as", "x"), "expected decisions of task x"),
    ],
)
def test_drift_says_what_is_wrong(served: Served, arguments: tuple[str, ...], message: str) -> None:
    places = {"BUNDLE": str(served.bundle), "LOG": str(served.log)}
    given = [places.get(each, each) for each in arguments]
    if "LOG" not in arguments and "BUNDLE" not in arguments:
        given += ["--server", served.server.address]
    with Client(served.server.address) as client:
        client.classify(TASK, ["parcel"])
    until_logged(served.log, 1)
    done = sprat(served.store, *given)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
