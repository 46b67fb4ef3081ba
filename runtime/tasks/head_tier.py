"""A tier that is a linear head on the vectors of an encoder or a static model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.bundle import Bundle
from sprat.calibration import confidences
from sprat.errors import EngineError, SpratError
from sprat.head import Head
from sprat.model import EmbeddingModel
from sprat.scheduler import Mailbox
from sprat.tasks.tier import Judged, ModelTier
from sprat.values import Truncation


@dataclass(frozen=True, slots=True, eq=False)
class HeadTier(ModelTier[EmbeddingModel]):
    """A head and its calibration on the model whose vectors it was fitted on; a `Tier`.

    Attributes
    ----------
    head : Head
        With a row for each label.
    """

    head: Head

    @classmethod
    def of(cls, bundle: Bundle, place: int, model: EmbeddingModel) -> HeadTier:
        """The tier at a place of a bundle."""
        manifest = bundle.manifest
        tier = manifest.tiers[place]
        return cls(tier.name, manifest.labels, tier.calibration, model, bundle.heads[place])

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
        """Scores and confidences of texts: see `Tier.judge`.

        See `sprat.model.EncoderModel.encode` for what is raised.
        """
        encoded = await self.model.encode(
            texts, truncation=truncation, partial=partial, deadline=deadline, mailbox=mailbox
        )
        ranked, probabilities = self.head.rank(
            encoded.vectors, len(self.labels) if top_k is None else top_k
        )
        index = encoded.kept
        failed: dict[int, SpratError] = {}
        is_number = np.isfinite(probabilities[:, 0])
        if not is_number.all():
            ranked, probabilities = ranked[is_number], probabilities[is_number]
            numbers = is_number.tolist()
            failed = {
                text: EngineError(f"model {self.model.info.name} has no scores for texts[{text}]")
                for text, good in zip(index, numbers, strict=True)
                if not good
            }
            index = [text for text, good in zip(index, numbers, strict=True) if good]
        confidence: list[float | None] = [None] * len(index)
        if self.calibration is not None:
            confidence = confidences(probabilities[:, 0], self.calibration).tolist()
        return Judged(
            index=index,
            failed=failed,
            ranked=ranked.tolist(),
            probabilities=probabilities.tolist(),
            confidence=confidence,
            labels=self.labels,
            input_tokens=encoded.input_tokens,
            dropped_tokens=encoded.dropped_tokens,
            cached_tokens=[0] * len(texts),
            pruned=[0.0] * len(texts),
            cpu_ns=encoded.cpu_ns,
            errors=encoded.errors,
            tokenize_ns=encoded.tokenize_ns,
            queue_ns=encoded.queue_ns,
            infer_ns=encoded.infer_ns,
        )
