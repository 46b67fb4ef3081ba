"""Extract by a bundle: spans of a text, found by a tagger on the states of an encoder's tokens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any, get_args

from sprat.bundle import Bundle
from sprat.errors import ConfigError, InvalidInput
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tagger import Span
from sprat.text.leaves import pointer
from sprat.values import Extraction, ExtractResult, Field, LongInput, TaskInfo, Timings, TokenStates

INLINE_CHARACTERS = 256
"""Texts up to this long together are tagged on the event loop: a change of threads would cost as
much. Tagging is some microseconds of Python a character; longer ones go to the pool."""


class TagTask:
    """An extract task: the last tagger of a bundle on its encoder.

    Parameters
    ----------
    name : str
        How requests call it.
    bundle : Bundle
        Of kind extract.
    model : EncoderModel
        The encoder of the bundle's last tier.
    pool : ComputePool
        Where longer texts are tagged.
    accept_at : float, optional
        Abstain where a span has less confidence, in [0, 1]; absent: as in the bundle.

    Raises
    ------
    ConfigError
        When there is a threshold, but no calibration and so no confidence.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        model: EncoderModel,
        pool: ComputePool,
        *,
        accept_at: float | None = None,
    ) -> None:
        manifest = bundle.manifest
        tier = manifest.tiers[-1]
        calibrated = tier.calibration is not None
        self._tagger = bundle.taggers[-1]
        self._model = model
        self._pool = pool
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
        requested: Sequence[str] = (),
        long_input: LongInput = "refuse",
        partial: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ExtractResult:
        """Find the fields of each text.

        Parameters
        ----------
        requested : sequence of str
            Fields that the texts were asked for; none where nothing is known.
        long_input : {"refuse", "chunk"}
            What happens to a text of more tokens than the model takes.

        See `sprat.model.EncoderModel.states` for the others and for what is raised.

        Raises
        ------
        InvalidInput
            For a requested field that the task does not have.
        """
        started = time.perf_counter_ns()
        if long_input not in get_args(LongInput):
            raise InvalidInput(
                f"long_input: expected refuse or chunk, got {long_input!r}", field="long_input"
            )
        self._tagger.check_requested(requested)
        encoded = await self._model.states(
            texts, long_input=long_input, partial=partial, deadline=deadline, mailbox=mailbox
        )
        kept = [(index, item) for index, item in enumerate(encoded.items) if item is not None]

        def tag() -> list[list[Span]]:
            return self._tagger.tag(
                [texts[index] for index, _ in kept],
                [item for _, item in kept],
                [frozenset(requested)] * len(kept),
            )

        if sum(len(texts[index]) for index, _ in kept) <= INLINE_CHARACTERS:
            found = tag()
        else:
            found = await self._pool.run(self._model.info.name, tag)
        items: list[Extraction | None] = [None] * len(texts)
        for (index, item), spans in zip(kept, found, strict=True):
            items[index] = self._extraction(texts[index], item, spans, encoded.input_tokens[index])
        return ExtractResult(
            items=tuple(items),
            errors=encoded.errors,
            model=self._model.info.name,
            model_version=self._model.info.version,
            task_version=self.info.version,
            timings=Timings(
                encoded.tokenize_ns,
                encoded.queue_ns,
                encoded.infer_ns,
                time.perf_counter_ns() - started,
            ),
        )

    def _extraction(
        self, text: str, tokens: TokenStates, spans: Sequence[Span], input_tokens: int
    ) -> Extraction:
        """The fields in the order of the task, spans of one field in the order of the text."""
        value: dict[str, Any] = {}
        fields: list[Field] = []
        for name in self._tagger.fields:
            own = [span for span in spans if span.field == name]
            if not own:
                continue
            strings = [text[span.start : span.end] for span in own]
            if name in self._tagger.many:
                value[name] = strings
                fields += [self._field((name, at), span) for at, span in enumerate(own)]
            else:
                value[name] = strings[0]
                fields.append(self._field((name,), own[0]))
        abstained = any(
            field.confidence is not None and field.confidence < self.info.accept_at
            for field in fields
        )
        return Extraction(
            value=None if abstained else value,
            json="" if abstained else _as_json(value),
            fields=tuple(fields),
            abstained=abstained,
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
            confidence=self._tagger.confidence(span.score) if self.info.calibrated else None,
        )


def _as_json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
