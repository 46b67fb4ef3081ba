"""Cards: what they gather, also where a model is not there any more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, ReportSummary, TierManifest
from sprat.card import card
from sprat.errors import CorruptFile, NotFound
from sprat.head import Head
from sprat.manifest import (
    ADAPTER_MANIFEST,
    MODEL_MANIFEST,
    AdapterManifest,
    Interval,
    ModelManifest,
    ModelRef,
    list_files,
    write,
)
from sprat.store import Store

REPORT = {"provenance": {"seed": 3}}


def add_model(store: Store, weights: bytes) -> ModelManifest:
    def build(folder: Path) -> ModelManifest:
        (folder / "model.bin").write_bytes(weights)
        manifest = ModelManifest(
            name="encoder",
            kind="encoder",
            engine="ct2",
            architecture="bert",
            quantization="int8",
            weights="model.bin",
            pooling="mean",
            max_tokens=128,
            dimension=4,
            licence="Apache-2.0",
            source="a test",
            files=list_files(folder),
        )
        write(folder / MODEL_MANIFEST, manifest)
        return manifest

    return store.add_model("encoder", build, replace=True)[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a model and a bundle of it."""
    store = Store(tmp_path / "home")
    model = add_model(store, b"weights")
    figure = Interval(value=0.9, low=0.8, high=1.0)
    manifest = BundleManifest(
        name="tickets",
        kind="classify",
        labels=("a", "b"),
        tiers=(
            TierManifest(
                name="head",
                base=ModelRef(name=model.name, digest=model.digest),
                weights="head.safetensors",
                calibration=Calibration(temperature=0.5),
                evaluation=ReportSummary(n=10, metrics={"accuracy": figure}),
            ),
        ),
        train_rows=40,
        created="2020-01-01T00:00:00+00:00",
        made_by="sprat 0",
        files=(),
    )
    head = Head(np.eye(2, 4, dtype=np.float32), np.zeros(2, np.float32))
    bundle = Bundle(manifest, (head,))
    store.add_bundle("tickets", lambda folder: bundle.save(folder, report=json.dumps(REPORT)))
    return store


def test_card_of_a_bundle_gathers_models_figures_and_report(store: Store) -> None:
    found = card(store, "tickets")
    manifest, _ = store.bundle("tickets")
    assert (found["type"], found["version"], found["labels"]) == (
        "bundle",
        manifest.version,
        ["a", "b"],
    )
    assert found["tiers"][0]["evaluation"]["metrics"]["accuracy"]["low"] == 0.8
    assert found["models"]["encoder"]["card"]["licence"] == "Apache-2.0"
    assert found["licences"] == ["encoder: Apache-2.0 (a test)"]
    assert found["report"] == REPORT
    assert found["files"]
    assert card(store, str(store.root / "bundles" / "tickets")) == found


def test_card_of_a_bundle_says_where_its_model_is_another_or_gone(store: Store) -> None:
    made_with = store.model("encoder")[0].digest
    add_model(store, b"other weights")
    found = card(store, "tickets")["models"]["encoder"]
    assert found == {"digest": made_with, "card": None}
    store.remove("encoder")
    found = card(store, "tickets")
    assert found["models"]["encoder"] == {"digest": made_with, "card": None}
    assert found["licences"] == [
        "encoder: unknown, since this version of it is not on this machine"
    ]


def test_card_of_a_model(store: Store) -> None:
    found = card(store, "encoder")
    manifest, _ = store.model("encoder")
    assert (found["type"], found["version"]) == ("model", manifest.version)
    assert found["size_bytes"] == len(b"weights")


def test_card_of_nothing_names_what_is_there(store: Store) -> None:
    with pytest.raises(NotFound, match="no bundle, model or adapter named 'nix'; known: encoder, "):
        card(store, "nix")
    with pytest.raises(NotFound, match=r"no bundle named '\./nix'"):
        card(store, "./nix")


def test_card_needs_no_other_model_to_be_whole(store: Store) -> None:
    (store.root / "models" / "broken").mkdir()
    (store.root / "models" / "broken" / MODEL_MANIFEST).write_text("{}")
    assert card(store, "encoder")["type"] == "model"
    assert card(store, "tickets")["type"] == "bundle"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("bundles/tickets/head.safetensors", b"other"),
        ("bundles/tickets/report.json", b"not JSON"),
        ("models/encoder/model.bin", b"WEIGHTS"),
    ],
)
def test_card_checks_every_file(store: Store, path: str, content: bytes) -> None:
    (store.root / path).write_bytes(content)
    with pytest.raises(CorruptFile):
        card(store, Path(path).parent.name)


def test_card_of_an_adapter_says_how_it_was_trained(store: Store) -> None:
    base = ModelRef(name="encoder", digest=store.model("encoder")[0].digest)
    report = {"kind": "classify", "provenance": {"seed": 4}}

    def build(folder: Path, *, trained: bool) -> None:
        (folder / "adapter.gguf").write_bytes(b"lora")
        if trained:
            (folder / "report.json").write_text(json.dumps(report))
        write(
            folder / ADAPTER_MANIFEST,
            AdapterManifest(
                name="polite",
                kind="lora",
                base=base,
                weights="adapter.gguf",
                rank=2,
                alpha=4.0,
                licence="MIT",
                source="trained on rows.jsonl",
                files=list_files(folder),
            ),
        )

    store.add_adapter("polite", lambda folder: build(folder, trained=True))
    found = card(store, "polite")
    assert (found["type"], found["rank"], found["report"]) == ("adapter", 2, report)
    assert found["version"] == store.adapter("polite")[0].version
    assert found["licences"] == [
        "polite: MIT (trained on rows.jsonl)",
        "encoder: Apache-2.0 (a test)",
    ]
    add_model(store, b"other weights")
    assert card(store, "polite")["models"]["encoder"] == {"digest": base.digest, "card": None}
    store.add_adapter("polite", lambda folder: build(folder, trained=False), replace=True)
    assert card(store, "polite")["report"] is None
    (store.root / "adapters" / "polite" / "adapter.gguf").write_bytes(b"what")
    with pytest.raises(CorruptFile, match=r"adapter\.gguf"):
        card(store, "polite")
    with pytest.raises(NotFound, match="known: encoder, polite, tickets"):
        card(store, "nix")
