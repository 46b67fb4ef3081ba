"""Messages with categories, which words alone tell apart."""

from __future__ import annotations

import random

import numpy as np

from sprat.train.categories import CategoryData
from sprat.train.features import Compute
from sprat.train.head import Embed

WORDS = {
    "insult": "fool idiot stupid ugly loser",
    "threat": "hurt burn break punish regret",
    "": "garden river weather dinner walk music morning friend lovely train",
}


def messages(rows: int, *, seed: int = 0, shouted: bool = False) -> CategoryData:
    """Insults, threats, both, and clean texts; loud ones where letters are what tells."""
    rng = random.Random(seed)
    texts, categories = [], []
    for number in range(rows):
        found = tuple(name for name, every in (("insult", 3), ("threat", 5)) if number % every == 0)
        words = rng.sample(WORDS[""].split(), 5)
        if not shouted:
            words += [word for name in found for word in rng.sample(WORDS[name].split(), 2)]
        rng.shuffle(words)
        text = " ".join([*words, str(number)])
        texts.append(text.upper() if shouted and "insult" in found else text)
        categories.append(found)
    return CategoryData(tuple(texts), tuple(categories), tuple(range(1, rows + 1)), "rows.jsonl")


def uncut(embed: Embed) -> Compute:
    """Vectors by a model that no text is too long for."""
    return lambda texts: (embed(texts), np.zeros(len(texts), np.int32))
