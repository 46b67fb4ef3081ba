"""A loaded model: permit, tokenize, queue, run, as coroutines over the schedulers."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sprat.batching import EncodeWork
from sprat.budget import ComputePermits
from sprat.config import ModelConfig
from sprat.engine.base import MOST_OPTION_TOKENS, Choice, Chosen, GenerativeEngine, Progress
from sprat.errors import InputTooLong, InvalidInput, SpratError, TaskNotSupported
from sprat.manifest import ModelManifest
from sprat.scheduler import (
    ChoiceWork,
    ComputePool,
    EncodeScheduler,
    GenerateScheduler,
    GenerateWork,
    Mailbox,
)
from sprat.tokenizer import Tokenizer, check_text
from sprat.values import (
    Chunk,
    FloatArray,
    IntArray,
    ItemError,
    Message,
    ModelInfo,
    Sampling,
    Scoring,
    Timings,
    Tokenized,
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
        self.info = _info(manifest, tokenizer.name, manifest.max_tokens)
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
                _note(errors, index, error, partial)
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
                _note(errors, index, too_long, partial)
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


def _note(errors: list[ItemError], index: int, error: SpratError, partial: bool) -> None:
    if not partial:
        raise error
    errors.append(ItemError(index, error.reason, error.message))


@dataclass(frozen=True, slots=True)
class Choices:
    """What `GenerativeModel.choose` found.

    Attributes
    ----------
    kept : list of (int, int)
        Index and prompt tokens of each chat that was answered.
    chosen : list of Chosen
        One for each of ``kept``.
    """

    kept: list[tuple[int, int]]
    chosen: list[Chosen]
    errors: tuple[ItemError, ...]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int


def _answer(future: asyncio.Future[Chosen], outcome: Chosen | SpratError) -> None:
    if future.done():
        return
    if isinstance(outcome, SpratError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _common_length(one: IntArray, other: IntArray) -> int:
    """How many tokens two rows have in common at their start."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


