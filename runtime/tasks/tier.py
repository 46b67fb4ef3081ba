"""A tier of a classifier on its model: from texts to labels with a confidence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration
from sprat.calibration import confidences
from sprat.errors import EngineError, InvalidInput
from sprat.head import Head
from sprat.model import EmbeddingModel, Encoded
from sprat.scheduler import Mailbox
from sprat.values import Classification, Degraded, Effort, LabelScore, TierAnswer, Truncation


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a tier says of texts.

    Attributes
    ----------
    index : list of int
        M texts that it has an answer for, in order.
    failed : list of int
        Texts whose scores are not numbers.
    ranked : list of list of int
        Labels of each answer, best first: M rows.
    probabilities : list of list of float
        Theirs.
    confidence : list of float or None
        Of each answer's best label, in [0, 1]; None without a calibration.
    labels : tuple of str
        What ``ranked`` points to.
    encoded : Encoded
        Tokens, times, and the texts that the model refused.
    """

    index: list[int]
    failed: list[int]
    ranked: list[list[int]]
    probabilities: list[list[float]]
    confidence: list[float | None]
    labels: tuple[str, ...]
    encoded: Encoded

    def label(self, row: int) -> str:
        """The best label of an answer."""
        return self.labels[self.ranked[row][0]]

    def answer(
        self,
        row: int,
        *,
        abstained: bool,
        tier: int = 0,
        degraded: Degraded | None = None,
        tiers: tuple[TierAnswer, ...] = (),
    ) -> Classification:
        """An answer as callers see it."""
        index = self.index[row]
        return Classification(
            label="" if abstained else self.label(row),
            confidence=self.confidence[row],
            scores=tuple(
                map(
                    LabelScore,
                    map(self.labels.__getitem__, self.ranked[row]),
                    self.probabilities[row],
                )
            ),
            abstained=abstained,
            tier=tier,
            escalated=tier > 0,
            input_tokens=self.encoded.input_tokens[index],
            dropped_tokens=self.encoded.dropped_tokens[index],
            degraded=degraded,
            tiers=tiers,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A head and its calibration on the model whose vectors it was fitted on.

    Attributes
    ----------
    name : str
        As in the bundle.
    labels : tuple of str
        In the order of the rows of the head.
    """

    name: str
    labels: tuple[str, ...]
    head: Head
    calibration: Calibration | None
    model: EmbeddingModel

    @classmethod
    def of(cls, bundle: Bundle, place: int, model: EmbeddingModel) -> Tier:
        """The tier at a place of a bundle."""
        manifest = bundle.manifest
        tier = manifest.tiers[place]
        return cls(tier.name, manifest.labels, bundle.heads[place], tier.calibration, model)

    async def judge(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None,
        truncation: Truncation,
        partial: bool,
        deadline: float,
        mailbox: Mailbox,
    ) -> Judged:
        """Scores and confidences of texts.

        Parameters
        ----------
        top_k : int or None
            How many labels to return, from 1; None: all.

        See `sprat.model.EncoderModel.encode` for the others and for what is raised.
        """
        encoded = await self.model.encode(
            texts, truncation=truncation, partial=partial, deadline=deadline, mailbox=mailbox
        )
        ranked, probabilities = self.head.rank(
            encoded.vectors, len(self.labels) if top_k is None else top_k
        )
        index = encoded.kept
        failed: list[int] = []
        is_number = np.isfinite(probabilities[:, 0])
        if not is_number.all():
            ranked, probabilities = ranked[is_number], probabilities[is_number]
            numbers = is_number.tolist()
            failed = [text for text, good in zip(index, numbers, strict=True) if not good]
            index = [text for text, good in zip(index, numbers, strict=True) if good]
        confidence: list[float | None] = [None] * len(index)
        if self.calibration is not None:
            confidence = confidences(probabilities[:, 0], self.calibration).tolist()
        return Judged(
            index,
            failed,
            ranked.tolist(),
            probabilities.tolist(),
            confidence,
            self.labels,
            encoded,
        )

    def no_scores(self, index: int) -> EngineError:
        """What is to be said of a text whose scores are not numbers."""
        return EngineError(f"model {self.model.info.name} has no scores for texts[{index}]")


def check_request(top_k: int | None, effort: Effort, *, calibrated: bool) -> None:
    """Check what a request asks of a classifier.

    Raises
    ------
    InvalidInput
        For a number out of its range, or a threshold where there are no confidences.
    """
    if top_k is not None and top_k < 1:
        raise InvalidInput(f"top_k: expected 1 or more, got {top_k}", field="top_k")
    max_tier, accept_at, budget_ms = effort.max_tier, effort.accept_at, effort.budget_ms
    if max_tier is not None and max_tier < 0:
        raise InvalidInput(f"max_tier: expected 0 or more, got {max_tier}", field="max_tier")
    if accept_at is not None and not 0 <= accept_at <= 1:
        raise InvalidInput(f"accept_at: expected 0 to 1, got {accept_at:g}", field="accept_at")
    if accept_at and not calibrated:
        raise InvalidInput("accept_at: the task has no calibrated confidence", field="accept_at")
    if budget_ms is not None and not 0 < budget_ms < math.inf:
        raise InvalidInput(
            f"budget_ms: expected more than 0, and a finite number, got {budget_ms:g}",
            field="budget_ms",
        )


def version_of(manifest: BundleManifest, accept_at: Iterable[float]) -> str:
    """Version of a task: that of its bundle, or where thresholds differ, the digest over both.

    Parameters
    ----------
    accept_at : iterable of float
        The threshold of each tier of the bundle, as the task has it.
    """
    own = tuple(tier.accept_at for tier in manifest.tiers)
    if own == (given := tuple(accept_at)):
        return manifest.version
    return hashlib.sha256(f"{manifest.version} {given}".encode()).hexdigest()[:12]
