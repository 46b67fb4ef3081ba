"""What ``sprat train --kind extract`` makes of its options, with a tiny random encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from servers import sprat
from tagged import make_bookings, write_encoder, write_rows
from train_requests import train_request

from sprat.bundle import Bundle
from sprat.cli.train_tagger import train_tagger
from sprat.errors import InvalidInput, StoreError
from sprat.pull import pull
from sprat.store import Store

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed: pip install 'sprat[finetune]'"
)


@needs_torch
def test_train_tagger_tunes_an_encoder_behind_the_frozen_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "home")
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    pull(str(write_encoder(tmp_path / "tiny")), store)
    test = write_rows(tmp_path / "test.jsonl", make_bookings(40, seed=1))
    out = tmp_path / "bookings"
    request = train_request(
        "extract",
        data=write_rows(tmp_path / "train.jsonl", make_bookings(80)),
        test=test,
        base="tiny",
        tiers=("finetune", "head"),
        epochs=3,
        learning_rate=0.003,
        out=str(out),
    )
    train_tagger(request)
    assert "Tiers, from the cheapest to the best" in capsys.readouterr().out
    manifest = Bundle.load(out).manifest
    assert [tier.name for tier in manifest.tiers] == ["head", "finetune"]
    assert [tier.base.name for tier in manifest.tiers] == ["tiny", "bookings-encoder"]
    # The encoder is named after the bundle, and never overwritten by accident.
    with pytest.raises(StoreError, match="model bookings-encoder is there already"):
        train_tagger(replace(request, out=str(tmp_path / "other" / "bookings")))
    train_tagger(replace(request, replace=True, as_json=True))
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == manifest.version
    figure = manifest.tiers[-1].evaluation.metrics["micro_f1"].value
    assert report["micro_f1"] == figure
    assert list(report["training"]["tiers"]) == ["head", "finetune"]
    # The other commands take the last tier.
    judged = sprat(store, "eval", str(out), str(test), "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["micro_f1"] == pytest.approx(figure, abs=0.02)
    shown = sprat(store, "inspect", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "Tier finetune" in shown.stdout


def test_train_tagger_writes_its_evaluation_as_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "home")
    monkeypatch.setenv("SPRAT_HOME", str(store.root))
    pull(str(write_encoder(tmp_path / "tiny")), store)
    page = tmp_path / "bookings.html"
    request = train_request(
        "extract",
        data=write_rows(tmp_path / "train.jsonl", make_bookings(60)),
        base="tiny",
        out="bookings",
        html=page,
    )
    with pytest.raises(StoreError, match="no is no folder; make it first"):
        train_tagger(replace(request, html=tmp_path / "no" / "x.html"))
    assert store.bundles() == []
    train_tagger(request)
    assert "Exact spans on 11 held-out rows" in capsys.readouterr().out
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    for part in ("Micro-F1", "Reliability", "head on tiny", "11 rows, sha256"):
        assert part in html
    assert "table for" not in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiers": ("static", "head")}, "--tiers: expected some of head, finetune for an extract"),
        ({"epochs": 3}, "--epochs: expected --tiers finetune"),
        ({"learning_rate": 0.1}, "--learning-rate: expected --tiers finetune"),
        ({"resume": True}, "--resume: expected --tiers finetune"),
        ({"tiers": ("finetune",), "static_base": "x"}, "--static-base: an extract task has none"),
        ({"targets": Path("targets.json")}, "--targets: an extract task has none"),
        ({"learning_curve": True}, "--learning-curve: an extract task has none"),
        ({"class_weights": "balanced"}, "--class-weights: an extract task has none"),
    ],
)
def test_train_tagger_refuses_options_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        train_tagger(train_request("extract", **changes))


def test_train_tagger_refuses_tiers_that_nothing_trains() -> None:
    with pytest.raises(typer.BadParameter, match="got large"):
        train_tagger(train_request("extract", tiers=("head", "large")))
