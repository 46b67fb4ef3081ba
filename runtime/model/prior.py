"""Contextual calibration: what a model prefers whatever the text says, and how to take it out.

For options with probabilities ``p`` after a text, and ``q``, the mean of those after each of a few
texts that say nothing, the corrected probabilities are ``p / q``, divided by their sum (Zhao et
al., 2021, "Calibrate Before Use", with a diagonal matrix and no bias).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from sprat.engine.base import Choice
from sprat.values import FloatArray

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The texts that say nothing, those of the paper."""

MOST_KEPT = 1024
"""Most priors that are kept, each of a few bytes an option."""


def mean(found: Sequence[FloatArray]) -> FloatArray:
    """Mean of float32[K] probabilities, each after a text that says nothing."""
    mean: FloatArray = np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def corrected(probabilities: FloatArray, prior: FloatArray) -> FloatArray:
    """Probabilities, float32[K], after what the options have without a text is divided out."""
    least = np.finfo(np.float32).tiny
    shares = probabilities.astype(np.float64) / np.maximum(prior, least)
    corrected: FloatArray = (shares / shares.sum()).astype(np.float32)
    return corrected


def key(choice: Choice, prefix: bytes) -> tuple[object, ...]:
    """What a prior depends on: the same for all texts.

    Parameters
    ----------
    prefix : bytes
        Tokens of the prompt before the text.
    """
    cue = choice.prompt[choice.common :].tobytes() if choice.common else b""
    options = tuple(option.tobytes() for option in choice.options)
    return prefix, cue, options, choice.scoring, choice.normalize_length, choice.adapter


class Priors:
    """The priors that were used last. For one thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], FloatArray] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> FloatArray | None:
        """A prior that is kept; it counts as used now."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: tuple[object, ...], prior: FloatArray) -> None:
        """Keep a prior, and give up the one that was not used for longest where there are many."""
        self._kept[key] = prior
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
