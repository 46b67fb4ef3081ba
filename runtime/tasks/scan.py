"""How a tier of a moderator reads texts of any length: window by window.

A text longer than a window is scanned in overlapping windows, and the highest probability among
them counts: nothing is cut off, and nothing hides behind a long preface. Windows of more tokens
than the model takes are halved until they fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sprat.errors import SpratError
from sprat.scheduler import ComputePool
from sprat.text.windows import halved, windows
from sprat.tokenizer import is_visible

INLINE_CHARACTERS = 2048
"""Texts up to this long together are worked on on the event loop, longer ones in the pool."""

Floats = npt.NDArray[np.float64]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters ``start`` to ``end`` of a text of the request."""

    text: int
    start: int
    end: int

    def cut(self, texts: Sequence[str], room: int, overlap: int) -> list[Piece]:
        """Windows of it that hold anything visible."""
        whole = texts[self.text][self.start : self.end]
        return [
            Piece(self.text, self.start + start, self.start + end)
            for start, end in windows(whole, room, overlap)
            if is_visible(whole[start:end])
        ]

    def trimmed(self, text: str) -> tuple[int, int]:
        """Its characters without the white space around them."""
        piece = text[self.start : self.end]
        start = self.start + len(piece) - len(piece.lstrip())
        return start, start + len(piece.strip())


Scores = dict[int, list[tuple[Piece, Floats]]]
"""By text: its pieces with the probability of each category, float64[K]."""


class Scan(ABC):
    """The scoring of one call's texts, with its counts and times.

    Parameters
    ----------
    texts : sequence of str
    model : str
        Name of the model that reads them.
    pool : ComputePool
        Where long texts are cut.
    wave : int
        Pieces that are read together.

    Attributes
    ----------
    failed : dict of int to SpratError
        Texts of which a piece could not be read; see `sprat.tasks.tier.Heard`.
    input_tokens, cpu_ns : list of int
        Of each text.
    tokenize_ns, queue_ns, infer_ns : int
        As in `sprat.values.Timings`.
    """

    def __init__(self, texts: Sequence[str], model: str, pool: ComputePool, *, wave: int) -> None:
        self.texts = texts
        self.failed: dict[int, SpratError] = {}
        self.input_tokens, self.cpu_ns = [0] * len(texts), [0] * len(texts)
        self.tokenize_ns = self.queue_ns = self.infer_ns = 0
        self._model = model
        self._pool = pool
        self._wave = wave

    async def windows(self, indices: Sequence[int], room: int, overlap: int) -> Scores:
        """Scores of the windows of texts, at least one for each that did not fail."""

        def cut() -> list[Piece]:
            whole = (Piece(index, 0, len(self.texts[index])) for index in indices)
            return [piece for each in whole for piece in each.cut(self.texts, room, overlap)]

        characters = sum(len(self.texts[index]) for index in indices)
        return await self.score(await self.compute(characters, cut))

    async def score(self, pieces: Sequence[Piece]) -> Scores:
        """Scores of pieces, or of parts of those that are too long."""
        waiting = deque(pieces)
        scores: Scores = {}
        while waiting:
            wave = [waiting.popleft() for _ in range(min(self._wave, len(waiting)))]
            parts = [self.texts[each.text][each.start : each.end] for each in wave]
            for piece, chances in zip(wave, await self.read(wave, parts), strict=True):
                if chances is not None:
                    scores.setdefault(piece.text, []).append((piece, chances))
                elif piece.text not in self.failed:
                    waiting.extend(piece.cut(self.texts, *halved(piece.end - piece.start)))
        return scores

    @abstractmethod
    async def read(self, pieces: Sequence[Piece], texts: Sequence[str]) -> list[Floats | None]:
        """Probabilities of the categories of each piece, float64[K], and count what it took.

        None of a piece that is too long, which is of two characters or more; and of one that could
        not be read, whose text is noted as ``failed``.
        """

    async def compute(self, characters: int, call: Callable[[], _Result]) -> _Result:
        """Run ``call``, which reads so many characters, on the event loop or in the pool."""
        if characters <= INLINE_CHARACTERS:
            return call()
        return await self._pool.run(self._model, call)


def highest(scores: Sequence[tuple[Piece, Floats]]) -> list[tuple[Piece, float]]:
    """For each category the piece that scored highest, the first of equal ones."""
    chances_wk = np.stack([chances for _, chances in scores])
    return [
        (scores[row][0], float(chances_wk[row, column]))
        for column, row in enumerate(chances_wk.argmax(axis=0).tolist())
    ]
