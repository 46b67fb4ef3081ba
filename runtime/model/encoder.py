"""An encoder: permit, tokenize, queue, run, as a coroutine over its scheduler."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.batching import EncodeWork
from sprat.errors import InputTooLong
from sprat.manifest import ModelManifest
from sprat.model.common import model_info, note, readable
from sprat.scheduler import ComputePool, EncodeScheduler, Mailbox
from sprat.text.parts import TokenParts
from sprat.tokenizer import Tokenizer, check_text
from sprat.values import (
    FloatArray,
    IntArray,
    ItemError,
    LongInput,
    Tokenized,
    TokenStates,
    Truncation,
)

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
        L2-normalized, one row for each of ``kept``. A static model's row is zero where it knows no
        token, and not normalized where its own configuration says so.
    kept : list of int
        Indices of the texts that were encoded.
    input_tokens, dropped_tokens : list of int
        Per text; 0 where it failed.
    cpu_ns : list of int
        Per text, the CPU time of its forward pass in nanoseconds: the wall time of its batch, times
        the threads of that, shared by tokens. Of a static model the time of the call, shared by
        characters. 0 where it failed.
    """

    vectors: FloatArray
    kept: list[int]
    input_tokens: list[int]
    dropped_tokens: list[int]
    cpu_ns: list[int]
    errors: tuple[ItemError, ...]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int


@dataclass(frozen=True, slots=True)
class EncodedTokens:
    """States of the tokens of the good texts and what happened to the others.

    Attributes
    ----------
    items : tuple of TokenStates or None
        Per text; None where it failed.
    input_tokens : list of int
        Per text, special tokens included; 0 where it failed.
    cpu_ns : list of int
        As in `Encoded`.
    """

    items: tuple[TokenStates | None, ...]
    input_tokens: list[int]
    cpu_ns: list[int]
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
        cpu_ns = [0] * len(texts)
        if rows:
            work = await self._run(rows, vectors, deadline, mailbox)
            queue_ns, infer_ns = work.queue_ns, work.infer_ns
            for index, spent in zip(kept, work.cpu_ns, strict=True):
                cpu_ns[index] = spent
        return Encoded(
            vectors,
            kept,
            input_tokens,
            dropped,
            cpu_ns,
            tuple(errors),
            tokenize_ns,
            queue_ns,
            infer_ns,
        )

    async def states(
        self,
        texts: Sequence[str],
        *,
        long_input: LongInput = "refuse",
        partial: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> EncodedTokens:
        """States of the tokens of texts, and where these stand.

        A text that is too long may be read in parts that overlap by up to 64 tokens: each token's
        state comes from the part in which it has the most context.

        Parameters
        ----------
        long_input : {"refuse", "chunk"}
            What happens to a text of more tokens than the model takes.

        See `encode` for the other parameters and for what is raised.
        """
        started = time.perf_counter_ns()
        characters = sum(map(len, texts))
        estimate = characters // CHARACTERS_PER_TOKEN + 2 * len(texts)
        with self._scheduler.reservation(estimate):
            if characters <= INLINE_CHARACTERS:
                plans, errors = self._plan(texts, long_input, partial)
            else:
                plans, errors = await self._pool.run(
                    self.info.name, lambda: self._plan(texts, long_input, partial)
                )
        tokenize_ns = time.perf_counter_ns() - started
        rows = [row for plan in plans.values() for row in plan.rows]
        states: list[FloatArray] = [np.empty((0, 0), np.float32)] * len(rows)
        queue_ns = infer_ns = 0
        row_ns = [0] * len(rows)
        if rows:
            work = await self._run(rows, states, deadline, mailbox)
            queue_ns, infer_ns, row_ns = work.queue_ns, work.infer_ns, work.cpu_ns
        items: list[TokenStates | None] = [None] * len(texts)
        input_tokens, cpu_ns = [0] * len(texts), [0] * len(texts)
        at = 0
        for index, plan in plans.items():
            parts = len(plan.parts)
            items[index] = plan.join(states[at : at + parts])
            input_tokens[index] = sum(map(len, rows[at : at + parts]))
            cpu_ns[index] = sum(row_ns[at : at + parts])
            at += parts
        return EncodedTokens(
            tuple(items), input_tokens, cpu_ns, tuple(errors), tokenize_ns, queue_ns, infer_ns
        )

    async def _run(
        self,
        rows: list[IntArray],
        vectors: FloatArray | list[FloatArray],
        deadline: float,
        mailbox: Mailbox,
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
        kept = readable(texts, errors, partial)
        rows: list[IntArray] = []
        good: list[int] = []
        input_tokens = [0] * len(texts)
        dropped = [0] * len(texts)
        limit = self.info.max_tokens
        encoded = self._tokenizer.encode_within([texts[i] for i in kept], limit)
        for index, row, cut in zip(kept, *encoded, strict=True):
            if cut and truncation == "refuse":
                note(errors, index, self._too_long(index, len(row) + cut, "truncation"), partial)
            else:
                rows.append(row)
                good.append(index)
                input_tokens[index] = len(row)
                dropped[index] = cut
        errors.sort(key=lambda e: e.index)
        return rows, good, input_tokens, dropped, errors

    def _plan(
        self, texts: Sequence[str], long_input: LongInput, partial: bool
    ) -> tuple[dict[int, TokenParts], list[ItemError]]:
        """How each text that can be read is read, by its index."""
        errors: list[ItemError] = []
        kept = readable(texts, errors, partial)
        plans = {}
        encoded = self._tokenizer.encode_spans([texts[i] for i in kept])
        limit = self.info.max_tokens
        for index, (ids, spans) in zip(kept, encoded, strict=True):
            if len(ids) > limit and long_input == "refuse":
                error = self._too_long(index, len(ids), "chunks (long_input)")
                note(errors, index, error, partial)
                continue
            plans[index] = TokenParts.of(texts[index], ids, spans, limit)
        errors.sort(key=lambda e: e.index)
        return plans, errors

    def _too_long(self, index: int, tokens: int, way_out: str) -> InputTooLong:
        return InputTooLong(
            field=f"texts[{index}]",
            tokens=tokens,
            limit=self.info.max_tokens,
            hint=f"send a shorter text, or ask for {way_out}",
        )

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
