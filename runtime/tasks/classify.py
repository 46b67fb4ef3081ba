"""Classify: sentence vectors, a linear head, a temperature, and the honesty to abstain."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sprat.bundle import Bundle
from sprat.errors import ConfigError
from sprat.model import EmbeddingModel
from sprat.model.common import note
from sprat.scheduler import Mailbox
from sprat.tasks.tier import Tier, check_request, version_of
from sprat.values import (
    Classification,
    ClassifyResult,
    Effort,
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
        *earlier, tier = manifest.tiers
        calibrated = tier.calibration is not None
        self._tier = Tier.of(bundle, len(earlier), model)
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
            version=version_of(manifest, [*[0.0] * len(earlier), accept_at]),
        )

    async def run(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ClassifyResult:
        """Classify texts.

        Parameters
        ----------
        top_k : int, optional
            How many scores to return, from 1; absent: all labels.
        effort : Effort
            Only ``accept_at`` means something where there is one tier.

        See `sprat.model.EncoderModel.encode` for the others and for what is raised.

        Raises
        ------
        EngineError
            A text got no scores; with ``partial``, it is listed.
        """
        started = time.perf_counter_ns()
        check_request(top_k, effort, calibrated=self.info.calibrated)
        accept_at = self.info.accept_at if effort.accept_at is None else effort.accept_at
        judged = await self._tier.judge(
            texts,
            top_k=top_k,
            truncation=truncation,
            partial=partial,
            deadline=deadline,
            mailbox=mailbox,
        )
        encoded = judged.encoded
        items: list[Classification | None] = [None] * len(texts)
        for row, (index, confidence) in enumerate(
            zip(judged.index, judged.confidence, strict=True)
        ):
            abstained = confidence is not None and confidence < accept_at
            items[index] = judged.answer(row, abstained=abstained)
        errors = list(encoded.errors)
        for index in judged.failed:
            note(errors, index, self._tier.no_scores(index), partial)
        errors.sort(key=lambda error: error.index)
        model = self._tier.model.info
        return ClassifyResult(
            items=tuple(items),
            errors=tuple(errors),
            model=model.name,
            model_version=model.version,
            task_version=self.info.version,
            calibrated=self.info.calibrated,
            timings=Timings(
                encoded.tokenize_ns,
                encoded.queue_ns,
                encoded.infer_ns,
                time.perf_counter_ns() - started,
            ),
        )
