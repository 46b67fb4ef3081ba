"""Classify: the label that a single tier says, and the honesty to abstain."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sprat.bundle_manifest import BundleManifest
from sprat.errors import ConfigError
from sprat.model.common import note
from sprat.scheduler import Mailbox
from sprat.tasks.tier import Part, Tier, check_request, version_of
from sprat.values import (
    Classification,
    ClassifyResult,
    Effort,
    TaskInfo,
    Timings,
    Truncation,
)


class ClassifyTask:
    """A classifier: a tier of a bundle by itself.

    Parameters
    ----------
    name : str
        How requests call it.
    manifest : BundleManifest
        Of a bundle of kind classify or route.
    part : Part
        The tier that answers, the last one of the bundle that can be asked. Below its threshold it
        abstains.
    unconfigured : tuple of str
        See `sprat.values.TaskInfo`.

    Raises
    ------
    ConfigError
        When there is a threshold, but no calibration and so no confidence.
    """

    def __init__(
        self,
        name: str,
        manifest: BundleManifest,
        part: Part[Tier],
        *,
        unconfigured: tuple[str, ...] = (),
    ) -> None:
        tier, accept_at = part.tier, part.accept_at
        self._tier = tier
        if accept_at > 0 and not tier.calibrated:
            raise ConfigError(
                f"tasks.{name}.accept_at",
                f"{accept_at:g} needs a confidence, but bundle {manifest.name} is not calibrated",
            )
        self.info = TaskInfo(
            name=name,
            kind=manifest.kind,
            labels=manifest.labels,
            models=((tier.identity.name, tier.identity.version),),
            calibrated=tier.calibrated,
            accept_at=accept_at,
            version=version_of(manifest, [part], unconfigured),
            unconfigured=unconfigured,
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

        See `sprat.tasks.tier.Tier.judge` for the others and for what is raised.

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
        items: list[Classification | None] = [None] * len(texts)
        for row, index in enumerate(judged.index):
            items[index] = judged.answer(row, abstained=not judged.is_sure(row, accept_at))
        errors = list(judged.errors)
        for index, error in judged.failed.items():
            note(errors, index, error, partial)
        errors.sort(key=lambda each: each.index)
        model = self._tier.identity
        return ClassifyResult(
            items=tuple(items),
            errors=tuple(errors),
            model=model.name,
            model_version=model.version,
            task_version=self.info.version,
            calibrated=self.info.calibrated,
            timings=Timings(
                judged.tokenize_ns,
                judged.queue_ns,
                judged.infer_ns,
                time.perf_counter_ns() - started,
            ),
        )
