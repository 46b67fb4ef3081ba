"""What tiers of moderators have in common: from probabilities of categories to what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from sprat.bundle_manifest import Calibration, Thresholds
from sprat.calibration import chance_of_actions, confidences
from sprat.errors import EngineError, SpratError
from sprat.scheduler import Mailbox
from sprat.tasks.scan import Piece
from sprat.tasks.tier import AnyTier, Heard, Whole
from sprat.values import Action, CategoryScore, Degraded, ItemError, Moderation, TierAnswer

_SEVERITY: dict[Action, int] = {"allow": 0, "flag": 1, "block": 2}

_Tier = TypeVar("_Tier")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Moderated(Whole[Moderation]):
    """What a tier of a moderator says of N texts.

    Attributes
    ----------
    is_sound : list of bool
        Of each answer: whether it is one at all. What an endpoint wrote may be no list of the
        categories. A tier is never sure of that, and nothing is known of the categories.
    """

    is_sound: list[bool]

    def label(self, row: int) -> str:
        """The category that it would flag the text for; empty where the answer is none."""
        return (self.answers[row].category or "allow") if self.is_sound[row] else ""

    def is_sure(self, row: int, least: float) -> bool:
        """Whether an answer is sound, with this confidence or without any calibration."""
        return self.is_sound[row] and Heard.is_sure(self, row, least)

    def withheld(self, own: Moderation) -> Moderation:
        """What nobody is sure of is flagged."""
        return replace(own, action="flag", category="")

    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Moderation:
        """An answer as callers see it: one that is not sound is withheld in any case."""
        return Whole.answer(
            self,
            row,
            abstained=abstained or not self.is_sound[row],
            tier=tier,
            degraded=degraded,
            tiers=tiers,
        )

    @classmethod
    def of(
        cls,
        tier: ModerateTier,
        texts: Sequence[str],
        found: Mapping[int, Finding],
        *,
        calibration: Calibration | None,
        failed: Mapping[int, SpratError],
        errors: Sequence[ItemError],
        cpu_ns: list[int],
        tokenize_ns: int = 0,
        queue_ns: int = 0,
        infer_ns: int,
    ) -> Moderated:
        """What follows from what a tier found, by the index of each text.

        A text whose probabilities are no numbers is one that the tier failed on.
        """
        good = {index: each for index, each in found.items() if each.is_number}
        without = {
            index: EngineError(f"model {tier.identity.name} has no scores for texts[{index}]")
            for index in found.keys() - good.keys()
        }
        return cls(
            index=list(good),
            failed=dict(sorted({**failed, **without}.items())),
            confidence=_how_sure(list(good.values()), tier.thresholds, calibration),
            cpu_ns=cpu_ns,
            errors=errors,
            tokenize_ns=tokenize_ns,
            queue_ns=queue_ns,
            infer_ns=infer_ns,
            answers=[
                _moderation(texts[index], each, tier.labels, tier.thresholds)
                for index, each in good.items()
            ],
            is_sound=[each.is_sound for each in good.values()],
        )


class ModerateTier(AnyTier, Protocol):
    """A tier of a moderator: heads on vectors, a language model, another machine.

    Its confidence is that a text is flagged for the right categories.
    """

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """From which probabilities on it acts, one for each category."""
        ...

    def acting_at(self: _Tier, thresholds: tuple[Thresholds, ...]) -> _Tier:
        """The same with other thresholds, for which nothing was calibrated."""
        ...

    async def judge(
        self, texts: Sequence[str], *, partial: bool, deadline: float, mailbox: Mailbox
    ) -> Moderated:
        """Moderate texts of any length. To cancel it gives up what it has begun.

        Parameters
        ----------
        partial : bool
            List bad texts, instead of raising.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput
            For the first bad text, unless ``partial``.
        QueueFull, DeadlineExceeded, EngineError
            It has too much to do, cannot answer in time, or fails: then the tier is missed.
        NotReady
            It is being unloaded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What a tier found in a text.

    Attributes
    ----------
    reasons : sequence of (Piece, float)
        For each category where it stands, and its calibrated probability.
    chunks, input_tokens : int
        As in `sprat.values.Moderation`.
    is_sound : bool
        See `Moderated`.
    """

    reasons: Sequence[tuple[Piece, float]]
    chunks: int
    input_tokens: int
    is_sound: bool = True

    @property
    def is_number(self) -> bool:
        """Whether all probabilities are numbers."""
        return not any(math.isnan(probability) for _, probability in self.reasons)


def _how_sure(
    found: Sequence[Finding], thresholds: Sequence[Thresholds], calibration: Calibration | None
) -> list[float | None]:
    """Confidences that texts are flagged for the right categories; None without a calibration."""
    if calibration is None or not found:
        return [None] * len(found)
    probability_nk = np.array([[chance for _, chance in each.reasons] for each in found])
    chance_n = chance_of_actions(probability_nk, thresholds)
    sure_n = np.where([each.is_sound for each in found], confidences(chance_n, calibration), 0.0)
    confidence_n: list[float | None] = sure_n.tolist()
    return confidence_n


def _moderation(
    text: str, found: Finding, labels: Sequence[str], thresholds: Sequence[Thresholds]
) -> Moderation:
    """What to do about a text, by what was found in it."""
    categories = []
    for name, limits, (piece, probability) in zip(labels, thresholds, found.reasons, strict=True):
        start, end = piece.trimmed(text)
        categories.append(
            CategoryScore(name, probability, _action(probability, limits), start, end)
        )
    worst = max(categories, key=lambda each: (_SEVERITY[each.action], each.probability))
    return Moderation(
        action=worst.action,
        category="" if worst.action == "allow" else worst.category,
        categories=tuple(categories),
        chunks=found.chunks,
        input_tokens=found.input_tokens,
    )


def _action(probability: float, limits: Thresholds) -> Action:
    """What follows from the probability of a category."""
    if limits.block_at is not None and probability >= limits.block_at:
        return "block"
    return "flag" if probability >= limits.flag_at else "allow"
