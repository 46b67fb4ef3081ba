"""A static model: from texts to vectors in microseconds each, and so without a queue."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sprat.errors import DeadlineExceeded, InputTooLong
from sprat.manifest import ModelManifest
from sprat.model.common import model_info, note, readable
from sprat.model.encoder import INLINE_CHARACTERS, Encoded
from sprat.scheduler import ComputePool, Mailbox
from sprat.tokenizer import check_text
from sprat.values import FloatArray, ItemError, Tokenized, Truncation

if TYPE_CHECKING:
    from sprat.engine.static import StaticEncoder


class StaticModel:
    """A static model, with the interface of `EncoderModel`.

    Parameters
    ----------
    manifest : ModelManifest
        What the store says of it.
    engine : StaticEncoder
        Texts to vectors.
    pool : ComputePool
        Where calls run whose texts are longer than `INLINE_CHARACTERS` together.
    """

    def __init__(self, manifest: ModelManifest, engine: StaticEncoder, pool: ComputePool) -> None:
        self.manifest = manifest
        self.info = model_info(manifest, engine.tokenizer.name, engine.max_tokens)
        self._engine = engine
        self._pool = pool

    async def encode(
        self,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> Encoded:
        """Sentence vectors of texts.

        ``input_tokens`` of the result counts the tokens that a vector is the mean of. A text
        without a known token has none, and a vector of zeros.

        See `EncoderModel.encode` for parameters and errors. ``mailbox`` is of no use here.
        """
        characters = sum(map(len, texts))
        submitted_ns = time.perf_counter_ns()

        def run() -> Encoded:
            queue_ns = time.perf_counter_ns() - submitted_ns
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"model {self.info.name}: the time ran out before it began")
            return self._encode(texts, truncation, partial, queue_ns)

        if characters <= INLINE_CHARACTERS:
            return run()
        return await self._pool.run(self.info.name, run)

    def _encode(
        self, texts: Sequence[str], truncation: Truncation, partial: bool, queue_ns: int
    ) -> Encoded:
        started = time.perf_counter_ns()
        errors: list[ItemError] = []
        kept = readable(texts, errors, partial)
        embedded = self._engine.encode([texts[i] for i in kept])
        vectors: FloatArray = embedded.vectors
        input_tokens = [0] * len(texts)
        dropped = [0] * len(texts)
        is_good = np.ones(len(kept), bool)
        for place, (index, tokens, cut) in enumerate(
            zip(kept, embedded.tokens.tolist(), embedded.dropped.tolist(), strict=True)
        ):
            if cut and truncation == "refuse":
                note(errors, index, self._too_long(index, texts[index]), partial)
                is_good[place] = False
            else:
                input_tokens[index] = tokens
                dropped[index] = cut
        if not is_good.all():
            vectors = vectors[is_good]
            kept = [index for index, good in zip(kept, is_good.tolist(), strict=True) if good]
        errors.sort(key=lambda e: e.index)
        infer_ns = time.perf_counter_ns() - started
        cpu_ns = [0] * len(texts)
        characters = sum(len(texts[index]) for index in kept)
        for index in kept:
            cpu_ns[index] = infer_ns * len(texts[index]) // characters
        return Encoded(
            vectors,
            kept,
            input_tokens,
            dropped,
            cpu_ns,
            tuple(errors),
            0,
            queue_ns,
            infer_ns,
        )

    def _too_long(self, index: int, text: str) -> InputTooLong:
        return InputTooLong(
            field=f"texts[{index}]",
            tokens=self._engine.count_tokens(text),
            limit=self.info.max_tokens,
            hint=f"and at most {self._engine.max_characters} characters; "
            "send a shorter text, or ask for truncation",
        )

    async def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Ids and pieces of texts, whatever their length; unknown ones have no part in vectors."""
        tokenizer = self._engine.tokenizer
        for index, text in enumerate(texts):
            check_text(text, field=f"texts[{index}]")
        return await self._pool.run(
            self.info.name,
            lambda: [
                Tokenized(tuple(ids.tolist()), tokenizer.tokens(ids))
                for ids in tokenizer.encode_batch(texts)
            ],
        )

    def close(self) -> None:
        """Nothing runs once its callers are gone."""
