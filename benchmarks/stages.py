"""What each stage of a Classify call costs in this process, with our kernels and without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import ctranslate2
import numpy as np

from sprat import codec, measure
from sprat.benchmarks import answers, contest, without_kernels
from sprat.benchmarks.harness import Cell, Context
from sprat.kernels import classify_head, pack, pool
from sprat.manifest import ModelManifest
from sprat.tokenizer import Tokenizer
from sprat.values import ClassifyResult, IntArray

SIZES = (1, 64)
"""Texts a call."""

LABELS = 6
TEMPERATURE = 0.5

METHOD = (
    "Stages: one batch of the texts of a call, forward pass on one thread; before: tokenizers, "
    "numpy for the rest; microseconds a call."
)

COLUMNS = (
    "stage",
    *(
        f"{size} text{'s' if size > 1 else ''} a call, {when}"
        for size in SIZES
        for when in ("before", "share", "after", "share")
    ),
)

Costs = Mapping[str, Mapping[str, float]]
"""Microseconds by stage, and in that by ``1 before``, ``1 after``, ``64 before`` and so on."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what was called before there were kernels, and what is called now."""

    name: str
    before: Callable[[], object]
    after: Callable[[], object]


def run(
    context: Context, manifest: ModelManifest, folder: Path, texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Time every stage of calls of one and of many texts, in rounds."""
    costs: dict[str, dict[str, float]] = {}
    sample_s = contest.sample_seconds(context)
    for size in SIZES:
        for stage in _stages(manifest, folder, texts[:size]):
            # What did not change is timed once.
            calls = list(dict.fromkeys((stage.before, stage.after)))
            rounds = [
                [contest.microseconds(call, sample_s) for call in calls]
                for _ in range(context.rounds)
            ]
            medians = [measure.median(column) for column in zip(*rounds, strict=True)]
            before, after = medians[0], medians[-1]
            costs.setdefault(stage.name, {}).update(
                {f"{size} before": before, f"{size} after": after}
            )
    return costs


def rows(costs: Costs) -> tuple[tuple[Cell, ...], ...]:
    """The table of costs, with their sum as the last row."""
    cases = [f"{size} {when}" for size in SIZES for when in ("before", "after")]
    totals = {case: sum(stage[case] for stage in costs.values()) for case in cases}
    made: list[tuple[Cell, ...]] = []
    for name, stage in {**costs, "sum": totals}.items():
        cells: list[Cell] = [name]
        for case in cases:
            cells += [stage[case], f"{stage[case] / totals[case]:.1%}"]
        made.append(tuple(cells))
    return tuple(made)


def _stages(manifest: ModelManifest, folder: Path, texts: Sequence[str]) -> list[Stage]:
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(path)
    library = without_kernels.library_tokenizer(path)
    vocabulary_size = library.get_vocab_size()
    rows = without_kernels.encode(library, texts)
    ids_bt, lengths_b = without_kernels.pack(rows)
    encoder = ctranslate2.Encoder(str(folder / manifest.weights), inter_threads=1, intra_threads=1)

    def forward() -> ctranslate2.StorageView:
        view = ctranslate2.StorageView.from_array
        return encoder.forward_batch(view(ids_bt), view(lengths_b)).last_hidden_state

    output = forward()
    hidden_bth = np.array(output)
    generator = np.random.default_rng(0)
    weight_kh = generator.normal(size=(LABELS, hidden_bth.shape[2])).astype(np.float32)
    head = (pool(hidden_bth, lengths_b, "mean"), weight_kh, np.zeros(LABELS, np.float32))
    result = answers.typical(len(texts), labels=LABELS)
    answer = partial(_answer, result)
    return [
        Stage(
            "tokenize",
            partial(without_kernels.encode, library, texts),
            partial(tokenizer.encode_batch, texts),
        ),
        Stage(
            "pack",
            partial(without_kernels.pack, rows),
            partial(_pack, rows, vocabulary_size),
        ),
        Stage("forward pass", forward, forward),
        Stage(
            "pool",
            partial(without_kernels.pool, hidden_bth, lengths_b),
            partial(pool, hidden_bth, lengths_b, "mean"),
        ),
        Stage(
            "head, softmax, labels in order",
            partial(without_kernels.classify_head, *head, TEMPERATURE),
            partial(classify_head, *head, TEMPERATURE, LABELS),
        ),
        Stage("answer as bytes", answer, answer),
    ]


def _pack(rows: Sequence[IntArray], vocabulary_size: int) -> object:
    """As `sprat.engine.ct2` calls the kernel."""
    offsets = np.array([0, *accumulate(map(len, rows))], np.int64)
    return pack(np.concatenate(rows), offsets, vocabulary_size)


def _answer(result: ClassifyResult) -> bytes:
    return codec.classify_response(result).SerializeToString()
