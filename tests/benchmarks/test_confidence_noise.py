"""How far confidences move between batches: what is counted, and that it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sprat.benchmarks.confidence_noise import BANDS, INTENTS, _flips, measure
from sprat.train.data import Dataset


def test_confidence_noise_counts_what_is_accepted_in_one_batch_and_below_in_another() -> None:
    alone, other = np.array([0.0, 2.0]), np.array([-0.2, 2.0])
    # With 0.0 as the threshold, the first is at it alone, and below it in the other batch.
    assert _flips(alone, [other], 0.0).startswith(
        "of 4 answers near a threshold 3 are accepted in a batch, 1 of these (33.33%)"
    )
    assert "0 are accepted in a batch, 0 of these" in _flips(alone, [other], 0.1)
    # The other way round: what moved up is accepted there, and below alone.
    assert "1 of these" in _flips(np.array([1.0, 0.8]), [np.array([1.0, 1.1])], 0.05)


def test_confidence_noise_of_a_model(tiny: Path) -> None:
    texts = tuple(f"{name} {number}" for number in range(4) for name in INTENTS)
    rows = Dataset(texts, INTENTS * 4, tuple(range(1, len(texts) + 1)), "rows.jsonl")
    lines = measure(tiny, rows, orders=1)
    assert len(lines) == 1 + 2 * (1 + len(BANDS))
    assert "(median)" in lines[1]
