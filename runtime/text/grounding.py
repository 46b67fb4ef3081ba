"""Where in a text the strings and numbers stand that were extracted from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain

Span = tuple[int, int]

_WORD = re.compile(r"\S+")


class Grounder:
    r"""Finds values in one text; values that come again stand at its next occurrence.

    Parameters
    ----------
    text : str
        What they were extracted from.

    Examples
    --------
    >>> grounder = Grounder("Anna and\n anna  MARIA Schulz")
    >>> grounder.string("Anna"), grounder.string("Anna"), grounder.string("Maria Schulz")
    ((0, 4), (10, 14), (16, 28))
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._taken: set[Span] = set()

    def string(self, value: str) -> Span | None:
        """Characters of the text where a string stands; None where it does not.

        As it is, or up to case (Unicode's full case folding) and white space: any run of it equals
        any other, and none is needed at the ends. Of several places, one between the edges of words
        goes before one inside of a word, then one that was not found yet before one that was, then
        one with the string as it is. A blank string stands nowhere.
        """
        if not value.strip():
            return None
        return self._best(chain(self._exact(value), self._folded(value)))

    def number(self, literal: str) -> Span | None:
        """Characters of the text where a number stands, digit by digit; not inside of another."""
        escaped = re.escape(literal)
        sign = r"(?<!\w)" if literal.startswith("-") else ""
        pattern = re.compile(rf"{sign}(?<!\d)(?<!\d[.,]){escaped}(?![.,]?\d)")
        return self._best(match.span() for match in pattern.finditer(self._text))

    def _best(self, spans: Iterable[Span]) -> Span | None:
        found: dict[tuple[bool, bool], Span] = {}
        for span in spans:
            rank = (not self._ends_words(span), span in self._taken)
            if rank[1]:  # the last one: values that follow each other do so in the text
                found[rank] = span
            else:
                found.setdefault(rank, span)
            if rank == (False, False):
                break
        if not found:
            return None
        best = found[min(found)]
        self._taken.add(best)
        return best

    def _ends_words(self, span: Span) -> bool:
        return not any(
            0 < at < len(self._text) and self._text[at - 1].isalnum() and self._text[at].isalnum()
            for at in span
        )

    def _exact(self, value: str) -> Iterator[Span]:
        at = self._text.find(value)
        while at >= 0:
            yield at, at + len(value)
            at = self._text.find(value, at + 1)

    def _folded(self, value: str) -> Iterator[Span]:
        text, origins = self._fold
        wanted = " ".join(value.split()).casefold()
        at = text.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            # A character may fold to several; half of one is none.
            if (not at or origins[at - 1] < origins[at]) and origins[end - 1] < origins[end]:
                yield origins[at], origins[end - 1] + 1
            at = text.find(wanted, at + 1)

    @cached_property
    def _fold(self) -> tuple[str, list[int]]:
        """The folded text, and which character of the text each of it comes from, and the end."""
        pieces: list[str] = []
        origins: list[int] = []
        for match in _WORD.finditer(self._text):
            if pieces:
                pieces.append(" ")
                origins.append(match.start() - 1)
            folded = match[0].casefold()
            pieces.append(folded)
            if len(folded) == len(match[0]):
                origins.extend(range(match.start(), match.end()))
            else:
                for at, character in enumerate(match[0], match.start()):
                    origins.extend([at] * len(character.casefold()))
        return "".join(pieces), [*origins, len(self._text)]
