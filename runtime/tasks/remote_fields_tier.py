"""A tier of an extract task that asks an endpoint for the fields of a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sprat.asked_manifest import RemoteFields
from sprat.bundle_manifest import BundleManifest
from sprat.endpoints.base import Endpoint, SaidFields
from sprat.scheduler import Mailbox
from sprat.tasks.extract_tier import Extracted
from sprat.tasks.fields import Settled, settle, sure
from sprat.tasks.remote_tier import EndpointTier
from sprat.text.leaves import pointer
from sprat.values import Extraction, LongInput


@dataclass(frozen=True, slots=True, eq=False)
class RemoteFieldsTier(EndpointTier[SaidFields]):
    """A question for fields to an endpoint, and the calibration of its answers; an `ExtractTier`.

    What comes back is held to the text here: an answer with other fields, or with a string that
    does not stand in the text, is one that the tier is not sure of.

    Attributes
    ----------
    many : frozenset of str
        Fields that a text may have several of.
    """

    many: frozenset[str]

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, endpoint: Endpoint) -> RemoteFieldsTier:
        """The tier at a place of a bundle, on an endpoint.

        Raises
        ------
        ConfigError
            The endpoint is not what the tier was calibrated with.
        """
        tier = manifest.tiers[place]
        assert manifest.extract is not None
        asked = cast(RemoteFields, tier.remote)
        many = frozenset(manifest.extract.many)
        question = endpoint.fields(asked)
        return cls(tier.name, manifest.labels, asked, tier.whole, endpoint, question, many)

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
        """Find the fields of each text: see `ExtractTier.judge`.

        Where the endpoint answers nothing at all, its first failure is raised.
        """
        started = time.perf_counter_ns()
        said, failed = await self.hear(texts, deadline)
        settled = [self._settled(each, texts[at]) for at, each in said.items()]
        is_sound = [each.is_sound for each in settled]
        return Extracted(
            index=list(said),
            failed=failed,
            confidence=sure(
                [each.confidence for each in said.values()], is_sound, self.calibration
            ),
            cpu_ns=[0] * len(texts),
            errors=(),
            tokenize_ns=0,
            queue_ns=0,
            infer_ns=time.perf_counter_ns() - started,
            answers=[
                each.over(
                    Extraction(
                        None, "", (), complete=own.value is not None, input_tokens=own.input_tokens
                    )
                )
                for each, own in zip(settled, said.values(), strict=True)
            ],
            is_sound=is_sound,
        )

    def _settled(self, said: SaidFields, text: str) -> Settled:
        return settle(
            said.value,
            text,
            labels=self.labels,
            many=self.many,
            score=lambda path: said.scores.get(pointer(path), said.confidence),
        )
