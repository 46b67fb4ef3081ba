"""``sprat eval`` of moderators and taggers with several tiers: as served, and one by itself."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import sprat
from tagged import make_bookings, write_encoder, write_rows
from tiny_models import encoder_files, write_files

from sprat.bundle import Bundle, write_bundle
from sprat.config import Config
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig
from sprat.train.spans import SpanDataset
from sprat.values import Extraction


def evaluated(store: Store, *arguments: str) -> dict[str, Any]:
    done = sprat(store, "eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def trained(store: Store, *arguments: str) -> None:
    done = sprat(store, "train", *arguments)
    assert done.returncode == 0, done.stderr


def write_messages(path: Path, count: int, *, seed: int) -> Path:
    """Spam is about refunds, mostly; no two texts alike."""
    rng = random.Random(seed)
    rows: dict[str, bool] = {}
    while len(rows) < count:
        is_spam = rng.random() < 0.5
        said = ["refund", "broken"] if is_spam == (rng.random() < 0.8) else ["parcel", "late"]
        rows.setdefault(" ".join(rng.choices(said, k=rng.randint(4, 12))), is_spam)
    lines = (
        json.dumps({"text": text, "labels": ["spam"] if is_spam else []})
        for text, is_spam in rows.items()
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_eval_tier_of_a_moderator(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / "tiny", encoder_files())), store)
    rows = str(write_messages(tmp_path / "train.jsonl", 120, seed=1))
    test = str(write_messages(tmp_path / "test.jsonl", 80, seed=2))
    common = (rows, "--kind", "moderate", "--base", "tiny")
    trained(store, *common, "--tiers", "static,head", "-o", "both")
    trained(store, *common, "--tiers", "static", "-o", "cheap")
    cheap = evaluated(store, "cheap", test)
    page = tmp_path / "tier.html"
    assert evaluated(store, "both", test, "--tier", "static", "--html", str(page)) == cheap
    assert "static on tiny-static" in page.read_text("utf-8")
    last = evaluated(store, "both", test)
    assert evaluated(store, "both", test, "--tier", "head") == last
    beside = evaluated(store, "both", test, "--tier", "static", "--against", "both")["against"]
    assert beside["report"] == {key: last[key] for key in beside["report"]}
    shown = sprat(store, "eval", "both", test, "--tier", "static")
    assert shown.returncode == 0, shown.stderr
    assert "average_precision" in shown.stdout
    unknown = sprat(store, "eval", "both", test, "--tier", "finetune")
    assert unknown.returncode == 1
    assert "no tier named 'finetune'; known: head, static" in unknown.stderr


@pytest.fixture(scope="module")
def taggers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Bundle, SpanDataset, str]:
    """A store with ``blind`` and ``many``, a bundle of both, test rows, and their file."""
    tmp_path = tmp_path_factory.mktemp("taggers")
    store = Store(tmp_path / "home")
    pull(str(write_encoder(tmp_path / "tiny")), store)
    held_out = make_bookings(60, seed=1)
    test = str(write_rows(tmp_path / "test.jsonl", held_out))
    rows = make_bookings(80)
    # Without knowing what was asked for, a lone number may be anything.
    blind = replace(rows, requested=((),) * len(rows))
    for name, made in (("blind", blind), ("many", rows)):
        data = write_rows(tmp_path / f"{name}.jsonl", made)
        trained(
            store,
            str(data),
            "--test",
            test,
            "--kind",
            "extract",
            "--base",
            "tiny",
            "--conflicts",
            "keep",
            "-o",
            name,
        )
    poor, many = (Bundle.load(store.bundle(name)[1]) for name in ("blind", "many"))
    tuned = many.manifest.tiers[0].model_copy(
        update={"name": "finetune", "weights": "finetune.safetensors"}
    )
    both = replace(
        many,
        manifest=many.manifest.model_copy(update={"tiers": (poor.manifest.tiers[0], tuned)}),
        taggers=(*poor.taggers, *many.taggers),
    )
    return store, both, held_out, test


def served(store: Store, path: Path, rows: SpanDataset) -> list[Extraction]:
    """What a bundle answers in a process of its own to rows, each asked for what it asks."""
    found: dict[int, Extraction] = {}
    with Runtime(config=Config(tasks={"both": TaskConfig(bundle=str(path))}), store=store) as own:
        for asked in set(rows.requested):
            places = [at for at, each in enumerate(rows.requested) if each == asked]
            result = own.extract("both", [rows.texts[at] for at in places], requested=asked)
            found.update(zip(places, filter(None, result.items), strict=True))
    return [found[at] for at in range(len(rows))]


def test_eval_cascade_of_taggers(
    taggers: tuple[Store, Bundle, SpanDataset, str], tmp_path: Path
) -> None:
    store, both, rows, test = taggers
    tiers = tuple(
        tier.model_copy(update={"accept_at": at})
        for tier, at in zip(both.manifest.tiers, (0.7, 0.5), strict=True)
    )
    tuned = replace(both, manifest=both.manifest.model_copy(update={"tiers": tiers}))
    write_bundle(tmp_path / "both", lambda folder: tuned.save(folder, report="{}"))
    path, page = str(tmp_path / "both"), tmp_path / "both.html"
    given = (path, test, "--against", "many")
    report = evaluated(store, *given, "--html", str(page), "--max-whole-ece", "0.5")
    assert report["by"] == "spans"
    answers = served(store, tmp_path / "both", rows)
    for place, share in enumerate(report["shares"]):
        own = [each for each in answers if each.tier == place and not each.abstained]
        assert share["answers"] == pytest.approx(len(own) / len(rows), abs=0.02)
    assert 0 < report["shares"][0]["answers"] < 1
    coverage = report["metrics"]["coverage"]["value"]
    assert coverage == pytest.approx(sum(not each.abstained for each in answers) / 60, abs=0.02)
    for tier in ("head", "finetune"):
        alone = evaluated(store, path, test, "--tier", tier)
        figure = report["tiers"][tier]["metrics"]["micro_f1"]["value"]
        assert alone["micro_f1"] == pytest.approx(figure)
        assert "shares" not in alone
    beside = report["against"]["comparison"]
    figure = report["metrics"]["micro_f1"]["value"]
    assert beside["micro_f1"]["first"] == pytest.approx(figure)
    assert report["gates"][0]["passed"]
    assert re.search(r"head on tiny \w+, then finetune on tiny", page.read_text("utf-8"))
    missed = sprat(store, "eval", *given, "--min-exact-match", "1", "--max-whole-ece", "0.5")
    assert missed.returncode == 1
    assert "exact_match is 0." in missed.stderr
    for said in ("Tiers in the cascade", "of the CPU time of finetune alone. What counts is spans"):
        assert said in " ".join(missed.stdout.split())
    assert "Ada" not in missed.stdout + missed.stderr


def test_eval_tier_of_a_tagger(
    taggers: tuple[Store, Bundle, SpanDataset, str], tmp_path: Path
) -> None:
    store, both, _, test = taggers
    poor, many = (Bundle.load(store.bundle(name)[1]) for name in ("blind", "many"))
    write_bundle(tmp_path / "both", lambda folder: both.save(folder, report="{}"))
    page = tmp_path / "tier.html"
    first = evaluated(store, str(tmp_path / "both"), test, "--tier", "head", "--html", str(page))
    last = evaluated(store, str(tmp_path / "both"), test)
    for report, bundle in ((first, poor), (last, many)):
        figure = bundle.manifest.tiers[0].evaluation.metrics["micro_f1"].value
        assert report["micro_f1"] == pytest.approx(figure, abs=0.01)
    assert first["micro_f1"] < last["micro_f1"]
    assert "head on tiny" in page.read_text("utf-8")
    unknown = sprat(store, "eval", str(tmp_path / "both"), test, "--tier", "static")
    assert unknown.returncode == 1
    assert "no tier named 'static'; known: finetune, head" in unknown.stderr