class GenerativeModel:
    """A generative model with its queue.

    Parameters
    ----------
    manifest : ModelManifest
        What the store says of it.
    scheduler : GenerateScheduler
        Prompts to text.
    pool : ComputePool
        Where prompts are tokenized.
    """

    def __init__(
        self, manifest: ModelManifest, scheduler: GenerateScheduler, pool: ComputePool
    ) -> None:
        self.manifest = manifest
        self._engine: GenerativeEngine = scheduler.engine
        self.info = _info(manifest, "llama.cpp", self._engine.context_length)
        self._scheduler = scheduler
        self._pool = pool

    async def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> AsyncGenerator[Chunk, None]:
        """Continue a raw prompt, or answer a chat in the model's own template.

        Yields
        ------
        Chunk
            Pieces of the answer; the last one has ``finish_reason`` and the totals. Closing the
            iterator early stops the generation within one step.

        Raises
        ------
        InvalidInput, InputTooLong
            When the prompt cannot be used or leaves no room for an answer.
        QueueFull, DeadlineExceeded, NotReady
            When the model cannot take the work on.
        """
        started = time.perf_counter_ns()
        ids = await self._pool.run(self.info.name, lambda: self._prompt_ids(prompt))
        limit = self.info.max_tokens - 1
        field = "prompt" if isinstance(prompt, str) else "chat"
        if len(ids) > limit:
            raise InputTooLong(field=field, tokens=len(ids), limit=limit)
        room = self.info.max_tokens - len(ids)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        tokenize_ns = time.perf_counter_ns() - started
        events: asyncio.Queue[Progress | SpratError] = asyncio.Queue()
        work = GenerateWork(
            ids,
            sampling,
            deadline,
            on_progress=lambda event: mailbox.post(events.put_nowait, event),
        )
        self._scheduler.submit(work)
        try:
            while True:
                event = await events.get()
                if isinstance(event, SpratError):
                    raise event
                if event.finish_reason is None:
                    yield Chunk(event.text)
                    continue
                now = time.perf_counter_ns()
                yield Chunk(
                    event.text,
                    event.finish_reason,
                    prompt_tokens=len(ids),
                    output_tokens=work.output_tokens,
                    timings=Timings(
                        tokenize_ns,
                        work.started_ns - work.submitted_ns,
                        now - work.started_ns,
                        now - started,
                    ),
                    model=self.info.name,
                    model_version=self.info.version,
                )
                return
        finally:
            self._scheduler.cancel(work)

    async def choose(
        self,
        chats: Sequence[Sequence[Message]],
        probes: Sequence[Sequence[Message]],
        options: Sequence[str],
        *,
        scoring: Scoring = "constrained",
        normalize_length: bool = False,
        partial: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> Choices:
        """How probable each option is as the answer to each chat.

        Parameters
        ----------
        chats : sequence of sequence of Message
            One for each text.
        probes : sequence of sequence of Message
            Two chats about other texts: the tokens with which both begin are those that all chats
            share. They are read once and kept.
        options : sequence of str
            2 or more, none empty.
        partial : bool
            Answer the good chats when some are bad, instead of raising.

        Raises
        ------
        InvalidInput, InputTooLong
            For options that the model cannot tell apart, and for the first bad chat, unless
            ``partial``.
        QueueFull, DeadlineExceeded, NotReady, EngineError
            When the model cannot take the work on, or cannot go on.
        """
        started = time.perf_counter_ns()
        choices, errors = await self._pool.run(
            self.info.name,
            lambda: self._prepare_choices(
                chats, probes, options, scoring, normalize_length, partial
            ),
        )
        tokenize_ns = time.perf_counter_ns() - started
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Chosen]] = [loop.create_future() for _ in choices]
        works = [
            ChoiceWork(choice, deadline, on_done=functools.partial(mailbox.post, _answer, future))
            for (_, choice), future in zip(choices, futures, strict=True)
        ]
        self._scheduler.submit_choices(works)
        try:
            chosen = await asyncio.gather(*futures)
        except BaseException:
            for work in works:
                self._scheduler.cancel(work)
            raise
        now = time.perf_counter_ns()
        return Choices(
            [(index, len(choice.prompt)) for index, choice in choices],
            chosen,
            tuple(errors),
            tokenize_ns,
            max((work.started_ns - work.submitted_ns for work in works), default=0),
            max((now - work.started_ns for work in works), default=0),
        )

    def _prepare_choices(
        self,
        chats: Sequence[Sequence[Message]],
        probes: Sequence[Sequence[Message]],
        options: Sequence[str],
        scoring: Scoring,
        normalize_length: bool,
        partial: bool,
    ) -> tuple[list[tuple[int, Choice]], list[ItemError]]:
        rows = tuple(
            self._engine.tokenize(option, add_special=False, parse_special=False)
            for option in options
        )
        for index, row in enumerate(rows):
            if len(row) > MOST_OPTION_TOKENS:
                raise InputTooLong(
                    field=f"labels[{index}]", tokens=len(row), limit=MOST_OPTION_TOKENS
                )
        first, second = (self._engine.chat_tokens(probe) for probe in probes)
        shared_ids = first[: _common_length(first, second)]
        limit = self._engine.most_choice_tokens(rows)
        choices: list[tuple[int, Choice]] = []
        errors: list[ItemError] = []
        for index, chat in enumerate(chats):
            field = f"texts[{index}]"
            try:
                check_text(chat[-1].content, field=field)
                ids = self._engine.chat_tokens(chat)
                if len(ids) > limit:
                    raise InputTooLong(field=field, tokens=len(ids), limit=limit)
            except (InvalidInput, InputTooLong) as error:
                _note(errors, index, error, partial)
                continue
            shared = _common_length(ids, shared_ids)
            # The last token is decoded for each request: its logits are what is asked for.
            kept = len(shared_ids) if shared == len(shared_ids) < len(ids) else 0
            choices.append((index, Choice(ids, kept, rows, scoring, normalize_length)))
        return choices, errors

    def _prompt_ids(self, prompt: str | Sequence[Message]) -> IntArray:
        if isinstance(prompt, str):
            check_text(prompt, field="prompt")
            return self._engine.tokenize(prompt, add_special=True, parse_special=False)
        for index, message in enumerate(prompt):
            check_text(message.content, field=f"chat.messages[{index}].content")
        return self._engine.chat_tokens(prompt)

    async def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Ids and pieces of texts, whatever their length."""
        for index, text in enumerate(texts):
            check_text(text, field=f"texts[{index}]")

        def run() -> list[Tokenized]:
            rows = [self._engine.tokenize(t, add_special=True, parse_special=False) for t in texts]
            return [Tokenized(tuple(ids.tolist()), self._engine.token_texts(ids)) for ids in rows]

        return await self._pool.run(self.info.name, run)

    def close(self) -> None:
        """Finish what waits and runs, then release the weights."""
        self._scheduler.close()


Model = EncoderModel | GenerativeModel


def _info(manifest: ModelManifest, tokenizer: str, max_tokens: int) -> ModelInfo:
    return ModelInfo(
        name=manifest.name,
        kind=manifest.kind,
        engine=manifest.engine,
        version=manifest.version,
        architecture=manifest.architecture,
        quantization=manifest.quantization,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        dimension=manifest.dimension,
        licence=manifest.licence,
        size_bytes=manifest.size_bytes,
    )


def load(
    manifest: ModelManifest,
    folder: Path,
    config: ModelConfig,
    *,
    permits: ComputePermits,
    pool: ComputePool,
    queue_tokens: int,
) -> Model:
    """Load a model of the store into its engine, and warm it up.

    Raises
    ------
    CorruptFile, EngineError
        When its files cannot be used here.
    """
    weights = folder / manifest.weights
    if manifest.engine == "ct2":
        from sprat.engine.ct2 import Ct2Encoder

        assert manifest.pooling is not None
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
        encoder = Ct2Encoder(
            weights,
            pooling=manifest.pooling,
            max_tokens=manifest.max_tokens,
            workers=permits.permits,
        )
        scheduler = EncodeScheduler(manifest.name, encoder, permits, capacity=queue_tokens)
        return EncoderModel(manifest, tokenizer, scheduler, pool)

    def make_engine() -> GenerativeEngine:
        from sprat.engine.llama import LlamaEngine

        return LlamaEngine(
            weights,
            context_length=config.context_length,
            sequence_limit=config.sequences,
            cells=config.cells,
            choice_cells=config.choice_cells,
            threads=permits.permits,
        )

    generator = GenerateScheduler(manifest.name, make_engine, permits, capacity=queue_tokens)
    return GenerativeModel(manifest, generator, pool)


def require_encoder(model: Model, verb: str) -> EncoderModel:
    """The model as an encoder.

    Raises
    ------
    TaskNotSupported
        When it is none.
    """
    if isinstance(model, EncoderModel):
        return model
    raise TaskNotSupported(
        f"{verb} needs an encoder; model {model.info.name} is {model.info.kind}",
        metadata={"model": model.info.name, "kind": model.info.kind},
    )


def require_generative(model: Model, verb: str) -> GenerativeModel:
    """The model as a generative one.

    Raises
    ------
    TaskNotSupported
        When it is none.
    """
    if isinstance(model, GenerativeModel):
        return model
    raise TaskNotSupported(
        f"{verb} needs a generative model; model {model.info.name} is an {model.info.kind}",
        metadata={"model": model.info.name, "kind": model.info.kind},
    )
