"""Static models in process: from texts to vectors, beside the model2vec library on the same table.

Two tables: the library's own form of int8, rows alone, on which it is fastest; and ours, with a
scale for each row, which it reads as well. Vectors are compared before anything is timed, and both
sides run on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import model2vec
import numpy as np
from model2vec.model import quantize_model

from sprat import static_table
from sprat.benchmarks import bundle, contest, data
from sprat.benchmarks.contest import Contest
from sprat.benchmarks.harness import Context, Figure, Outcome, figure
from sprat.build_static import distilled
from sprat.engine.static import StaticEncoder
from sprat.head import Head
from sprat.pull import pull

DIMENSION = 256
"""The library's default."""
MODEL = f"{bundle.ENCODER}-static-{DIMENSION}"
TEXTS = 3080
SINGLES = 64
LABELS = 77
RATE = 150_000
TIMES = 6.0


def run(context: Context) -> Outcome:
    """Check and time every contest, then what one thread does alone."""
    source = data.load(context.checkout)
    texts = list(source.exactly(64 if context.quick else TEXTS))
    encoder = pull(bundle.ENCODER, context.store)
    context.say(f"distil {encoder.name}")
    distilled(encoder.name, MODEL, context.store, dimension=DIMENSION)
    _, folder = context.store.model(MODEL, check=True)
    with TemporaryDirectory() as scratch:
        plain = _without_weights(folder, Path(scratch))
        standings = contest.run(
            context,
            [
                *_contests("rows alone", "static", plain, texts, at_least=TIMES),
                *_contests("a scale a row", "static_scaled", folder, texts, at_least=None),
            ],
        )
        rates = _rates(context, StaticEncoder(folder), texts)
    return Outcome(
        parameters={
            "texts": source.source,
            "text_count": len(texts),
            "dimension": DIMENSION,
            "labels": LABELS,
            "rounds": context.rounds,
        },
        method=(
            f"{source.source} texts, {MODEL} in int8, {DIMENSION} dimensions: tokenizing, mean and "
            "norm. One thread on both sides, the same files, vectors compared first. Left out: "
            "reading the model, checking requests, gRPC. Median of rounds, each ratio within one "
            "round."
        ),
        figures=(*rates, *(standing.ratio for standing in standings)),
        raw={
            "microseconds": {
                standing.contest.name: {
                    "ours": standing.ours_us,
                    standing.contest.competitor: standing.theirs_us,
                }
                for standing in standings
            }
        },
    )


def _without_weights(folder: Path, scratch: Path) -> Path:
    """The same model in the library's own form of int8: one scale for all, and left out."""
    table = static_table.read(folder)
    assert table.weights is not None
    library = model2vec.StaticModel.from_pretrained(folder)
    wide = model2vec.StaticModel(
        (table.values * table.weights[:, None]).astype(np.float32),
        library.tokenizer,
        normalize=True,
    )
    quantize_model(wide, quantize_to="int8").save_pretrained(scratch)
    return scratch


def _contests(
    title: str, name: str, folder: Path, texts: Sequence[str], *, at_least: float | None
) -> list[Contest]:
    ours = StaticEncoder(folder)
    theirs = model2vec.StaticModel.from_pretrained(folder)
    singles = [[text] for text in texts[:SINGLES]]

    def check() -> None:
        np.testing.assert_allclose(ours.encode(texts).vectors, theirs.encode(texts), atol=1e-5)

    def one_by_one(encode: Callable[[Sequence[str]], object]) -> None:
        for single in singles:
            encode(single)

    return [
        Contest(
            name,
            f"static model, {title}, many texts a call",
            "model2vec",
            partial(ours.encode, texts),
            partial(theirs.encode, texts),
            check,
            at_least=at_least,
        ),
        Contest(
            f"{name}_single",
            f"static model, {title}, one text a call",
            "model2vec",
            partial(one_by_one, ours.encode),
            partial(one_by_one, theirs.encode),
            check,
        ),
    ]


def _rates(context: Context, encoder: StaticEncoder, texts: Sequence[str]) -> list[Figure]:
    draw = np.random.default_rng(0)
    head = Head(
        draw.normal(size=(LABELS, encoder.dimension)).astype(np.float32),
        np.zeros(LABELS, np.float32),
    )

    def classify() -> None:
        head.rank(encoder.encode(texts).vectors, 1)

    def rounds(call: Callable[[], object]) -> list[float]:
        sample_s = contest.sample_seconds(context)
        return [
            len(texts) / contest.microseconds(call, sample_s) * 1e6 for _ in range(context.rounds)
        ]

    return [
        figure(
            "static_rate",
            "static model, one thread",
            "texts/s",
            rounds(partial(encoder.encode, texts)),
            at_least=RATE,
        ),
        figure(
            "static_head_rate",
            f"static model and a head of {LABELS} labels, one thread",
            "texts/s",
            rounds(classify),
        ),
    ]
