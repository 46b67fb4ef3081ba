"""Classify: sentence vectors, a linear head, a temperature, and the honesty to abstain."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sprat.bundle import Bundle
from sprat.calibration import confidences
from sprat.errors import ConfigError, InvalidInput
from sprat.model import EmbeddingModel
from sprat.scheduler import Mailbox
from sprat.values import (
    Classification,
    ClassifyResult,
    FloatArray,
    LabelScore,
    TaskInfo,
    Timings,
    Truncation,
)


class ClassifyTask:
    """A classifier: the last head of a bundle on its encoder.

    Parameters
    ----------
    name : str
        How requests call it.
    bundle : Bundle
        Labels and heads.
    model : EmbeddingModel
        The encoder of the bundle's last tier.
    accept_at : float, optional
        Abstain below this confidence, in [0, 1]; absent: as in the bundle.

    Raises
    ------
    ConfigError
        When there is a threshold, but no calibration and so no confidence.
    """

    def __init__(
        self, name: str, bundle: Bundle, model: EmbeddingModel, *, accept_at: float | None = None
    ) -> None:
        manifest = bundle.manifest
        tier = manifest.tiers[-1]
        calibrated = tier.calibration is not None
        self._calibration = tier.calibration
        self._head = bundle.heads[-1]
        self._model = model
        self._labels = manifest.labels
        accept_at = tier.accept_at if accept_at is None else accept_at
        if accept_at > 0 and not calibrated:
            raise ConfigError(
                f"tasks.{name}.accept_at",
                f"{accept_at:g} needs a confidence, but bundle {manifest.name} is not calibrated",
            )
        self.info = TaskInfo(
            name=name,
            kind=manifest.kind,
            labels=manifest.labels,
            models=((model.info.name, model.info.version),),
            calibrated=calibrated,
            accept_at=accept_at,
            version=manifest.version,
        )

    async def run(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ClassifyResult:
        """Classify texts.

        Parameters
        ----------
        top_k : int, optional
            How many scores to return, from 1; absent: all labels.

        See `sprat.model.EncoderModel.encode` for the others and for what is raised.
        """
        started = time.perf_counter_ns()
        if top_k is not None and top_k < 1:
            raise InvalidInput(f"top_k: expected 1 or more, got {top_k}", field="top_k")
        encoded = await self._model.encode(
            texts, truncation=truncation, partial=partial, deadline=deadline, mailbox=mailbox
        )
        ranked, probabilities = self._head.rank(
            encoded.vectors, len(self._labels) if top_k is None else top_k
        )
        items: list[Classification | None] = [None] * len(texts)
        for index, best, chances, confidence in zip(
            encoded.kept,
            ranked.tolist(),
            probabilities.tolist(),
            self._confidences(probabilities[:, 0]),
            strict=True,
        ):
            items[index] = self._decide(
                tuple(map(LabelScore, map(self._labels.__getitem__, best), chances)),
                confidence,
                encoded.input_tokens[index],
                encoded.dropped_tokens[index],
            )
        return ClassifyResult(
            items=tuple(items),
            errors=encoded.errors,
            model=self._model.info.name,
            model_version=self._model.info.version,
            task_version=self.info.version,
            calibrated=self.info.calibrated,
            timings=Timings(
                encoded.tokenize_ns,
                encoded.queue_ns,
                encoded.infer_ns,
                time.perf_counter_ns() - started,
            ),
        )

    def _confidences(self, best_n: FloatArray) -> Sequence[float | None]:
        if self._calibration is None:
            return [None] * len(best_n)
        confidence_n: list[float | None] = confidences(best_n, self._calibration).tolist()
        return confidence_n

    def _decide(
        self,
        scores: tuple[LabelScore, ...],
        confidence: float | None,
        input_tokens: int,
        dropped_tokens: int,
    ) -> Classification:
        abstained = confidence is not None and confidence < self.info.accept_at
        return Classification(
            label="" if abstained else scores[0].label,
            confidence=confidence,
            scores=scores,
            abstained=abstained,
            input_tokens=input_tokens,
            dropped_tokens=dropped_tokens,
        )
