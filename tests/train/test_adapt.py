"""Adapters from rows to the store: whole, reproducible, or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import encoder_files, gguf_file, write_files

from sprat.errors import DataError, InvalidInput, NotFound, StoreError, UnsupportedModel
from sprat.manifest import sha256_file
from sprat.progress import Silent
from sprat.pull import pull
from sprat.store import Store
from sprat.train import loop
from sprat.train.adapt import AdapterReport, train_adapter
from sprat.train.evaluate import Report
from sprat.train.evaluate_extract import ExtractReport
from sprat.train.evaluate_transform import TransformReport
from sprat.train.lora import LoraSettings
from sprat.values import ExtractSpec, Grammar, LabelSet, TransformSpec

pytest.importorskip(
    "torch", reason="needs torch: pip install 'sprat[finetune]'", exc_type=ImportError
)

SCHEMA = '{"type":"object","properties":{"who":{"type":"string"}}}'
SETTINGS = LoraSettings(rank=2, epochs=1, batch=4, learning_rate=0.01)
CLASSIFY = LabelSet("tiny", ())


@pytest.fixture
def store(tiny: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    pull(str(tiny), store, name="tiny")
    return store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            "text": f"{n} Zoé {label}",
            "label": label,
            "spans": [{"field": "who", "start": 2, "end": 5}],
            "target": "Zoé",
        }
        for n in range(5)
        for label in ("ab", "cd")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(
    data: Path, store: Store, spec: Any = CLASSIFY, *, name: str = "made", **more: Any
) -> tuple[Any, AdapterReport]:
    given = {"settings": SETTINGS, "progress": Silent(), **more}
    trained = train_adapter(data, spec, store, name=name, **given)
    return trained.manifest, trained.report


def test_adapt_twice_makes_the_same_adapter(store: Store, data: Path) -> None:
    one, report = train(data, store, name="one")
    other, again = train(data, store, name="two")
    assert one.version == other.version
    assert report.losses == again.losses
    assert isinstance(report.evaluation, Report)
    made = report.provenance
    assert made.validation is not None
    assert [made.train.rows, made.validation.rows, made.test.rows] == [6, 2, 2]
    assert report.evaluation.n == 2
    parts = (made.train, made.validation, made.test)
    assert {part.sha256 for part in parts} == {sha256_file(data)}
    assert len({part.lines for part in parts}) == 3
    assert {"python", "sprat", "torch", "llama-cpp-python"} <= set(made.versions)
    assert again.provenance == made
    changed = replace(report.settings, seed=1)
    third, other_split = train(data, store, name="one", settings=changed, overwrite=True)
    assert other_split.provenance.seed == 1
    assert other_split.provenance.train.lines != made.train.lines
    assert third.version != one.version


@pytest.mark.parametrize(
    ("spec", "kind", "files"),
    [
        (ExtractSpec("tiny", SCHEMA, max_tokens=16), ExtractReport, {"schema.json"}),
        (TransformSpec("tiny", "Who? {text}"), TransformReport, set()),
        (
            TransformSpec("tiny", "Who? {text}", Grammar("regex", "Zoé|no")),
            TransformReport,
            set(),
        ),
    ],
)
def test_adapt_evaluates_answers_in_text(
    spec: Any, kind: type, files: set[str], store: Store, data: Path
) -> None:
    manifest, report = train(data, store, spec, test=data)
    assert isinstance(report.evaluation, kind)
    assert report.evaluation.n == 10
    made = report.provenance
    assert (made.test.rows, made.test.sha256) == (10, sha256_file(data))
    assert made.train.sha256 == made.test.sha256
    written = {entry.path for entry in store.adapter("made", check=True)[0].files}
    assert written == {"adapter.gguf", "report.json", "task.toml"} | files
    assert manifest.base.digest == store.model("tiny")[0].digest


def test_adapt_resumes_what_was_interrupted(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception):
        pass

    class Cut(Silent):
        def phase(self, text: str, total: int | None = None) -> None:
            if text.startswith("pass 3"):
                raise PowerCutError

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    settings = LoraSettings(rank=2, epochs=4, batch=4, learning_rate=0.01, patience=9)
    whole, _ = train(data, store, name="whole", settings=settings)
    with pytest.raises(PowerCutError):
        train(data, store, settings=settings, progress=Cut())
    assert store.adapters()[0][0].name == "whole"
    assert len(store.adapters()) == 1
    kept = store.root / "downloads" / "made"
    assert [file.name for file in kept.iterdir()] == [loop.CHECKPOINT]
    resumed, _ = train(data, store, settings=settings, resume=True)
    assert resumed.version == whole.version
    assert not kept.exists()


def test_adapt_refuses_before_it_trains(store: Store, data: Path, tmp_path: Path) -> None:
    pull(str(write_files(tmp_path / "tiny-encoder", encoder_files())), store)
    gemma = tmp_path / "gemma.gguf"
    gemma.write_bytes(gguf_file(tmp_path, architecture="gemma2"))
    pull(str(gemma), store)

    class Never(Silent):
        def phase(self, text: str, total: int | None = None) -> None:
            raise AssertionError(text)

    def refused(error: type[Exception], match: str, **given: Any) -> None:
        with pytest.raises(error, match=match):
            train(data, store, **({"progress": Never()} | given))
        assert store.adapters() == []

    refused(NotFound, "no model named 'none'", spec=LabelSet("none", ()))
    refused(InvalidInput, "tiny-encoder is an encoder", spec=LabelSet("tiny-encoder", ()))
    refused(UnsupportedModel, "this is a gemma2", spec=LabelSet("gemma", ()))
    refused(InvalidInput, "epochs", settings=LoraSettings(epochs=0))
    refused(InvalidInput, "held_out", held_out=1.0)
    refused(StoreError, "tiny is the name of a model", name="tiny")
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "x", "label": "ef"}\n')
    refused(DataError, "other.jsonl:1: label: unknown", test=other)
