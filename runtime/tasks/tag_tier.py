"""A tier that is a tagger on the states of an encoder's tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sprat.bundle import Bundle
from sprat.calibration import confidences
from sprat.errors import EngineError, SpratError
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tagger import Reading, Span, Tagger
from sprat.tasks.extract_tier import Extracted
from sprat.tasks.tier import ModelTier
from sprat.text.leaves import pointer
from sprat.values import (
    Extraction,
    Field,
    LongInput,
    TokenStates,
)

INLINE_CHARACTERS = 256
"""Texts up to this long together are tagged on the event loop: a change of threads would cost as
much. Tagging is some microseconds of Python a character; longer ones go to the pool."""


@dataclass(frozen=True, slots=True, eq=False)
class TagTier(ModelTier[EncoderModel]):
    """A tagger on the encoder that it was fitted on; an `ExtractTier`.

    Its confidence is that all fields are right and none is missing.

    Attributes
    ----------
    tagger : Tagger
    are_spans_calibrated : bool
        Whether single fields have a confidence.
    pool : ComputePool
        Where longer texts are tagged.
    """

    tagger: Tagger
    are_spans_calibrated: bool
    pool: ComputePool

    @classmethod
    def of(cls, bundle: Bundle, place: int, model: EncoderModel, pool: ComputePool) -> TagTier:
        """The tier at a place of a bundle."""
        manifest = bundle.manifest
        tier = manifest.tiers[place]
        return cls(
            *(tier.name, manifest.labels, tier.whole, model),
            *(bundle.taggers[place], tier.calibration is not None, pool),
        )

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
        """Find the fields of each text.

        Parameters
        ----------
        requested, long_input
            See `sprat.tasks.extract_tier.ExtractTier.judge`.

        See `sprat.model.EncoderModel.states` for the others and for what is raised.
        """
        encoded = await self.model.states(
            texts, long_input=long_input, partial=partial, deadline=deadline, mailbox=mailbox
        )
        kept = [(index, item) for index, item in enumerate(encoded.items) if item is not None]

        def tag() -> list[Reading | None]:
            return self.tagger.read(
                [texts[index] for index, _ in kept],
                [item for _, item in kept],
                [frozenset(requested)] * len(kept),
            )

        if sum(len(texts[index]) for index, _ in kept) <= INLINE_CHARACTERS:
            found = tag()
        else:
            found = await self.pool.run(self.model.info.name, tag)
        failed: dict[int, SpratError] = {}
        index, chances, answers = [], [], []
        for (at, item), reading in zip(kept, found, strict=True):
            if reading is None:
                failed[at] = EngineError(
                    f"model {self.model.info.name} has no states for texts[{at}]"
                )
                continue
            index.append(at)
            chances.append(reading.chance)
            tokens = encoded.input_tokens[at]
            answers.append(self._extraction(texts[at], item, reading.spans, tokens))
        confidence: list[float | None] = [None] * len(index)
        if self.calibration is not None:
            confidence = confidences(np.array(chances), self.calibration).tolist()
        return Extracted(
            index=index,
            failed=failed,
            confidence=confidence,
            cpu_ns=encoded.cpu_ns,
            errors=encoded.errors,
            tokenize_ns=encoded.tokenize_ns,
            queue_ns=encoded.queue_ns,
            infer_ns=encoded.infer_ns,
            answers=answers,
            is_sound=[True] * len(answers),
        )

    def _extraction(
        self, text: str, tokens: TokenStates, spans: Sequence[Span], input_tokens: int
    ) -> Extraction:
        """The fields in the order of the task, spans of one field in the order of the text."""
        value: dict[str, Any] = {}
        fields: list[Field] = []
        for name in self.tagger.fields:
            own = [span for span in spans if span.field == name]
            if not own:
                continue
            strings = [text[span.start : span.end] for span in own]
            if name in self.tagger.many:
                value[name] = strings
                fields += [self._field((name, at), span) for at, span in enumerate(own)]
            else:
                value[name] = strings[0]
                fields.append(self._field((name,), own[0]))
        return Extraction(
            value=value,
            json=json.dumps(value, ensure_ascii=False, separators=(",", ":")),
            fields=tuple(fields),
            input_tokens=input_tokens,
            chunks=tokens.chunks,
        )

    def _field(self, path: tuple[str | int, ...], span: Span) -> Field:
        return Field(
            pointer(path),
            span.score,
            span.start,
            span.end,
            grounded=True,
            confidence=self.tagger.confidence(span.score) if self.are_spans_calibrated else None,
        )
