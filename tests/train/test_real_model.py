"""The whole way with a real encoder: few examples of public data, figures on their test rows."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprat.bundle import Bundle
from sprat.errors import StaleBundle
from sprat.inprocess import Runtime
from sprat.manifest import MODEL_MANIFEST, ModelManifest, ModelRef
from sprat.manifest import read as read_manifest
from sprat.store import Store
from sprat.train.assess import assess
from sprat.train.data import Dataset, read
from sprat.train.head import Trained, train_classifier, train_tier
from sprat.train.prepare import prepare
from sprat.values import FloatArray

SHOTS = 10

Embed = Callable[[Sequence[str]], FloatArray]


@pytest.fixture(scope="module")
def base(minilm: Path) -> ModelManifest:
    return read_manifest(minilm / MODEL_MANIFEST, ModelManifest)


@pytest.fixture(scope="module")
def runtime(base: ModelManifest, store: Store) -> Iterator[Runtime]:
    with Runtime(models=[base.name], store=store) as runtime:
        yield runtime


def few_of_each(data: Dataset, count: int) -> Dataset:
    """The first rows of each label."""
    seen: Counter[str] = Counter()
    rows = []
    for row, label in enumerate(data.labels):
        seen[label] += 1
        if seen[label] <= count:
            rows.append(row)
    return data.take(rows)


@pytest.fixture(scope="module")
def embed(runtime: Runtime, base: ModelManifest) -> Embed:
    def embed(texts: Sequence[str]) -> FloatArray:
        parts = [
            runtime.embed(base.name, texts[start : start + 256], truncation="truncate").vectors
            for start in range(0, len(texts), 256)
        ]
        return np.concatenate(parts)

    return embed


def train(
    data: Dataset, test: Dataset, embed: Embed, base: ModelManifest, out: Path, **options: Any
) -> Trained:
    model = ModelRef(name=base.name, digest=base.digest)
    tier = functools.partial(train_tier, name="head", base=model, embed=embed)
    prepared = prepare(data, test=test, conflicts="keep")
    return train_classifier(prepared, [tier], name="intents", out=out, **options)


def test_real_model_learns_77_intents_from_ten_examples_each(
    base: ModelManifest, embed: Embed, shared_data: Path, tmp_path: Path
) -> None:
    data = few_of_each(read(shared_data / "banking77.train.jsonl"), SHOTS)
    test = read(shared_data / "banking77.test.jsonl").take(range(0, 3080, 8))
    done = train(data, test, embed, base, tmp_path)
    manifest, report = done.manifest, done.record.evaluation
    assert (manifest.train_rows, report.n) == (77 * SHOTS, 385)
    assert report.accuracy > 0.80
    assert report.macro_f1 > 0.78
    # Out-of-fold heads have seen fewer rows than the final one: its confidences are cautious.
    assert report.ece < 2 * report.ece_noise
    assert manifest.tiers[0].calibration is not None
    assert manifest.tiers[0].calibration.temperature < 1
    bundle = Bundle.load(tmp_path, bases={base.name: base})
    again = assess(bundle, test, embed=embed).report
    # Vectors depend a little on what shares their batch.
    assert again.accuracy == pytest.approx(report.accuracy, abs=0.01)
    assert again.nll == pytest.approx(report.nll, abs=0.01)
    other = base.model_copy(update={"files": base.files[1:]})
    with pytest.raises(StaleBundle):
        Bundle.load(tmp_path, bases={base.name: other})


def test_real_model_finds_flipped_labels_and_says_that_more_rows_would_help(
    base: ModelManifest, embed: Embed, shared_data: Path, tmp_path: Path
) -> None:
    """5 % of the labels of public questions are exchanged: half of them in the first decile."""
    whole = read(shared_data / "banking77.train.jsonl")
    names = sorted(set(whole.labels))[:20]
    rows = [row for row, label in enumerate(whole.labels) if label in names]
    data = few_of_each(whole.take(rows), 40)
    rng = random.Random(0)
    flipped = set(rng.sample(range(len(data)), len(data) // 20))
    labels = [
        rng.choice([name for name in names if name != label]) if row in flipped else label
        for row, label in enumerate(data.labels)
    ]
    wrong = Dataset(data.texts, tuple(labels), data.lines, data.path)
    every_test = read(shared_data / "banking77.test.jsonl")
    test = every_test.take(row for row, label in enumerate(every_test.labels) if label in names)
    done = train(wrong, test, embed, base, tmp_path, with_learning_curve=True)
    lines = {data.lines[row] for row in flipped}
    first = [suspect.line for suspect in done.suspects[: len(data) // 10]]
    assert len(lines & set(first)) >= len(lines) / 2
    # Most of what is suspected at all was exchanged.
    assert len(lines & {s.line for s in done.suspects}) >= len(done.suspects) / 2
    curve = done.record.learning_curve
    assert curve is not None
    assert done.record.confusing_pairs
    # What half of the rows let expect of all of them comes true.
    (tmp_path / "half").mkdir()
    half = train(
        few_of_each(wrong, 20), test, embed, base, tmp_path / "half", with_learning_curve=True
    ).record.learning_curve
    assert half is not None
    assert half.more_rows == curve.points[-1].rows
    assert half.gain.value > 0
    assert half.expected.value == pytest.approx(curve.points[-1].value, abs=0.03)
