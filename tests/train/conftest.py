"""Labelled rows, and sentence vectors that need no model: word counts, randomly projected."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from topics import TOPICS

from sprat.train.data import Dataset
from sprat.train.head import Embed
from sprat.values import FloatArray

DIMENSION = 256

COMMON = "please the my was again about help today with and still order account since why"


def embed_words(texts: Sequence[str]) -> FloatArray:
    """float32[N, 256]: L2-normalized sums of one fixed random vector a word."""
    vectors = np.zeros((len(texts), DIMENSION), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            rng = np.random.default_rng(zlib.crc32(word.encode()))
            vector += rng.standard_normal(DIMENSION, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_dataset(rows: int, *, seed: int = 0, topics: Sequence[str] = tuple(TOPICS)) -> Dataset:
    """Rows of three topics whose words sometimes stray into each other."""
    rng = random.Random(seed)
    texts, labels = [], []
    for number in range(rows):
        label = topics[number % len(topics)]
        source = label if rng.random() < 0.85 else rng.choice(topics)
        words = rng.choices(COMMON.split(), k=5) + rng.choices(TOPICS[source].split(), k=2)
        rng.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return Dataset(tuple(texts), tuple(labels), tuple(range(1, rows + 1)), "tickets.jsonl")


@pytest.fixture(scope="session")
def embed() -> Callable[[Sequence[str]], FloatArray]:
    return embed_words


@pytest.fixture(scope="session")
def dataset() -> Callable[..., Dataset]:
    return make_dataset


@pytest.fixture(scope="session")
def embeds(embed: Embed) -> dict[str, Embed]:
    """A cheap model that sees a text coarsely, and a dear one."""

    def coarse(texts: Sequence[str]) -> FloatArray:
        short = np.ascontiguousarray(embed(texts)[:, :64])
        return short / np.linalg.norm(short, axis=1, keepdims=True)

    def fine(texts: Sequence[str]) -> FloatArray:
        for _ in range(4):
            vectors = embed(texts)
        return vectors

    return {"coarse": coarse, "fine": fine}
