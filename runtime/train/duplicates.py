"""Texts that are nearly the same: edited copies, which make a test easier than it looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from sprat.train.split import text_key

NEAR = 0.8
"""Jaccard similarity from which texts count as nearly the same: a letter, a plural or a comma
apart, but not a word of a short sentence."""

GRAM = 4
"""Characters that are compared as one."""

MOST_CHARACTERS = 4096
"""Of a text, so many are compared, from its beginning."""

MOST_CANDIDATES = 1000
"""Texts that one is compared with at most. Where so many share rare grams with it, nearly all are
its near duplicates, and one of them is enough."""


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier text that a text nearly repeats.

    Attributes
    ----------
    row : int
        Index of the earlier text.
    similarity : float
        Jaccard similarity of their grams, from `NEAR` to 1.
    """

    row: int
    similarity: float


def near_duplicates(texts: Sequence[str], among: int) -> dict[int, Match]:
    """For each text the first training text found that it nearly repeats.

    Two texts are compared by the sets of their runs of four characters, after case, white space
    and Unicode form are evened out. Texts that are then the same do not count; see
    `sprat.train.split.same_texts` for these. Only texts that share one of their rarest grams can be
    that similar, which leaves few pairs to compare (prefix filter: Chaudhuri et al., 2006; Bayardo
    et al., 2007).

    Parameters
    ----------
    texts : sequence of str
        Training texts first, then those to test with.
    among : int
        How many of ``texts`` are training texts. Each of these is compared with those before it,
        each of the others with all of them.

    Returns
    -------
    dict of int to Match
        By the index of the text; texts without a near duplicate are absent.
    """
    keys = [text_key(text) for text in texts]
    grams_of = {key: _grams(key[:MOST_CHARACTERS]) for key in dict.fromkeys(keys)}
    counts = Counter(gram for grams in grams_of.values() for gram in grams)
    # Row and number of grams: texts of very different size cannot be that similar.
    rows_of_gram: dict[str, list[tuple[int, int]]] = {}
    seen: set[str] = set()
    found: dict[int, Match] = {}
    for row, key in enumerate(keys):
        grams = grams_of[key]
        # Texts of this similarity share one of so many of the rarest.
        rarest = sorted(grams, key=lambda gram: (counts[gram], gram))
        rarest = rarest[: len(grams) - ceil(NEAR * len(grams)) + 1]
        match = _first_match(key, rarest, rows_of_gram, keys, grams_of)
        if match is not None:
            found[row] = match
        if row < among and key not in seen:
            seen.add(key)
            for gram in rarest:
                rows_of_gram.setdefault(gram, []).append((row, len(grams)))
    return found


def _first_match(
    key: str,
    rarest: Sequence[str],
    rows_of_gram: dict[str, list[tuple[int, int]]],
    keys: Sequence[str],
    grams_of: dict[str, frozenset[str]],
) -> Match | None:
    grams = grams_of[key]
    size = len(grams)
    least, most = NEAR * size, size / NEAR
    compared: set[int] = set()
    for gram in rarest:
        for row, other_size in rows_of_gram.get(gram, ()):
            if not least <= other_size <= most or row in compared or keys[row] == key:
                continue
            if len(compared) == MOST_CANDIDATES:
                return None
            compared.add(row)
            shared = len(grams & grams_of[keys[row]])
            similarity = shared / (size + other_size - shared)
            if similarity >= NEAR:
                return Match(row, similarity)
    return None


def _grams(key: str) -> frozenset[str]:
    # The spaces let texts of one to three characters have a gram, and mark where words end.
    padded = f" {key} ".ljust(GRAM)
    return frozenset(padded[start : start + GRAM] for start in range(len(padded) - GRAM + 1))
