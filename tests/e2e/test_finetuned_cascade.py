"""A head on an encoder, and behind it the encoder tuned for the task: trained, tuned, served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ENCODER, Server, sprat, start_server

from sprat import Client
from sprat.bundle import Bundle, write_bundle
from sprat.calibration import least_confidence
from sprat.store import Store

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        find_spec("torch") is None, reason="torch is not installed: pip install 'sprat[finetune]'"
    ),
]

TASK, ALONE = "bookings", "alone"
TRAIN_ROWS, TEST_ROWS, TUNE_ROWS = 120, 80, 300
ACCEPT_AT = 0.7
NOISE = 0.2
"""Of a confidence on int8 weights, in log-odds, between calls that share batches otherwise."""


@dataclass(frozen=True)
class Made:
    """The cascade of two tiers, and what ``sprat tune`` said of it."""

    store: Store
    bundle: Path
    tuned: Path
    figures: dict[str, Any]
    served: Path
    texts: list[str]


def run(store: Store, *arguments: str) -> dict[str, Any]:
    done = sprat(store, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def made(minilm: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two tiers from few rows of restaurant8k and one pass over them: good enough to differ."""
    folder = tmp_path_factory.mktemp("finetuned")
    # The tuned encoder is added to the store.
    store = Store(folder / "home")
    shutil.copytree(minilm, store.root / "models" / ENCODER)
    files = {}
    for source, parts in (
        ("train", {"train": TRAIN_ROWS}),
        ("test", {"test": TEST_ROWS, "traffic": TUNE_ROWS, "served": 60}),
    ):
        with (shared_data / f"restaurant8k.{source}.jsonl").open(encoding="utf-8") as lines:
            for name, count in parts.items():
                files[name] = folder / f"{name}.jsonl"
                files[name].write_text("".join(islice(lines, count)), encoding="utf-8")
    bundle, tuned = folder / TASK, folder / "tuned"
    run(
        store,
        *("train", str(files["train"]), "--kind", "extract", "--base", ENCODER),
        *("--tiers", "head,finetune", "--epochs", "1", "--conflicts", "keep"),
        *("--test", str(files["test"]), "-o", str(bundle)),
    )
    figures = run(
        store,
        *("tune", str(bundle), "--data", str(files["traffic"]), "--max-error", "0.4"),
        *("-o", str(tuned)),
    )
    rows = map(json.loads, files["served"].read_text("utf-8").splitlines())
    return Made(store, bundle, tuned, figures, files["served"], [row["text"] for row in rows])


@pytest.fixture(scope="module")
def server(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The cascade with a threshold that a configuration gives it, as it was tuned, and without."""
    folder = tmp_path_factory.mktemp("served")
    config = folder / "sprat.toml"
    config.write_text(
        f'[tasks.{TASK}]\nbundle = "{made.bundle}"\ntiers.head.accept_at = {ACCEPT_AT}\n'
        f'[tasks.tuned]\nbundle = "{made.tuned}"\n[tasks.{ALONE}]\nbundle = "{made.bundle}"\n'
    )
    started = start_server(made.store, folder, "--config", str(config))
    yield started
    assert started.stop() == 0


def test_finetuned_cascade_is_tuned_on_what_both_tiers_find(made: Made) -> None:
    assert set(made.figures["accept_at"]) == {"head", "finetune"}
    assert made.figures["wrong"] <= 0.4
    manifest = Bundle.load(made.tuned).manifest
    assert manifest.tuning is not None
    assert manifest.tuning.verified_on + manifest.tuning.chosen_on == TUNE_ROWS
    kept = {name for name, least in made.figures["accept_at"].items() if least is not None}
    assert {tier.name for tier in manifest.tiers} == kept


def test_finetuned_cascade_answers_by_its_tuned_encoder_where_the_head_is_not_sure(
    made: Made, server: Server
) -> None:
    with Client(server.address) as client:
        first = client.extract(TASK, made.texts, max_tier=0, accept_at=0.0).items
        result = client.extract(TASK, made.texts)
        alone = client.extract(ALONE, made.texts)
        infos = {task.name: task for task in client.list_tasks()}
    assert [name for name, _ in infos[TASK].models] == [ENCODER, f"{TASK}-encoder"]
    assert [name for name, _ in infos[ALONE].models] == [f"{TASK}-encoder"]
    assert result.model == alone.model == f"{TASK}-encoder"
    least = least_confidence(ACCEPT_AT, "ct2")
    escalated, same = 0, 0
    for head, item, last in zip(first, result.items, alone.items, strict=True):
        assert head is not None
        assert item is not None
        assert last is not None
        assert head.confidence is not None
        off = np.log(head.confidence / (1 - head.confidence)) - np.log(least / (1 - least))
        if abs(off) > NOISE:
            assert (item.tier == 0) == (off > 0)
        if item.tier == 0:
            assert item.value == head.value
            continue
        escalated += 1
        same += item.value == last.value
        assert item.confidence == pytest.approx(last.confidence, abs=0.1)
        assert [said.tier for said in item.tiers] == [0, 1]
        assert not item.abstained
    assert 0 < escalated < len(made.texts)
    assert same >= 0.9 * escalated
    asked = {tier.name: tier.asked for tier in infos[TASK].tiers}
    assert asked["finetune"] == escalated


def test_finetuned_cascade_is_evaluated_as_it_is_served(
    made: Made, server: Server, tmp_path: Path
) -> None:
    bundle = Bundle.load(made.bundle)
    head, last = bundle.manifest.tiers
    tiers = (head.model_copy(update={"accept_at": ACCEPT_AT}), last)
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"tiers": tiers}))
    write_bundle(tmp_path / TASK, lambda folder: bundle.save(folder, report="{}"))
    # The calls to the server ask for no field.
    lines = made.served.read_text("utf-8").splitlines()
    rows = [{**json.loads(line), "requested": []} for line in lines]
    new = tmp_path / "new.jsonl"
    new.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    report = run(made.store, "eval", str(tmp_path / TASK), str(new))
    with Client(server.address) as client:
        items = [each for each in client.extract(TASK, made.texts).items if each is not None]
    assert report["n"] == len(items) == 60
    assert report["metrics"]["coverage"]["value"] == 1
    for place, share in enumerate(report["shares"]):
        served = sum(item.tier == place for item in items) / 60
        # A text or two on the edge, in other batches.
        assert share["answers"] == pytest.approx(served, abs=0.04)
    right = 0
    for row, item in zip(rows, items, strict=True):
        wanted = sorted((each["field"], each["start"], each["end"]) for each in row["spans"])
        names = (field.path.split("/")[1] for field in item.fields)
        found = zip(
            names, (f.start for f in item.fields), (f.end for f in item.fields), strict=True
        )
        right += sorted(found) == wanted
    assert report["metrics"]["exact_match"]["value"] == pytest.approx(right / 60, abs=0.04)


def test_finetuned_cascade_is_served_as_it_was_tuned(made: Made, server: Server) -> None:
    manifest = Bundle.load(made.tuned).manifest
    with Client(server.address) as client:
        items = client.extract("tuned", made.texts).items
        (info,) = (task for task in client.list_tasks() if task.name == "tuned")
    assert info.version == manifest.version
    assert info.accept_at == pytest.approx(manifest.tiers[-1].accept_at)
    for item in items:
        assert item is not None
        assert item.confidence is not None
        # Thresholds and confidences travel as float32.
        above = item.confidence - manifest.tiers[item.tier].accept_at
        assert above <= 1e-6 if item.abstained else above >= -1e-6
