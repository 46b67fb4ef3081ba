"""Visitors with their names, for extract tasks of one field that a small model can read."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sprat.train.spans import GoldSpan, SpanDataset

NAMES = ("Ada", "Bella", "Carlos", "Dora", "Elsa", "Fritz", "Gerda", "Hugo", "Ines", "Jana", "Karl")
HEADS = ("my name is", "hello, this is", "I am")


def make_visitors(
    rows: int,
    *,
    seed: int = 0,
    names: Sequence[str] = NAMES,
    hard: float = 0.0,
    path: str = "visitors.jsonl",
) -> SpanDataset:
    """One of the names in each text but every fourth; no two texts are alike.

    A share of the others are hard: there are two names, and nobody can tell from the text which one
    counts.
    """
    rng = random.Random(seed)
    made: dict[str, tuple[GoldSpan, ...]] = {}
    while len(made) < rows:
        hour = f"{rng.randint(1, 12)}:{rng.randint(10, 59)}"
        name, other = rng.sample(names, 2)
        said = name
        if rng.random() < hard:
            said = " or ".join(rng.sample((name, other), 2))
        text, found = f"{rng.choice(HEADS)} {said}, see you at {hour}", (name,)
        if len(made) % 4 == 3:
            text, found = f"are you open at {hour}?", ()
        places = [(text.index(word), len(word)) for word in found]
        spans = (GoldSpan(start, start + length, "name") for start, length in places)
        made.setdefault(text, tuple(spans))
    empty: tuple[str, ...] = ()
    lines = tuple(range(1, rows + 1))
    return SpanDataset(tuple(made), tuple(made.values()), (empty,) * rows, lines, path)
