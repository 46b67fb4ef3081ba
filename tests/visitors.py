"""Visitors with their names, for extract tasks of one field that a small model can read."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sprat.train.spans import GoldSpan, SpanDataset

NAMES = ("Ada", "Bella", "Carlos", "Dora", "Elsa", "Fritz", "Gerda", "Hugo", "Ines", "Jana", "Karl")


def make_visitors(
    rows: int,
    *,
    seed: int = 0,
    names: Sequence[str] = NAMES,
    path: str = "visitors.jsonl",
) -> SpanDataset:
    """One of the names in each text but every fourth; no two texts are alike."""
    rng = random.Random(seed)
    made: dict[str, tuple[GoldSpan, ...]] = {}
    while len(made) < rows:
        hour, name = f"{rng.randint(1, 12)}:{rng.randint(10, 59)}", rng.choice(names)
        head = rng.choice(("my name is ", "hello, this is ", "I am "))
        text, spans = f"{head}{name}, see you at {hour}", (("name", name),)
        if len(made) % 4 == 3:
            text, spans = f"are you open at {hour}?", ()
        made.setdefault(
            text,
            tuple(
                GoldSpan(text.index(word), text.index(word) + len(word), field)
                for field, word in spans
            ),
        )
    empty: tuple[str, ...] = ()
    lines = tuple(range(1, rows + 1))
    return SpanDataset(tuple(made), tuple(made.values()), (empty,) * rows, lines, path)
