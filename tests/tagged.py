"""Bookings with spans, and token states that need no model: a fixed random vector a word."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence

import numpy as np

from sprat.train.spans import GoldSpan, SpanDataset
from sprat.values import TokenStates

DIMENSION = 32
WORD = re.compile(r"\w+|[^\w\s]")
NAMES = ("Ada", "Bea", "Cleo", "Dora", "Elsa", "Fritz", "Gerd", "Hugo", "Ines", "Jana", "Karl")


def read_words(texts: Sequence[str]) -> list[TokenStates]:
    """Words and marks as tokens; their states depend on nothing but the word."""
    made = []
    for text in texts:
        found = list(WORD.finditer(text))
        ids = [zlib.crc32(match[0].lower().encode()) % 30000 for match in found]
        states = [np.random.default_rng(each).standard_normal(DIMENSION) for each in ids]
        made.append(
            TokenStates(
                np.array(ids, np.int32),
                np.array([match.span() for match in found], np.int32).reshape(-1, 2),
                np.array(states, np.float32).reshape(-1, DIMENSION),
            )
        )
    return made


def make_bookings(rows: int, *, seed: int = 0, path: str = "bookings.jsonl") -> SpanDataset:
    """Tables for people at a time under a name; a lone number is whatever was asked for."""
    rng = random.Random(seed)
    texts, spans, requested = [], [], []
    for number in range(rows):
        size, hour, name = rng.randint(2, 12), rng.randint(1, 11), rng.choice(NAMES)
        kind = number % 5
        if kind == 0:
            parts = ["table for ", ("people", str(size)), " at ", ("time", f"{hour}:{30}")]
        elif kind == 1:
            parts = ["my name is ", ("name", name), ", see you at ", ("time", f"{hour} pm")]
        elif kind == 2:
            parts = [("people", str(size))]
        elif kind == 3:
            parts = (
                [("time", str(hour)), " please"] if rng.random() < 0.5 else [("time", str(hour))]
            )
        else:
            parts = [rng.choice(("thanks a lot", "hello there", "is it open?"))]
        text, found = "", []
        for part in parts:
            if isinstance(part, tuple):
                found.append(GoldSpan(len(text), len(text) + len(part[1]), part[0]))
                text += part[1]
            else:
                text += part
        texts.append(text)
        spans.append(tuple(found))
        requested.append(({2: ("people",), 3: ("time",)}).get(kind, ()))
    lines = tuple(range(1, rows + 1))
    return SpanDataset(tuple(texts), tuple(spans), tuple(requested), lines, path)
