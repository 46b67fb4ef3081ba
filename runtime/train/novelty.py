"""Texts that come one after another, and whether each says something new."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

SHINGLE = 4
"""Characters of a shingle."""
SIMILAR = 0.7
"""Two texts are near-duplicates from this share of common shingles on. Of short messages that is
one word put in, taken out or replaced."""


class Novelty:
    """Texts so far, and whether another one is none of them, nor nearly one.

    Texts are compared as sets of shingles (4 characters in a row) of their letters and digits
    without case, by the share of common ones (Broder, 1997: resemblance). The comparison is exact;
    an inverted index makes it fast enough for some ten thousand short texts.

    Parameters
    ----------
    similar : float
        In (0, 1]: from this resemblance on texts count as the same.
    """

    def __init__(self, similar: float = SIMILAR) -> None:
        self._similar = similar
        self._sizes: list[int] = []
        self._places: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Take a text in, unless it nearly is there; whether it was taken."""
        shingles = _shingles(text)
        common: Counter[int] = Counter()
        for shingle in shingles:
            common.update(self._places.get(shingle, ()))
        for place, count in common.items():
            if count >= self._similar * (len(shingles) + self._sizes[place] - count):
                return False
        for shingle in shingles:
            self._places[shingle].append(len(self._sizes))
        self._sizes.append(len(shingles))
        return True


def _shingles(text: str) -> set[str]:
    """Shingles of a text; a short text is one by itself."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if c.isalnum() else " " for c in folded).split()
    # Without letters and digits, what is there has to do.
    plain = " ".join(words) or " ".join(folded.split())
    return {plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1))}
