"""Vectors of the windows of long texts, cut as a server cuts them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from sprat.text.windows import halved, windows
from sprat.tokenizer import is_visible
from sprat.train.features import Compute
from sprat.values import FloatArray

OpenCompute = Callable[[str], AbstractContextManager[Compute]]
"""Loads a model of the store by name, for as long as its vectors are asked for."""


class WindowVectors:
    """Vectors of texts and windows by one model; each different one is computed once.

    Parameters
    ----------
    compute : callable
        Cuts what has more tokens than the model takes, and says how many it dropped.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._numbers: dict[str, int] = {}
        self._vectors: list[FloatArray] = []
        self._is_cut: list[bool] = []

    def add(self, texts: Sequence[str]) -> None:
        """Compute what is not there yet."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._numbers]
        if not missing:
            return
        vectors, dropped = self._compute(missing)
        self._numbers.update(zip(missing, itertools.count(len(self._numbers))))
        self._vectors.extend(vectors)
        self._is_cut.extend((dropped > 0).tolist())

    def is_cut(self, text: str) -> bool:
        """Whether a text that is there has more tokens than the model takes."""
        return self._is_cut[self._numbers[text]]

    def of(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts that are there: float32[N, D]."""
        return np.stack([self._vectors[self._numbers[text]] for text in texts])

    def windows(
        self, texts: Sequence[str], room: int, overlap: int
    ) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Windows of N texts; those of too many tokens are halved until they fit.

        Parameters
        ----------
        texts : sequence of str
            Each has something to see.
        room, overlap : int
            See `sprat.text.windows.windows`.

        Returns
        -------
        list of str
            All windows; their vectors are there.
        int64[N]
            Where those of each text begin.
        """
        fitting: list[list[str]] = [[] for _ in texts]
        waiting = [
            (at, window)
            for at, text in enumerate(texts)
            for window in _visible(text, room, overlap)
        ]
        while waiting:
            self.add([window for _, window in waiting])
            halves = []
            for at, window in waiting:
                if len(window) > 1 and self.is_cut(window):
                    halves += [(at, half) for half in _visible(window, *halved(len(window)))]
                else:
                    fitting[at].append(window)
            waiting = halves
        starts = np.cumsum([0, *map(len, fitting[:-1])]).astype(np.int64)
        return list(itertools.chain.from_iterable(fitting)), starts


def _visible(text: str, room: int, overlap: int) -> list[str]:
    """The windows of a text with something to see; the server scores no others."""
    parts = (text[start:end] for start, end in windows(text, room, overlap))
    return [part for part in parts if is_visible(part)]
