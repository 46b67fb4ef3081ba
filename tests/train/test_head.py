"""From rows to a bundle: what is written, what is refused, what is reported."""

from __future__ import annotations

import functools
import json
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprat.bundle import Bundle, write_bundle
from sprat.bundle_manifest import REPORT, Route
from sprat.errors import DataError, EngineError, InvalidInput
from sprat.manifest import ModelRef
from sprat.train.assess import assess
from sprat.train.data import Dataset, read
from sprat.train.head import Trained, train_classifier, train_tier
from sprat.train.prepare import Prepared, prepare
from sprat.train.record import TrainingRecord
from sprat.train.report import Report
from sprat.train.split import split
from sprat.values import FloatArray

Embed = Callable[[Sequence[str]], FloatArray]
BASE = ModelRef(name="words", digest="0" * 64)
SMALLER = ModelRef(name="fewer-words", digest="1" * 64)


def train(data: Dataset | Prepared, out: Path, embed: Embed, **options: Any) -> Trained:
    """One head; options are those of `train_classifier`."""
    out.mkdir()
    prepared = data if isinstance(data, Prepared) else prepare(data)
    tier = functools.partial(train_tier, name="head", base=BASE, embed=embed)
    return train_classifier(prepared, [tier], out=out, **{"name": "tickets", **options})


@pytest.fixture(scope="module")
def data(dataset: Callable[..., Dataset]) -> Dataset:
    return dataset(400)


@pytest.fixture(scope="module")
def trained(
    data: Dataset, embed: Embed, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Trained]:
    out = tmp_path_factory.mktemp("trained") / "tickets"
    return out, train(data, out, embed)


# -- the bundle ------------------------------------------------------------------------------


def test_head_bundle_holds_what_was_trained(trained: tuple[Path, Trained], data: Dataset) -> None:
    out, done = trained
    bundle = Bundle.load(out)
    manifest = bundle.manifest
    assert manifest == done.manifest
    assert bundle.heads[0].weight.shape == (3, 256)
    assert (manifest.kind, manifest.route) == ("classify", None)
    assert manifest.labels == ("billing", "delivery", "technical")
    (tier,) = manifest.tiers
    assert (tier.name, tier.base, tier.weights) == ("head", BASE, "head.safetensors")
    assert tier.calibration is not None
    assert tier.accept_at == 0
    record = TrainingRecord.model_validate_json((out / REPORT).read_text())
    assert record == done.record
    assert manifest.train_rows + record.evaluation.n == len(data)
    assert manifest.train_rows == record.data.rows
    assert tier.evaluation == record.evaluation.summary()
    training = record.tiers["head"].training
    assert (training.folds, training.class_weights) == (5, "none")
    assert record.provenance.seed == 0
    assert record.provenance.train.rows == manifest.train_rows
    assert record.provenance.test.rows == record.evaluation.n
    chosen = min(training.candidates, key=lambda c: c.nll)
    assert (training.regularization, tier.calibration.temperature) == (
        chosen.regularization,
        chosen.temperature,
    )


def test_head_is_good_and_calibrated(trained: tuple[Path, Trained]) -> None:
    report = trained[1].record.evaluation
    # A tenth of the rows carries the words of another topic.
    assert report.accuracy > 0.8
    assert report.ece < 2 * report.ece_noise


def test_head_held_out_rows_are_those_of_the_split(
    trained: tuple[Path, Trained], data: Dataset, embed: Embed
) -> None:
    out, done = trained
    _, held = split(data, 0.2, seed=0)
    assert done.record.evaluation.n == len(held)
    assert assess(Bundle.load(out), held, embed=embed).report == done.record.evaluation


def test_head_report_and_bundle_hold_no_text(trained: tuple[Path, Trained], data: Dataset) -> None:
    out, _ = trained
    content = b"".join(path.read_bytes() for path in out.iterdir())
    assert not any(text.encode() in content for text in data.texts)
    assert data.path.encode() not in content


