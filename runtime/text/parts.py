"""Cutting a text that is too long for a model into parts that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sprat.kernels import chunk
from sprat.values import FloatArray, IntArray, TokenStates

MOST_OVERLAP = 64
"""Most tokens that neighbouring parts of a long text share."""

_MOST_LETTERS = 64
"""How far ahead a token is looked for: more than any token has letters."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenParts:
    """The tokens of a text as an encoder reads them: in one part, or in several that overlap.

    Of a token in two parts, the state counts that has the most context.

    Attributes
    ----------
    ids : int32[T]
        Special tokens included, one at each end.
    spans : int32[T, 2]
        Start and end of each token in characters.
    parts : tuple of (int, int)
        First token of each part and the one past its last, special tokens not counted.
    """

    ids: IntArray
    spans: IntArray
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, text: str, ids: IntArray, spans: IntArray, limit: int) -> TokenParts:
        """Cut a text where it has more tokens than ``limit``, special tokens included."""
        room = limit - 2
        parts = [(0, len(ids) - 2)]
        if len(ids) > limit:
            parts = cut_tokens(text, spans[1:-1], room, min(MOST_OVERLAP, room // 4))
        return cls(ids, spans, tuple(parts))

    @property
    def rows(self) -> list[IntArray]:
        """Ids of each part between the special tokens that stand at the ends of the text."""
        first, last = self.ids[:1], self.ids[-1:]
        body = self.ids[1:-1]
        return [np.concatenate((first, body[start:end], last)) for start, end in self.parts]

    @property
    def kept(self) -> list[tuple[int, int]]:
        """Of each part, the first token whose state counts and the one past the last."""
        edges = [0, *((e + s) // 2 for (_, e), (s, _) in pairwise(self.parts)), self.parts[-1][1]]
        return list(pairwise(edges))

    def join(self, states: Sequence[FloatArray]) -> TokenStates:
        """The states of all tokens, from those of the rows: float32[T_i, H] each."""
        whole = np.concatenate(
            [
                part[1 + low - start : 1 + high - start]
                for part, (start, _), (low, high) in zip(states, self.parts, self.kept, strict=True)
            ]
        )
        return TokenStates(self.ids[1:-1], self.spans[1:-1], whole, len(self.parts))


def cut(text: str, tokens: Sequence[str], room: int, overlap: int) -> list[tuple[int, int]]:
    """Parts of a text, of whole sentences and words where it goes: see `sprat.kernels.chunk`.

    Parameters
    ----------
    tokens : sequence of str
        Every token of the text as text. Tokens that stand for no whole characters are spread evenly
        over those that no other token stands for.
    room : int
        Most tokens of a part, from 1.
    overlap : int
        Most tokens that neighbours share, in [0, room - 1].

    Returns
    -------
    list of (int, int)
        Characters of the text, from the start of each part to before its end.
    """
    characters = chunk(text, _spans(text, tokens), room, overlap)[1]
    return [(start, end) for start, end in characters.tolist()]


def cut_tokens(text: str, spans: IntArray, room: int, overlap: int) -> list[tuple[int, int]]:
    """Parts of a text as `cut` makes them, by its tokens, where it is known where these stand.

    Parameters
    ----------
    spans : int32[N, 2]
        Start and end of each token in characters.
    room, overlap : int
        As in `cut`.

    Returns
    -------
    list of (int, int)
        First token of each part and the one past its last.
    """
    tokens = chunk(text, np.ascontiguousarray(spans), room, overlap)[0]
    return [(start, end) for start, end in tokens.tolist()]


def _spans(text: str, tokens: Sequence[str]) -> IntArray:
    """Characters of each token."""
    spans = np.zeros((len(tokens), 2), np.int32)
    at = lost = 0
    for index, token in enumerate(tokens):
        start = -1
        if token and "\ufffd" not in token:
            start = text.find(token, at, at + lost * _MOST_LETTERS + len(token))
            if start < 0 and token[0] == " ":  # put in front of a text by some tokenizers
                start = text.find(token[1:], at, at + lost * _MOST_LETTERS + len(token))
                token = token[1:]
        if start < 0:
            lost += 1
            continue
        _spread(spans[index - lost : index], at, start)
        at = start + len(token)
        spans[index] = start, at
        lost = 0
    _spread(spans[len(tokens) - lost :], at, len(text))
    return spans


def _spread(spans: IntArray, start: int, end: int) -> None:
    edges = np.linspace(start, end, len(spans) + 1).astype(np.int32)
    spans[:, 0] = edges[:-1]
    spans[:, 1] = edges[1:]
