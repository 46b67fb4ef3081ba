"""What an extract task needs of a tier: a tagger, a language model, another machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sprat.scheduler import Mailbox
from sprat.tasks.tier import AnyTier, Heard, Whole
from sprat.values import Degraded, Extraction, LongInput, TierAnswer


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Extracted(Whole[Extraction]):
    """What a tier of an extract task says of N texts.

    Attributes
    ----------
    is_sound : list of bool
        Of each answer: whether it is one at all. What a model wrote may not come to an end, not be
        what was asked for, or say what does not stand in the text. A tier is never sure of that.
    """

    is_sound: list[bool]

    def label(self, row: int) -> str:
        """None: a value is no word."""
        return ""

    def is_sure(self, row: int, least: float) -> bool:
        """Whether an answer is sound, with this confidence or without any calibration."""
        return self.is_sound[row] and Heard.is_sure(self, row, least)

    def withheld(self, own: Extraction) -> Extraction:
        """Without its value."""
        return replace(own, value=None, json="")

    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Extraction:
        """An answer as callers see it: one that is not sound is withheld in any case."""
        return Whole.answer(
            self,
            row,
            abstained=abstained or not self.is_sound[row],
            tier=tier,
            degraded=degraded,
            tiers=tiers,
        )


class ExtractTier(AnyTier, Protocol):
    """A tier of an extract task: a tagger, a language model, another machine."""

    async def judge(
        self,
        texts: Sequence[str],
        *,
        requested: Sequence[str],
        long_input: LongInput,
        partial: bool,
        deadline: float,
        mailbox: Mailbox,
    ) -> Extracted:
        """Find the fields of each text. Its confidence is that all are right and none is missing.

        Parameters
        ----------
        requested : sequence of str
            Fields that the texts were asked for. A hint that taggers learn; who is asked in words
            is asked for all fields.
        long_input : {"refuse", "chunk"}
            What happens to a text of more tokens than the tier takes.

        See `sprat.tasks.tier.Tier.judge` for the others and for what is raised.
        """
        ...
