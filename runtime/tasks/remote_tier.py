"""A tier that asks an endpoint: a larger model or another sprat server, on another machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, cast

import numpy as np

from sprat.asked_manifest import AnyRemote, Remote
from sprat.bundle_manifest import BundleManifest, Calibration
from sprat.calibration import confidences, spread, tempered
from sprat.endpoints.base import Endpoint, Question, SaidLabel, SaidT
from sprat.errors import SpratError
from sprat.scheduler import Mailbox
from sprat.tasks.tier import Identity, Judged
from sprat.values import EndpointInfo, Truncation


@dataclass(frozen=True, slots=True, eq=False)
class EndpointTier(Generic[SaidT]):
    """What tiers that ask an endpoint have in common; an `AnyTier`.

    Texts are sent whole, whatever their length. No CPU time is reported: what it takes here is not
    told from that of other requests.

    Attributes
    ----------
    name : str
        As in the bundle.
    labels : tuple of str
        Those of the bundle, in its order.
    asked : Remote or RemoteFields
        What the endpoint is asked.
    calibration : Calibration or None
        Of the confidence that an answer is right.
    """

    name: str
    labels: tuple[str, ...]
    asked: AnyRemote
    calibration: Calibration | None
    endpoint: Endpoint
    question: Question[SaidT]

    @property
    def calibrated(self) -> bool:
        """Whether its answers have a confidence."""
        return self.calibration is not None

    @property
    def identity(self) -> Identity:
        """What the endpoint calls the model, or the task and its version."""
        return Identity(self.asked.model, self.asked.task_version, "remote")

    @property
    def endpoint_info(self) -> EndpointInfo:
        """How the endpoint does, and what it was asked for today."""
        guard = self.endpoint.guard
        spent = guard.spending.spent
        return EndpointInfo(
            name=self.endpoint.name,
            state=guard.breaker.state,
            requests_today=spent.requests,
            tokens_today=spent.input_tokens + spent.output_tokens,
            spent_today=spent.money,
        )

    async def hear(
        self, texts: Sequence[str], deadline: float
    ) -> tuple[dict[int, SaidT], dict[int, SpratError]]:
        """What the endpoint says of texts, and why it says nothing of the others, by their places.

        Where it answers nothing at all, its first failure is raised.
        """
        heard = await self.question.ask(texts, deadline=deadline)
        said = {at: each for at, each in enumerate(heard) if not isinstance(each, SpratError)}
        failed = {at: each for at, each in enumerate(heard) if isinstance(each, SpratError)}
        if failed and not said:
            raise failed[min(failed)]
        return said, failed


@dataclass(frozen=True, slots=True, eq=False)
class RemoteTier(EndpointTier[SaidLabel]):
    """A question for labels to an endpoint, and the calibration of its answers; a `Tier`.

    An answer that is no label of the bundle is one that the tier is not sure of. The only score is
    that of the label that was named.
    """

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, endpoint: Endpoint) -> RemoteTier:
        """The tier at a place of a bundle, on an endpoint.

        Raises
        ------
        ConfigError
            The endpoint is not what the tier was calibrated with.
        """
        tier = manifest.tiers[place]
        asked = cast(Remote, tier.remote)
        question = endpoint.labels(asked)
        return cls(tier.name, manifest.labels, asked, tier.calibration, endpoint, question)

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

        Where the endpoint answers nothing at all, its first failure is raised.
        """
        started = time.perf_counter_ns()
        said, failed = await self.hear(texts, deadline)
        places = {label: place for place, label in enumerate(self.labels)}
        named = [places.get(each.label) for each in said.values()]
        given = [
            spread(place, each.confidence, len(places))
            for place, each in zip(named, said.values(), strict=True)
        ]
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        best_m = tempered(np.array(given, np.float32), temperature).max(axis=1)
        confidence: list[float | None] = [None] * len(named)
        if self.calibration is not None:
            sure = confidences(best_m, self.calibration).tolist()
            # Where no label is named, none is right.
            confidence = [
                0.0 if place is None else each for place, each in zip(named, sure, strict=True)
            ]
        return Judged(
            index=list(said),
            failed=failed,
            ranked=[[] if place is None else [place] for place in named],
            probabilities=[
                [] if place is None else [share]
                for place, share in zip(named, best_m.tolist(), strict=True)
            ],
            confidence=confidence,
            labels=self.labels,
            input_tokens=[said[at].input_tokens if at in said else 0 for at in range(len(texts))],
            dropped_tokens=[0] * len(texts),
            cached_tokens=[0] * len(texts),
            pruned=[0.0] * len(texts),
            cpu_ns=[0] * len(texts),
            errors=(),
            tokenize_ns=0,
            queue_ns=0,
            infer_ns=time.perf_counter_ns() - started,
        )
