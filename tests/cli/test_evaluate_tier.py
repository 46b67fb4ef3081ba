"""``sprat eval --tier`` of moderators and taggers: one of several tiers, by itself."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import sprat
from tagged import make_bookings, write_encoder, write_rows
from tiny_models import encoder_files, write_files

from sprat.bundle import Bundle, write_bundle
from sprat.pull import pull
from sprat.store import Store


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


def test_eval_tier_of_a_tagger(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    pull(str(write_encoder(tmp_path / "tiny")), store)
    test = str(write_rows(tmp_path / "test.jsonl", make_bookings(60, seed=1)))
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
