"""Our kernels against what else computes the same, and what each stage of a Classify call costs.

Inputs are alike for both sides, results are compared before anything is timed, and both run on one
thread in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from model2vec import StaticModel

from sprat.benchmarks import (
    bundle,
    contest,
    data,
    kernels_logits,
    stages,
    without_kernels,
)
from sprat.benchmarks.contest import Contest
from sprat.benchmarks.harness import Context, Outcome, Table
from sprat.kernels import WordPiece, embedding_bag, pool, viterbi
from sprat.pull import pull
from sprat.values import FloatArray

TEXTS = 1024
SINGLES = 64
BAG_WIDTH = 256
POOL_SHAPE = (32, 128, 384)
TAGGED_ROWS, TAGGED_TOKENS, TAGS = 32, 128, 64


def run(context: Context) -> Outcome:
    """Check and time every contest, then the stages of a call."""
    source = data.load(context.checkout)
    texts = source.exactly(64 if context.quick else TEXTS)
    encoder = pull(bundle.ENCODER, context.store)
    folder = context.store.model(encoder.name)[1]
    standings = contest.run(
        context,
        [
            *_wordpiece(folder / "tokenizer.json", texts),
            *_pool(),
            _embedding_bag(folder / "tokenizer.json", texts),
            _viterbi(),
            *kernels_logits.contests(),
        ],
    )
    costs = stages.run(context, encoder, folder, texts)
    return Outcome(
        parameters={"texts": source.source, "text_count": len(texts), "rounds": context.rounds},
        method=(
            f"One thread on both sides, the same inputs, results compared first. {source.source} "
            f"texts for WordPiece and the embedding bag. {stages.METHOD} Median of rounds, each "
            "ratio within one round."
        ),
        figures=tuple(standing.ratio for standing in standings),
        table=Table(columns=stages.COLUMNS, rows=stages.rows(costs)),
        raw={
            "microseconds": {
                standing.contest.name: {
                    "ours": standing.ours_us,
                    standing.contest.competitor: standing.theirs_us,
                }
                for standing in standings
            },
            "stages_us": costs,
        },
    )


def _wordpiece(path: Path, texts: Sequence[str]) -> list[Contest]:
    ours = WordPiece.from_tokenizer_json(str(path))
    theirs = without_kernels.library_tokenizer(path)
    singles = [[text] for text in texts[:SINGLES]]

    def one_by_one() -> None:
        for single in singles:
            ours.encode_batch(single)

    def theirs_one_by_one() -> None:
        for (text,) in singles:
            theirs.encode(text)

    def check() -> None:
        got = ours.encode_batch(texts)
        expected = theirs.encode_batch(texts)
        assert got.ids.tolist() == [token for each in expected for token in each.ids]
        assert got.spans.tolist() == [list(span) for each in expected for span in each.offsets]

    return [
        Contest(
            "wordpiece_batch",
            "WordPiece, many texts a call",
            "tokenizers encode_batch",
            partial(ours.encode_batch, texts),
            partial(theirs.encode_batch, list(texts)),
            check,
            at_least=8,
        ),
        Contest(
            "wordpiece_single",
            f"WordPiece, one text a call, {len(singles)} texts",
            "tokenizers encode",
            one_by_one,
            theirs_one_by_one,
            check,
            at_least=8,
        ),
    ]


def _pool() -> list[Contest]:
    rows, tokens, width = POOL_SHAPE
    generator = np.random.default_rng(0)
    hidden_bth = generator.normal(size=POOL_SHAPE).astype(np.float32)
    lengths_b = np.full(rows, tokens, np.int32)
    flat = hidden_bth.ravel()
    ours = partial(pool, hidden_bth, lengths_b, "mean")

    def check() -> None:
        np.testing.assert_allclose(ours(), without_kernels.pool(hidden_bth, lengths_b), atol=1e-5)

    title = f"mean pooling and L2, [{rows}, {tokens}, {width}]"
    return [
        Contest(
            "pool",
            title,
            "numpy (mask, sum, divide)",
            ours,
            partial(without_kernels.pool, hidden_bth, lengths_b),
            check,
            at_least=3,
        ),
        Contest(
            "pool_memory",
            title,
            "one pass over the memory (numpy max)",
            ours,
            flat.max,
            check,
            at_most=1.5,
        ),
    ]


class _Tokenized(StaticModel):
    """A static model whose texts are tokens already."""

    def tokenize(self, sentences: Sequence[Any], max_length: int | None = None) -> list[list[int]]:
        return list(sentences)


def _embedding_bag(path: Path, texts: Sequence[str]) -> Contest:
    backend = without_kernels.library_tokenizer(path)
    rows = [each.ids for each in backend.encode_batch(list(texts), add_special_tokens=False)]
    generator = np.random.default_rng(0)
    table_vh = generator.integers(-127, 128, (backend.get_vocab_size(), BAG_WIDTH), np.int8)
    ids_n = np.array([token for row in rows for token in row], np.int32)
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    library = _Tokenized(table_vh, backend, normalize=True)
    ours = partial(embedding_bag, ids_n, offsets, table_vh)
    encode: Callable[[Any, bool], FloatArray] = library._encode_batch
    theirs = partial(encode, rows, True)

    def check() -> None:
        np.testing.assert_allclose(ours(), theirs(), atol=1e-5)

    return Contest(
        "embedding_bag",
        f"embedding bag, int8, {BAG_WIDTH} wide",
        "model2vec after tokenizing",
        ours,
        theirs,
        check,
        at_least=8,
    )


def _viterbi() -> Contest:
    generator = np.random.default_rng(0)
    shape = (TAGGED_ROWS, TAGGED_TOKENS, TAGS)
    emissions_btk = generator.normal(size=shape).astype(np.float32)
    transitions_kk = generator.normal(size=(TAGS, TAGS)).astype(np.float32)
    lengths_b = np.full(TAGGED_ROWS, TAGGED_TOKENS, np.int32)
    edge_k = np.zeros(TAGS, np.float32)
    ours = partial(viterbi, emissions_btk, lengths_b, transitions_kk, edge_k, edge_k)
    theirs = partial(without_kernels.viterbi, emissions_btk, transitions_kk)

    def check() -> None:
        np.testing.assert_array_equal(ours()[0], theirs())

    return Contest(
        "viterbi",
        f"Viterbi, {TAGS} tags, {TAGGED_TOKENS} tokens, {TAGGED_ROWS} rows",
        "numpy over rows and tags",
        ours,
        theirs,
        check,
        at_least=10,
    )
