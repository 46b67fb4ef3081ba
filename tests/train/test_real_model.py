"""The whole way with a real encoder: few examples of public data, figures on their test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from sprat.bundle import Bundle
from sprat.errors import StaleBundle
from sprat.inprocess import Runtime
from sprat.manifest import MODEL_MANIFEST, ModelManifest, ModelRef
from sprat.manifest import read as read_manifest
from sprat.store import Store
from sprat.train.data import Dataset, read
from sprat.train.head import evaluate_bundle, train_classifier
from sprat.values import FloatArray

SHOTS = 10


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


def test_real_model_learns_77_intents_from_ten_examples_each(
    runtime: Runtime, base: ModelManifest, shared_data: Path, tmp_path: Path
) -> None:
    def embed(texts: Sequence[str]) -> FloatArray:
        parts = [
            runtime.embed(base.name, texts[start : start + 256], truncation="truncate").vectors
            for start in range(0, len(texts), 256)
        ]
        return np.concatenate(parts)

    train = few_of_each(read(shared_data / "banking77.train.jsonl"), SHOTS)
    test = read(shared_data / "banking77.test.jsonl").take(range(0, 3080, 8))
    manifest, report = train_classifier(
        train,
        embed=embed,
        base=ModelRef(name=base.name, digest=base.digest),
        name="intents",
        out=tmp_path,
        test=test,
    )
    assert (manifest.train_rows, report.n) == (77 * SHOTS, 385)
    assert report.accuracy > 0.80
    assert report.macro_f1 > 0.78
    # Out-of-fold heads have seen fewer rows than the final one: its confidences are cautious.
    assert report.ece < 2 * report.ece_noise
    bundle = Bundle.load(tmp_path, bases={base.name: base})
    assert bundle.heads[0].temperature < 1
    again = evaluate_bundle(bundle, test, embed=embed)
    # Vectors depend a little on what shares their batch.
    assert again.accuracy == pytest.approx(report.accuracy, abs=0.01)
    assert again.nll == pytest.approx(report.nll, abs=0.01)
    other = base.model_copy(update={"files": base.files[1:]})
    with pytest.raises(StaleBundle):
        Bundle.load(tmp_path, bases={base.name: other})
