"""An encoder: permit, tokenize, queue, run, as a coroutine over its scheduler."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.batching import EncodeWork
from sprat.errors import InputTooLong, InvalidInput
from sprat.manifest import ModelManifest
from sprat.model.common import model_info, note
from sprat.scheduler import ComputePool, EncodeScheduler, Mailbox
from sprat.tokenizer import Tokenizer, check_text
from sprat.values import FloatArray, IntArray, ItemError, Tokenized, Truncation

INLINE_CHARACTERS = 2048
"""Texts up to this long together are tokenized on the event loop: under a millisecond, where a
change of threads would cost as much. Longer ones go to the pool."""

CHARACTERS_PER_TOKEN = 4
"""Rough length of a token, for the permit that is taken before a text is tokenized."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of the good texts and what happened to the others.

    Attributes
    ----------
    vectors : float32[M, D]
        L2-normalized, one row for each of ``kept``.
    kept : list of int
        Indices of the texts that were encoded.
    input_tokens, dropped_tokens : list of int
        Per text; 0 where it failed.
    """

    vectors: FloatArray
    kept: list[int]
    input_tokens: list[int]
    dropped_tokens: list[int]
    errors: tuple[ItemError, ...]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int


class EncoderModel:
    """An encoder with its tokenizer and its queue.

    Parameters
    ----------
    manifest : ModelManifest
        What the store says of it.
    tokenizer : Tokenizer
        Text to ids.
    scheduler : EncodeScheduler
        Ids to vectors.
    pool : ComputePool
        Where long texts are tokenized.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        tokenizer: Tokenizer,
        scheduler: EncodeScheduler,
        pool: ComputePool,
    ) -> None:
        self.manifest = manifest
        self.info = model_info(manifest, tokenizer.name, manifest.max_tokens)
        self._tokenizer = tokenizer
        self._scheduler = scheduler
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

        Parameters
        ----------
        truncation : {"refuse", "truncate"}
            What happens to a text of more tokens than the model takes.
        partial : bool
            Answer the good texts when some are bad, instead of raising.
        deadline : float
            `time.monotonic` value after which the answer is of no use.

        Raises
        ------
        InvalidInput, InputTooLong
            For the first bad text, unless ``partial``.
        QueueFull, DeadlineExceeded, NotReady
            When the model cannot take the work on.
        """
        started = time.perf_counter_ns()
        characters = sum(map(len, texts))
        estimate = characters // CHARACTERS_PER_TOKEN + 2 * len(texts)
        with self._scheduler.reservation(estimate):
            if characters <= INLINE_CHARACTERS:
                prepared = self._prepare(texts, truncation, partial)
            else:
                prepared = await self._pool.run(
                    self.info.name, lambda: self._prepare(texts, truncation, partial)
                )
        rows, kept, input_tokens, dropped, errors = prepared
        tokenize_ns = time.perf_counter_ns() - started
        vectors = np.empty((len(rows), self.info.dimension), np.float32)
        queue_ns = infer_ns = 0
        if rows:
            work = await self._run(rows, vectors, deadline, mailbox)
            queue_ns, infer_ns = work.queue_ns, work.infer_ns
        return Encoded(
            vectors, kept, input_tokens, dropped, tuple(errors), tokenize_ns, queue_ns, infer_ns
        )

    async def _run(
        self, rows: list[IntArray], vectors: FloatArray, deadline: float, mailbox: Mailbox
    ) -> EncodeWork:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work = EncodeWork(
            rows, vectors, deadline, on_done=lambda work: mailbox.post(_settle, future, work)
        )
        self._scheduler.submit(work)
        try:
            await future
        except asyncio.CancelledError:
            work.cancelled = True
            raise
        return work

    def _prepare(
        self, texts: Sequence[str], truncation: Truncation, partial: bool
    ) -> tuple[list[IntArray], list[int], list[int], list[int], list[ItemError]]:
        errors: list[ItemError] = []
        kept: list[int] = []
        for index, text in enumerate(texts):
            try:
                check_text(text, field=f"texts[{index}]")
            except InvalidInput as error:
                note(errors, index, error, partial)
            else:
                kept.append(index)
        rows: list[IntArray] = []
        good: list[int] = []
        input_tokens = [0] * len(texts)
        dropped = [0] * len(texts)
        limit = self.info.max_tokens
        encoded = self._tokenizer.encode_within([texts[i] for i in kept], limit)
        for index, row, cut in zip(kept, *encoded, strict=True):
            if cut and truncation == "refuse":
                too_long = InputTooLong(
                    field=f"texts[{index}]",
                    tokens=len(row) + cut,
                    limit=limit,
                    hint="send a shorter text, or ask for truncation",
                )
                note(errors, index, too_long, partial)
            else:
                rows.append(row)
                good.append(index)
                input_tokens[index] = len(row)
                dropped[index] = cut
        errors.sort(key=lambda e: e.index)
        return rows, good, input_tokens, dropped, errors

    async def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Ids and pieces of texts, special tokens included, whatever their length."""
        for index, text in enumerate(texts):
            check_text(text, field=f"texts[{index}]")
        return await self._pool.run(
            self.info.name,
            lambda: [
                Tokenized(tuple(ids.tolist()), self._tokenizer.tokens(ids))
                for ids in self._tokenizer.encode_batch(texts)
            ],
        )

    def close(self) -> None:
        """Finish what waits and release the weights."""
        self._scheduler.close()


def _settle(future: asyncio.Future[None], work: EncodeWork) -> None:
    if future.done():
        return
    if work.error is not None:
        future.set_exception(work.error)
    else:
        future.set_result(None)