def test_head_same_rows_and_seed_give_the_same_bundle(
    trained: tuple[Path, Trained], data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    done = trained[1]
    again = train(data, tmp_path / "again", embed)
    assert again.manifest.version == done.manifest.version
    assert again.record == done.record
    other = train(prepare(data, seed=1), tmp_path / "other", embed)
    assert other.manifest.version != done.manifest.version


def test_head_fits_into_the_atomic_writer(data: Dataset, embed: Embed, tmp_path: Path) -> None:
    tier = functools.partial(train_tier, name="head", base=BASE, embed=embed)
    manifest = write_bundle(
        tmp_path / "tickets",
        lambda folder: train_classifier(prepare(data), [tier], name="tickets", out=folder),
    )
    assert Bundle.load(tmp_path / "tickets").manifest == manifest


def test_head_embeds_each_text_once_and_restores_the_order(
    data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    calls: list[Sequence[str]] = []

    def counted(texts: Sequence[str]) -> FloatArray:
        calls.append(texts)
        return embed(texts)

    twice = Dataset(data.texts * 2, data.labels * 2, tuple(range(1, 801)), "twice.csv")
    done = train(twice, tmp_path / "out", counted)
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted(set(data.texts))
    assert done.record.evaluation.accuracy > 0.8


@pytest.mark.parametrize("rows", [12, 15, 30])
def test_head_trains_on_few_rows(
    dataset: Callable[..., Dataset], embed: Embed, tmp_path: Path, rows: int
) -> None:
    done = train(dataset(rows), tmp_path / "out", embed, with_learning_curve=True)
    assert done.record.evaluation.n >= 3
    assert done.manifest.train_rows >= 9
    assert done.record.learning_curve is not None
    bundle = Bundle.load(tmp_path / "out")
    _, confidence = bundle.heads[0].rank(embed(["refund invoice charge"]), top_k=1)
    # So few rows can never vouch for certainty.
    assert confidence.max() < 1 - 1e-3


def test_head_of_public_messages(shared_data: Path, embed: Embed, tmp_path: Path) -> None:
    data = read(shared_data / "sms_spam.train.jsonl").take(range(800))
    test = read(shared_data / "sms_spam.test.jsonl").take(range(500))
    report = train(prepare(data, test=test), tmp_path / "out", embed).record.evaluation
    # Always `ham` would be right for 87 %.
    assert report.accuracy > 0.9
    assert report.ece < 2 * report.ece_noise
    assert report.intervals["accuracy"][0] < report.accuracy < report.intervals["accuracy"][1]


# -- tiers and routes ------------------------------------------------------------------------


def test_head_tiers_have_their_own_model_calibration_and_evaluation(
    data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    def poorer(texts: Sequence[str]) -> FloatArray:
        vectors = embed(texts)[:, :24]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    done = train_classifier(
        prepare(data),
        [
            functools.partial(train_tier, name="static", base=SMALLER, embed=poorer, accept_at=0.9),
            functools.partial(
                train_tier, name="head", base=BASE, embed=embed, class_weights="balanced"
            ),
        ],
        name="tickets",
        out=tmp_path,
    )
    static, head = done.manifest.tiers
    assert (static.name, static.base, static.accept_at) == ("static", SMALLER, 0.9)
    assert (head.name, head.base, head.accept_at) == ("head", BASE, 0)
    assert [h.dimension for h in Bundle.load(tmp_path).heads] == [24, 256]
    assert static.calibration != head.calibration
    records = done.record.tiers
    assert list(records) == ["static", "head"]
    assert records["static"].evaluation.nll > records["head"].evaluation.nll
    assert records["head"].training.class_weights == "balanced"
    assert done.record.evaluation == records["head"].evaluation


def test_head_route_bundle_holds_its_targets(data: Dataset, embed: Embed, tmp_path: Path) -> None:
    route = Route(
        targets={"billing": "queue://money", "delivery": "ops", "technical": "ops"},
        default_target="people",
    )
    done = train(data, tmp_path / "out", embed, route=route)
    assert done.manifest.kind == "route"
    assert Bundle.load(tmp_path / "out").manifest.route == route
    other = train(
        data, tmp_path / "other", embed, route=route.model_copy(update={"default_target": ""})
    )
    assert other.manifest.version != done.manifest.version


# -- what the rows tell ----------------------------------------------------------------------


def test_head_flipped_labels_are_among_the_first_suspects(
    data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    labels = list(data.labels)
    names = sorted(set(labels))
    flipped = random.Random(0).sample(range(len(data)), len(data) // 20)
    for row in flipped:
        labels[row] = names[(names.index(labels[row]) + 1) % 3]
    wrong = Dataset(data.texts, tuple(labels), data.lines, data.path)
    done = train(wrong, tmp_path / "out", embed)
    trained_lines = set(split(wrong, 0.2, seed=0)[0].lines)
    wanted = {data.lines[row] for row in flipped} & trained_lines
    # A tenth of the rows carries the words of another topic: these are suspects too.
    first = {suspect.line for suspect in done.suspects[: len(trained_lines) // 5]}
    assert len(wanted & first) >= len(wanted) / 2
    assert [s.line for s in done.suspects] == [s.line for s in done.record.suspects]
    by_line = dict(zip(data.lines, data.texts, strict=True))
    assert all(suspect.text == by_line[suspect.line] for suspect in done.suspects)


def test_head_learning_curve_ends_at_the_evaluation(
    data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    done = train(data, tmp_path / "out", embed, with_learning_curve=True)
    curve = done.record.learning_curve
    assert curve is not None
    assert curve.points[-1].rows == done.manifest.train_rows
    assert curve.points[-1].value == pytest.approx(done.record.evaluation.accuracy)
    assert curve.points[0].value < curve.points[-1].value
    assert train(data, tmp_path / "without", embed).record.learning_curve is None


def test_head_evaluates_without_leaked_rows_too(
    data: Dataset, dataset: Callable[..., Dataset], embed: Embed, tmp_path: Path
) -> None:
    fresh = dataset(60, seed=5)
    texts = fresh.texts + tuple(text.upper() for text in data.texts[:30])
    labels = fresh.labels + data.labels[:30]
    test = Dataset(texts, labels, tuple(range(1, 91)), "test.csv")
    record = train(prepare(data, test=test), tmp_path / "out", embed).record
    without = record.tiers["head"].without_leaked
    assert without is not None
    assert record.data.leaked.count >= 30
    assert without.n == 90 - record.data.leaked.count - record.data.nearly_leaked.count
    assert record.evaluation.n == 90
    only_leaked = prepare(data, test=data.take(range(30)))
    assert train(only_leaked, tmp_path / "only", embed).record.tiers["head"].without_leaked is None


def test_head_findings_are_logged_without_text(
    data: Dataset, embed: Embed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = data.take(range(30))
    with caplog.at_level(logging.INFO):
        train(prepare(data, test=test), tmp_path / "out", embed)
    assert "30 of 30 test rows repeat a training row: lines 1 (1), 2 (2)" in caplog.text
    assert not any(text in caplog.text for text in test.texts)


# -- what is refused -------------------------------------------------------------------------


def test_head_unknown_labels_of_evaluated_rows_are_named(
    trained: tuple[Path, Trained], embed: Embed
) -> None:
    data = Dataset(("a",), ("Billing",), (7,), "rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: label: unknown"):
        assess(Bundle.load(trained[0]), data, embed=embed)


@pytest.mark.parametrize("name", ["Tickets", "", "a/b"])
def test_head_refuses_names_before_any_work(data: Dataset, tmp_path: Path, name: str) -> None:
    def never(texts: Sequence[str]) -> FloatArray:
        raise AssertionError("embedded for nothing")

    with pytest.raises(InvalidInput) as caught:
        train(data, tmp_path / "out", never, name=name)
    assert caught.value.field == "name"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda n: np.zeros((n - 1, 8), np.float32), r"expected vectors\[\d+, D\], got \(\d+, 8\)"),
        (lambda n: np.zeros(n, np.float32), "expected vectors"),
        (lambda n: np.full((n, 8), np.nan, np.float32), "not all vectors are finite"),
    ],
)
def test_head_refuses_vectors_that_make_no_sense(
    data: Dataset, tmp_path: Path, vectors: Callable[[int], FloatArray], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        train(data, tmp_path / "out", lambda texts: vectors(len(texts)))
    assert list((tmp_path / "out").iterdir()) == []


def test_head_report_is_json_for_programs(trained: tuple[Path, Trained]) -> None:
    document = json.loads((trained[0] / REPORT).read_text())
    assert Report.model_validate(document["tiers"]["head"]["evaluation"]).n > 0
    assert document["data"]["rows_of_label"].keys() == {"billing", "delivery", "technical"}
