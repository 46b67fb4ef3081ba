from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sprat.benchmarks import ceiling
from sprat.benchmarks.ceiling import Ceiling
from sprat.manifest import MODEL_MANIFEST, ModelManifest, read
from sprat.values import IntArray

LENGTHS = (3, 9, 5, 9, 2)


def rows() -> list[IntArray]:
    generator = np.random.default_rng(0)
    return [generator.integers(1000, 2000, size, np.int32) for size in LENGTHS]


@pytest.fixture(scope="module")
def forward(minilm: Path) -> Ceiling:
    manifest = read(minilm / MODEL_MANIFEST, ModelManifest)
    return Ceiling(minilm / manifest.weights, threads=2)


def test_ceiling_orders_rows_by_length() -> None:
    assert [len(row) for row in ceiling.by_length(rows())] == [9, 9, 5, 3, 2]


def test_ceiling_batches_hold_every_row_once() -> None:
    made = ceiling.batches(rows(), 2)
    assert [np.asarray(batch.ids).shape for batch in made] == [(2, 9), (2, 9), (1, 2)]
    assert np.concatenate([np.asarray(batch.lengths) for batch in made]).tolist() == list(LENGTHS)
    first = np.asarray(made[0].ids)[0]
    assert first[:3].tolist() == rows()[0].tolist()
    assert not first[3:].any()


def test_ceiling_computes_normalized_vectors(forward: Ceiling) -> None:
    vectors = forward.vectors(rows())
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_ceiling_measures_time_and_cpu(forward: Ceiling) -> None:
    work = ceiling.batches(rows() * 8, 4)
    done = forward.throughput(work)
    assert done.seconds > 0
    assert done.cpu_s > 0
    for threads in (1, 2):
        latencies = forward.latencies_ms(ceiling.batches(rows(), 1), threads=threads)
        assert len(latencies) == 5
        assert min(latencies) > 0
