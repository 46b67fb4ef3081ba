"""From rows to a bundle: what is written, what is refused, what is reported."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprat.bundle import Bundle, write_bundle
from sprat.errors import DataError, EngineError, InvalidInput
from sprat.manifest import REPORT, BundleManifest, ModelRef
from sprat.train.data import Dataset, read
from sprat.train.evaluate import Report
from sprat.train.head import evaluate_bundle, train_classifier
from sprat.train.split import split
from sprat.values import FloatArray

Embed = Callable[[Sequence[str]], FloatArray]
BASE = ModelRef(name="words", digest="0" * 64)


def train(
    data: Dataset, out: Path, embed: Embed, **arguments: Any
) -> tuple[BundleManifest, Report]:
    out.mkdir()
    return train_classifier(data, embed=embed, base=BASE, name="tickets", out=out, **arguments)


@pytest.fixture(scope="module")
def data(dataset: Callable[..., Dataset]) -> Dataset:
    return dataset(400)


@pytest.fixture(scope="module")
def trained(
    data: Dataset, embed: Embed, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, BundleManifest, Report]:
    out = tmp_path_factory.mktemp("trained") / "tickets"
    return out, *train(data, out, embed)


def test_head_bundle_holds_what_was_trained(
    trained: tuple[Path, BundleManifest, Report], data: Dataset
) -> None:
    out, manifest, report = trained
    bundle = Bundle.load(out)
    assert bundle.manifest == manifest
    assert bundle.heads[0].weight.shape == (3, 256)
    assert manifest.labels == ("billing", "delivery", "technical")
    (tier,) = manifest.tiers
    assert tier.base == BASE
    assert tier.calibration is not None
    assert tier.accept_at == 0
    assert manifest.train_rows + report.n == len(data)
    assert tier.evaluation == report.summary()
    document = json.loads((out / REPORT).read_text())
    assert Report.model_validate(document["evaluation"]) == report
    training = document["training"]
    assert training["rows"] == manifest.train_rows
    assert training["folds"] == 5
    assert training["repeated_test_rows"] == 0
    chosen = min(training["candidates"], key=lambda c: c["nll"])
    assert (training["regularization"], tier.calibration.temperature) == (
        chosen["regularization"],
        chosen["temperature"],
    )


def test_head_is_good_and_calibrated(trained: tuple[Path, BundleManifest, Report]) -> None:
    report = trained[2]
    # A tenth of the rows carries the words of another topic.
    assert report.accuracy > 0.8
    assert report.ece < 2 * report.ece_noise


def test_head_held_out_rows_are_those_of_the_split(
    trained: tuple[Path, BundleManifest, Report], data: Dataset, embed: Embed
) -> None:
    out, _, report = trained
    _, held = split(data, 0.2, seed=0)
    assert report.n == len(held)
    assert evaluate_bundle(Bundle.load(out), held, embed=embed) == report


def test_head_report_and_bundle_hold_no_text(
    trained: tuple[Path, BundleManifest, Report], data: Dataset
) -> None:
    out, *_ = trained
    content = b"".join(path.read_bytes() for path in out.iterdir())
    assert not any(text.encode() in content for text in data.texts)
    assert data.path.encode() not in content


def test_head_same_rows_and_seed_give_the_same_bundle(
    trained: tuple[Path, BundleManifest, Report], data: Dataset, embed: Embed, tmp_path: Path
) -> None:
    _, manifest, report = trained
    again, same = train(data, tmp_path / "again", embed)
    assert again.version == manifest.version
    assert same == report
    other, _ = train(data, tmp_path / "other", embed, seed=1)
    assert other.version != manifest.version


def test_head_explicit_test_rows_leave_all_others_for_training(
    data: Dataset, dataset: Callable[..., Dataset], embed: Embed, tmp_path: Path
) -> None:
    test = dataset(90, seed=5)
    manifest, report = train(data, tmp_path / "out", embed, test=test, held_out=-1)
    assert manifest.train_rows == len(data)
    assert report.n == 90
    assert sum(label.support for label in report.labels) == 90


def test_head_warns_of_test_rows_that_repeat_training_texts(
    data: Dataset, embed: Embed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = data.take(range(30))
    with caplog.at_level(logging.WARNING):
        train(data, tmp_path / "out", embed, test=test)
    assert "30 of 30 test rows repeat" in caplog.text
    assert not any(text in caplog.text for text in test.texts)
    document = json.loads((tmp_path / "out" / REPORT).read_text())
    assert document["training"]["repeated_test_rows"] == 30


def test_head_fits_into_the_atomic_writer(data: Dataset, embed: Embed, tmp_path: Path) -> None:
    manifest = write_bundle(
        tmp_path / "tickets",
        lambda folder: train_classifier(data, embed=embed, base=BASE, name="tickets", out=folder),
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
    _, report = train(twice, tmp_path / "out", counted)
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted(set(data.texts))
    assert report.accuracy > 0.8


@pytest.mark.parametrize("rows", [9, 12, 30])
def test_head_trains_on_few_rows(
    dataset: Callable[..., Dataset], embed: Embed, tmp_path: Path, rows: int
) -> None:
    manifest, report = train(dataset(rows), tmp_path / "out", embed)
    assert report.n >= 3
    assert manifest.train_rows >= 6
    bundle = Bundle.load(tmp_path / "out")
    _, confidence = bundle.heads[0].rank(embed(["refund invoice charge"]), top_k=1)
    # So few rows can never vouch for certainty.
    assert confidence.max() < 1 - 1e-3


def test_head_of_public_messages(shared_data: Path, embed: Embed, tmp_path: Path) -> None:
    data = read(shared_data / "sms_spam.train.jsonl").take(range(800))
    test = read(shared_data / "sms_spam.test.jsonl").take(range(500))
    _, report = train(data, tmp_path / "out", embed, test=test)
    # Always `ham` would be right for 87 %.
    assert report.accuracy > 0.9
    assert report.ece < 2 * report.ece_noise
    assert report.intervals["accuracy"][0] < report.accuracy < report.intervals["accuracy"][1]


# -- what is refused -------------------------------------------------------------------------


def test_head_unknown_labels_of_test_rows_are_named_before_any_work(
    data: Dataset, tmp_path: Path
) -> None:
    test = Dataset(("a", "b"), ("billing", "praise"), (1, 2), "test.csv")

    def never(texts: Sequence[str]) -> FloatArray:
        raise AssertionError("embedded for nothing")

    with pytest.raises(DataError) as caught:
        train(data, tmp_path / "out", never, test=test)
    assert (caught.value.path, caught.value.line) == ("test.csv", 2)
    assert "known labels: 'billing', 'delivery', 'technical'" in caught.value.message


def test_head_unknown_labels_of_evaluated_rows_are_named(
    trained: tuple[Path, BundleManifest, Report], embed: Embed
) -> None:
    data = Dataset(("a",), ("Billing",), (7,), "rows.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: label: unknown"):
        evaluate_bundle(Bundle.load(trained[0]), data, embed=embed)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "Tickets"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"seed": -1}, "seed"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_head_refuses_arguments_out_of_range(
    data: Dataset, embed: Embed, tmp_path: Path, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        train_classifier(
            data, **{"embed": embed, "base": BASE, "name": "n", "out": tmp_path, **arguments}
        )
    assert caught.value.field == field


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
