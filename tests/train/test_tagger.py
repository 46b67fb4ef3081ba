"""From rows with spans to a bundle: what is written, and what is refused before."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles import manifest as manifest_of
from tagged import make_bookings, read_words

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import CorruptFile, DataError, InvalidInput, StaleBundle
from sprat.manifest import ModelRef
from sprat.train.assess_spans import assess_tagger
from sprat.train.evaluate_spans import SpanReport
from sprat.train.prepare_spans import prepare_spans
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.train.tagger import (
    ExtractRecord,
    train_tagger,
    train_tagger_tier,
)

BASE = ModelRef(name="words", digest="a" * 64)
DATA = make_bookings(80)
TEST = make_bookings(40, seed=1, path="test.jsonl")


def train(
    data: SpanDataset, out: Path, *, name: str = "bookings", **options: Any
) -> tuple[BundleManifest, SpanReport]:
    prepared = prepare_spans(data, **options)
    tier = functools.partial(train_tagger_tier, name="head", base=BASE, states=read_words)
    manifest, record = train_tagger(prepared, [tier], name=name, out=out)
    return manifest, record.evaluation


def read_record(folder: Path) -> ExtractRecord:
    return ExtractRecord.model_validate_json((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BundleManifest, SpanReport]:
    folder = tmp_path_factory.mktemp("bundle")
    return folder, *train(DATA, folder, test=TEST)


def test_train_tagger_writes_a_bundle_that_answers(
    trained: tuple[Path, BundleManifest, SpanReport],
) -> None:
    folder, manifest, report = trained
    assert (manifest.kind, manifest.labels) == ("extract", ("name", "people", "time"))
    assert manifest.extract is not None
    assert (manifest.extract.many, manifest.extract.requested) == ((), True)
    (tier,) = manifest.tiers
    assert tier.whole is tier.calibration is not None
    assert len(tier.whole.isotonic) > 2
    assert tier.whole.ceiling == pytest.approx(81 / 82, abs=0.01)
    assert tier.evaluation.metrics["micro_f1"].value == report.micro_f1 > 0.9
    assert (report.n, manifest.train_rows) == (40, 80)
    assert report.whole is not None
    assert report.whole.ece == tier.evaluation.metrics["whole_ece"]
    assert report.whole.ece.value < report.whole.ece_noise + 0.1
    bundle = Bundle.load(folder)
    assert (bundle.manifest, bundle.heads) == (manifest, ())
    again = assess_tagger(bundle, TEST, states=read_words).report
    assert again == report
    saved = read_record(folder)
    assert saved.evaluation == report
    assert saved.spans == sum(map(len, DATA.spans))
    training = saved.tiers["head"].training
    assert (training.folds, training.unreachable_spans, training.tuning) == (5, 0, None)
    # No text of the rows.
    assert "table for" not in (folder / "report.json").read_text()


def test_train_tagger_is_reproducible(
    trained: tuple[Path, BundleManifest, SpanReport], tmp_path: Path
) -> None:
    _, manifest, report = trained
    again, other = train(DATA, tmp_path, test=TEST)
    assert (again.version, other) == (manifest.version, report)
    assert again.files == manifest.files


def test_train_tagger_reports_rows_that_repeat_a_training_row(
    trained: tuple[Path, BundleManifest, SpanReport], tmp_path: Path
) -> None:
    saved = read_record(trained[0])
    without_leaked = saved.tiers["head"].without_leaked
    leaked = saved.data.leaked.count + saved.data.nearly_leaked.count
    assert 0 < saved.data.leaked.count <= leaked < 40
    assert without_leaked is not None
    assert without_leaked.n == 40 - leaked
    train(DATA, tmp_path, test=DATA)
    again = read_record(tmp_path)
    assert again.data.leaked.count == 80
    assert "80 of 80 test rows repeat a training row: lines 1 (1), " in again.data.messages()[-1]
    assert again.tiers["head"].without_leaked is None


def test_train_tagger_holds_rows_out_by_text(tmp_path: Path) -> None:
    manifest, report = train(DATA, tmp_path, held_out=0.25)
    assert manifest.train_rows + report.n == 80
    assert read_record(tmp_path).data.leaked.count == 0


def test_train_tagger_learns_which_fields_come_several_times(tmp_path: Path) -> None:
    text = "Ada and Bea"
    two = (GoldSpan(0, 3, "name"), GoldSpan(8, 11, "name"))
    rows = make_bookings(60)
    data = SpanDataset(
        (*rows.texts, text), (*rows.spans, two), (*rows.requested, ()), (*rows.lines, 61), "x.jsonl"
    )
    manifest, _ = train(data, tmp_path, test=TEST)
    assert manifest.extract is not None
    assert manifest.extract.many == ("name",)
    assert Bundle.load(tmp_path).taggers[0].many == {"name"}


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (replace(DATA, spans=((),) * 80, requested=((),) * 80), {}, "no row has a span"),
        (
            DATA.take(range(12)),
            {"test": TEST},
            r"jsonl:2: expected 4 or more (.|\n)* of 1 fields:\n  'name': 3 in lines 2, 7, 12",
        ),
        (replace(DATA, requested=(("seat",),) * 80), {}, "bookings.jsonl:1: requested: an unknown"),
        (DATA, {"test": replace(TEST, requested=(("seat",),) * 40)}, "test.jsonl:1: requested"),
        (
            DATA,
            {"test": replace(TEST, spans=((GoldSpan(0, 1, "seat"),),) * 40)},
            r"test.jsonl:1: spans\[0\].field: unknown(.|\n)*known fields: 'name', 'people', 'time'",
        ),
        (
            replace(DATA, spans=((GoldSpan(0, 1, "time"), GoldSpan(0, 1, "people")),) * 80),
            {"test": replace(DATA, spans=((),) * 80)},
            "bookings.jsonl:1: spans overlap",
        ),
    ],
)
def test_train_tagger_refuses_rows(
    tmp_path: Path, data: SpanDataset, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        train(data, tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "field"), [({"name": "No Name"}, "name"), ({"held_out": 1.0}, "held_out")]
)
def test_train_tagger_refuses_options(tmp_path: Path, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        train(DATA, tmp_path, **options)
    assert caught.value.field == field


def test_assess_tagger_refuses_unknown_fields(
    trained: tuple[Path, BundleManifest, SpanReport],
) -> None:
    other = replace(TEST, spans=((GoldSpan(0, 1, "seat"),),) * 40)
    with pytest.raises(DataError, match="known fields: 'name', 'people', 'time'"):
        assess_tagger(Bundle.load(trained[0]), other, states=read_words)


def test_bundle_of_a_tagger_is_checked(
    trained: tuple[Path, BundleManifest, SpanReport], tmp_path: Path
) -> None:
    folder, manifest, _ = trained
    base = manifest_of("words", dimension=32)
    with pytest.raises(StaleBundle, match="made with words version aaaaaaaaaaaa"):
        Bundle.load(folder, bases={"words": base})
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    document = json.loads((copy / "bundle.json").read_text())
    for change, said in (
        ({"extract": None}, "extract: expected for kind extract"),
        ({"extract": {"many": ["seat"]}}, "extract.many: expected labels of the bundle"),
        ({"kind": "classify"}, "extract: expected for kind extract, and for no other"),
    ):
        (copy / "bundle.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(CorruptFile, match=said):
            Bundle.load(copy)
    tier = {**document["tiers"][0], "base": {"name": "words", "digest": base.digest}}
    (copy / "bundle.json").write_text(json.dumps({**document, "tiers": [tier]}))
    assert Bundle.load(copy, bases={"words": base}).manifest.labels == manifest.labels
    wide = base.model_copy(update={"dimension": 64})
    with pytest.raises(CorruptFile, match="states: 32 columns, but vectors of words have 64"):
        Bundle.load(copy, bases={"words": wide})
