"""A tier of a moderator that asks an endpoint: see `sprat.tasks.remote_tier`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from sprat.asked_manifest import RemoteCategories
from sprat.bundle_manifest import AskedModeration, BundleManifest, Thresholds
from sprat.calibration import category_chances
from sprat.endpoints.base import Endpoint, SaidCategories
from sprat.errors import SpratError
from sprat.model.common import readable
from sprat.scheduler import Mailbox
from sprat.tasks.moderate_tier import Finding, Moderated
from sprat.tasks.remote_tier import EndpointTier
from sprat.tasks.scan import Piece
from sprat.values import ItemError


@dataclass(frozen=True, slots=True, eq=False)
class RemoteCategoriesTier(EndpointTier[SaidCategories]):
    """A question for categories to an endpoint, and their calibration; a `ModerateTier`.

    The span of a category is the one that the endpoint names, else the whole text. An answer that
    is no list of the categories is one that the tier is not sure of.

    Attributes
    ----------
    settings : AskedModeration
        Calibration and thresholds.
    """

    settings: AskedModeration

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, endpoint: Endpoint) -> RemoteCategoriesTier:
        """The tier at a place of a bundle, on an endpoint.

        Raises
        ------
        ConfigError
            The endpoint is not what the tier was calibrated with.
        """
        tier = manifest.tiers[place]
        asked = cast(RemoteCategories, tier.remote)
        settings = cast(AskedModeration, tier.moderation)
        question = endpoint.categories(asked)
        return cls(tier.name, manifest.labels, asked, tier.whole, endpoint, question, settings)

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """From which probabilities on it acts."""
        return self.settings.thresholds

    def acting_at(self, thresholds: tuple[Thresholds, ...]) -> RemoteCategoriesTier:
        """The same with other thresholds, for which nothing was calibrated."""
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        return replace(self, settings=settings, calibration=None)

    async def judge(
        self, texts: Sequence[str], *, partial: bool, deadline: float, mailbox: Mailbox
    ) -> Moderated:
        """Moderate texts of any length: see `ModerateTier.judge`.

        Where the endpoint answers nothing at all, its first failure is raised.
        """
        started = time.perf_counter_ns()
        errors: list[ItemError] = []
        good = readable(texts, errors, partial)
        said, missed = await self.hear([texts[index] for index in good], deadline)
        failed: dict[int, SpratError] = {good[at]: error for at, error in missed.items()}
        found = {
            good[at]: self._finding(good[at], texts[good[at]], each) for at, each in said.items()
        }
        return Moderated.of(
            self,
            texts,
            found,
            calibration=self.calibration,
            failed=failed,
            errors=errors,
            cpu_ns=[0] * len(texts),
            infer_ns=time.perf_counter_ns() - started,
        )

    def _finding(self, index: int, text: str, said: SaidCategories) -> Finding:
        """What was found. An answer without all of the categories says nothing of them."""
        is_sound = said.chances.keys() == set(self.labels)
        said_k = [said.chances[label] if is_sound else 0.5 for label in self.labels]
        chances = category_chances(np.array([said_k]), self.settings.odds)[0]
        pieces = [_piece(index, text, said.spans.get(label)) for label in self.labels]
        reasons = list(zip(pieces, chances.tolist(), strict=True))
        return Finding(reasons, said.chunks, said.input_tokens, is_sound)


def _piece(index: int, text: str, span: tuple[int, int] | None) -> Piece:
    """What an endpoint points to, where that is a part of the text; else all of it."""
    start, end = (0, len(text)) if span is None else span
    if not 0 <= start <= end <= len(text):
        start, end = 0, len(text)
    return Piece(index, start, end)
