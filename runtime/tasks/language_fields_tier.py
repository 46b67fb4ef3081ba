"""A tier of an extract task that asks a generative model to write the fields of a text as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from sprat.asked_manifest import Fields
from sprat.bundle_manifest import BundleManifest
from sprat.errors import EngineError, SpratError
from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tasks import extract
from sprat.tasks.extract_tier import Extracted
from sprat.tasks.fields import settle, sure
from sprat.tasks.tier import ModelTier
from sprat.text.leaves import pointer
from sprat.values import Extraction, ExtractSpec, LongInput


@dataclass(frozen=True, slots=True, eq=False)
class LanguageFieldsTier(ModelTier[GenerativeModel]):
    """A schema that a generative model fills by `sprat.tasks.extract`; an `ExtractTier`.

    How sure it is comes from the probability of all that the model wrote, absent fields included.
    An answer with a string that does not stand in the text, or that did not come to an end, is one
    that it is not sure of.

    Attributes
    ----------
    spec : ExtractSpec
        What is asked. The model is loaded with its adapter.
    many : frozenset of str
        Fields that a text may have several of.
    """

    writes: ClassVar[bool] = True
    spec: ExtractSpec
    many: frozenset[str]

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, model: GenerativeModel) -> LanguageFieldsTier:
        """The language tier at a place of a bundle, on a model with its adapter.

        Raises
        ------
        InvalidInput
            The model cannot be asked that, such as a schema that leaves no room for a text.
        TaskNotSupported
            The model has no chat template.
        """
        tier = manifest.tiers[place]
        assert manifest.extract is not None
        spec = cast(Fields, tier.language).spec(model.info.name)
        extract.check(model, spec)
        many = frozenset(manifest.extract.many)
        return cls(tier.name, manifest.labels, tier.whole, model, spec, many)

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have the model read the schema, and what else comes before a text."""
        await extract.warm_up(self.model, self.spec, mailbox=mailbox)

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

        Single fields have scores, but no confidence.

        See `sprat.tasks.extract.run` for what is raised.
        """
        found = await extract.ask(
            self.model,
            texts,
            self.spec,
            long_input=long_input,
            partial=partial,
            keep_going=True,
            deadline=deadline,
            mailbox=mailbox,
        )
        failed: dict[int, SpratError] = {**found.failed}
        for at, chance in enumerate(found.chances):
            if math.isnan(chance):
                name = self.model.info.name
                failed[at] = EngineError(f"model {name} has no scores for texts[{at}]")
        answered = ((at, item) for at, item in enumerate(found.items) if item is not None)
        index = [at for at, _ in answered if at not in failed]
        read = [self._read(cast(Extraction, found.items[at]), texts[at]) for at in index]
        is_sound = [sound for _, sound in read]
        return Extracted(
            index=index,
            failed=dict(sorted(failed.items())),
            confidence=sure([found.chances[at] for at in index], is_sound, self.calibration),
            cpu_ns=found.cpu_ns,
            errors=found.errors,
            tokenize_ns=found.tokenize_ns,
            queue_ns=found.queue_ns,
            infer_ns=found.infer_ns,
            answers=[own for own, _ in read],
            is_sound=is_sound,
        )

    def _read(self, own: Extraction, text: str) -> tuple[Extraction, bool]:
        scores = {field.path: field.score for field in own.fields}
        settled = settle(
            own.value,
            text,
            labels=self.labels,
            many=self.many,
            score=lambda path: scores[pointer(path)],
        )
        return settled.over(own), settled.is_sound
