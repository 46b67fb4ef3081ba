"""Whether a server's answers are those of the same work in this process; asked before timing it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.benchmarks import bundle
from sprat.benchmarks.ceiling import Ceiling
from sprat.client import Client
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.values import (
    Classification,
    ClassifyResult,
    FloatArray,
    IntArray,
    LabelScore,
    Timings,
)

SINGLE_CALLS = 32
TOLERANCE = 1e-4
"""Most that a score, or an element of a vector of norm 1, may differ between equal batches."""


def check(
    client: Client,
    runtime: Runtime,
    forward: Ceiling,
    texts: Sequence[str],
    rows: Sequence[IntArray],
    *,
    texts_per_call: int,
) -> dict[str, float]:
    """Compare a server with a `Runtime`, and the runtime's vectors with CTranslate2's own.

    Calls of one text, then of many, one at a time: quantized weights make a result depend on the
    batch that a text happens to be in, so only equal batches have equal results.

    Parameters
    ----------
    client, runtime
        Both with the benchmark's encoder and task.
    texts, rows : sequence of str, sequence of int32[T_i]
        The same texts, as ids too.
    texts_per_call : int
        Of the large calls.

    Returns
    -------
    dict of str to float
        The largest differences.

    Raises
    ------
    SetupError
        When a label differs, or a number by more than `TOLERANCE`.
    """
    single = [[text] for text in texts[:SINGLE_CALLS]]
    starts = range(0, len(texts), texts_per_call)
    large = [texts[start : start + texts_per_call] for start in starts]
    largest = {"served_vectors": 0.0, "served_scores": 0.0, "ceiling_vectors": 0.0}

    def note(name: str, found: float) -> None:
        largest[name] = max(largest[name], found)

    vectors: list[FloatArray] = []
    for call in (*single, *large):
        here = runtime.embed(bundle.ENCODER, call).vectors
        vectors.append(here)
        note("served_vectors", _distance(here, client.embed(bundle.ENCODER, call).vectors))
        expected = runtime.classify(bundle.TASK, call).items
        found = client.classify(bundle.TASK, call).items
        for mine, other in zip(expected, found, strict=True):
            note("served_scores", _score_distance(mine, other))
    alone = np.concatenate(vectors[: len(single)])
    note("ceiling_vectors", _distance(alone, forward.vectors(rows[: len(single)])))
    for name, value in largest.items():
        if not value <= TOLERANCE:
            raise SetupError(f"{name}: differ by {value:.2g}, at most {TOLERANCE:g} is expected")
    return largest


def _distance(left: FloatArray, right: FloatArray) -> float:
    return float(np.abs(left - right).max())


def _score_distance(mine: Classification | None, other: Classification | None) -> float:
    """The largest difference between the scores of two answers, which must have one label."""
    if mine is None or other is None or mine.label != other.label:
        raise SetupError("a label of the server is not that of the runtime")
    scores = {each.label: each.score for each in other.scores}
    return max(abs(each.score - scores[each.label]) for each in mine.scores)


def typical(count: int, *, labels: int) -> ClassifyResult:
    """An answer of the size that a real one has, to the letter alike at every call."""
    scores = tuple(LabelScore(f"label-{index}", 1 / labels) for index in range(labels))
    item = Classification(scores[0].label, scores[0].score, scores, input_tokens=16)
    return ClassifyResult(
        items=(item,) * count,
        errors=(),
        model="minilm-l6",
        model_version="0" * 12,
        task_version="0" * 12,
        calibrated=True,
        timings=Timings(1, 1, 1, 1),
    )
