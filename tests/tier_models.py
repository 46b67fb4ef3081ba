"""A model whose texts say how sure each tier of a cascade is, for cascades of any kind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sprat.errors import InputTooLong
from sprat.model.common import note
from sprat.values import ItemError, ModelInfo

LONG = "9"
"""Too long, in the place of how sure a tier is."""


class TierModel:
    """A word, then a number for each tier: ``b 0.4 0.9``.

    Parameters
    ----------
    place : int
        Of the tier, and of its number.

    Attributes
    ----------
    calls, deadlines : list
        Of every call.
    failure : Exception or None
        What calls raise.
    takes_s : float
        What a call takes.
    cancelled : int
        Calls that were cancelled meanwhile.
    """

    def __init__(self, place: int, engine: str, *, dimension: int) -> None:
        self.place = place
        self.info = ModelInfo(
            name=f"model-{place}",
            kind="encoder",
            engine=engine,
            version=str(place) * 12,
            architecture="bert",
            quantization="int8",
            tokenizer="none",
            max_tokens=16,
            dimension=dimension,
            licence="",
            size_bytes=1,
        )
        self.calls: list[list[str]] = []
        self.deadlines: list[float] = []
        self.failure: Exception | None = None
        self.takes_s = 0.0
        self.cancelled = 0

    async def begin(self, texts: Sequence[str], deadline: float) -> None:
        """Take a call, and the time for it, or fail."""
        self.calls.append(list(texts))
        self.deadlines.append(deadline)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure

    def read(
        self, index: int, text: str, errors: list[ItemError], partial: bool
    ) -> tuple[str, float] | None:
        """The word of a text, and how sure this tier is; None where it is too long for it."""
        word, *sure = text.split()
        if sure[self.place] != LONG:
            return word, float(sure[self.place])
        error = InputTooLong(field=f"texts[{index}]", tokens=99, limit=16)
        note(errors, index, error, partial)
        return None
