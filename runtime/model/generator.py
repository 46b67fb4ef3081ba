"""A generative model: answers and choices, as coroutines over its scheduler."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sprat.engine.base import (
    MOST_OPTION_TOKENS,
    Choice,
    Chosen,
    CompiledGrammar,
    GenerativeEngine,
    Progress,
    Start,
)
from sprat.errors import InputTooLong, InvalidInput, SpratError
from sprat.manifest import ModelManifest
from sprat.model.common import model_info, note
from sprat.scheduler import ChoiceWork, ComputePool, GenerateScheduler, GenerateWork, Mailbox
from sprat.tokenizer import check_text
from sprat.values import (
    Chunk,
    Grammar,
    IntArray,
    ItemError,
    Message,
    Sampling,
    Scoring,
    Timings,
    Tokenized,
)


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


def _post(
    mailbox: Mailbox,
    events: asyncio.Queue[tuple[int, Progress | SpratError]],
    index: int,
    event: Progress | SpratError,
) -> None:
    mailbox.post(events.put_nowait, (index, event))


def _reseeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)


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
        self.info = model_info(manifest, "llama.cpp", self._engine.context_length)
        self._scheduler = scheduler
        self._pool = pool

    async def compile(self, grammar: Grammar, *, field: str = "grammar") -> CompiledGrammar:
        """Prepare a grammar for `generate`; one that was compiled lately is there at once.

        Parameters
        ----------
        field : str
            What the request calls it.

        Raises
        ------
        InvalidInput
            It is malformed, allows nothing, or is too large.
        """
        try:
            return await self._pool.run(self.info.name, lambda: self._engine.compile(grammar))
        except InvalidInput as error:
            raise InvalidInput(error.message.replace("grammar", field, 1), field=field) from None

    async def generate(
        self,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        probes: Sequence[Sequence[Message]] = (),
        grammar: CompiledGrammar | None = None,
        lookup: bool = False,
        logprobs: int | None = None,
        sequences: int = 1,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> AsyncGenerator[Chunk, None]:
        """Continue a raw prompt, or answer a chat in the model's own template.

        Parameters
        ----------
        probes : sequence of sequence of Message
            Two chats about other texts: the tokens with which both begin are those that all chats
            share. They are read once and kept. Empty: nothing is shared.
        grammar : CompiledGrammar, optional
            What the answer must look like, from `compile`.
        lookup : bool
            Guess tokens from prompt and answer, and check several in one pass.
        logprobs : int, optional
            How many of the most probable tokens to report beside each one; absent: no report.
        sequences : int
            Answers to make side by side; a seed grows by 1 from one to the next.

        Yields
        ------
        Chunk
            Pieces of the answers; the last one of each has ``finish_reason`` and the totals.
            Closing the iterator early stops the generation within one step.

        Raises
        ------
        InvalidInput, InputTooLong
            When the prompt cannot be used or leaves no room for an answer, or there are more
            sequences than the model has places for.
        QueueFull, DeadlineExceeded, NotReady
            When the model cannot take the work on.
        """
        started = time.perf_counter_ns()
        most = self._engine.sequence_limit
        if not 1 <= sequences <= most:
            raise InvalidInput(
                f"sequences: expected 1 to {most}, got {sequences}", field="sequences"
            )
        ids, shared = await self._pool.run(self.info.name, lambda: self._prompt_ids(prompt, probes))
        limit = self.info.max_tokens - 1
        field = "prompt" if isinstance(prompt, str) else "chat"
        if len(ids) > limit:
            raise InputTooLong(field=field, tokens=len(ids), limit=limit)
        room = self.info.max_tokens - len(ids)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        start = Start(
            -1,
            ids,
            sampling,
            # Answers to one prompt share all of it but the token whose logits each one needs.
            shared=shared if sequences == 1 else len(ids) - 1,
            grammar=grammar,
            lookup=lookup,
            logprobs=logprobs,
        )
        tokenize_ns = time.perf_counter_ns() - started
        events: asyncio.Queue[tuple[int, Progress | SpratError]] = asyncio.Queue()
        works = [
            GenerateWork(
                replace(start, sampling=_reseeded(sampling, index)),
                deadline,
                on_progress=functools.partial(_post, mailbox, events, index),
            )
            for index in range(sequences)
        ]
        self._scheduler.submit(works)
        unfinished = sequences
        try:
            while unfinished:
                index, event = await events.get()
                if isinstance(event, SpratError):
                    raise event
                if event.finish_reason is None:
                    yield Chunk(event.text, sequence=index, logprobs=event.logprobs)
                    continue
                unfinished -= 1
                work = works[index]
                now = time.perf_counter_ns()
                yield Chunk(
                    event.text,
                    event.finish_reason,
                    prompt_tokens=len(ids),
                    output_tokens=work.output_tokens,
                    sequence=index,
                    logprobs=event.logprobs,
                    complete=event.complete,
                    cached_tokens=work.cached_tokens,
                    forced_tokens=work.forced_tokens,
                    drafted_tokens=work.drafted_tokens,
                    accepted_tokens=work.accepted_tokens,
                    timings=Timings(
                        tokenize_ns,
                        work.started_ns - work.submitted_ns,
                        now - work.started_ns,
                        now - started,
                    ),
                    model=self.info.name,
                    model_version=self.info.version,
                )
        finally:
            for work in works:
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
                note(errors, index, error, partial)
                continue
            shared = _common_length(ids, shared_ids)
            # The last token is decoded for each request: its logits are what is asked for.
            kept = len(shared_ids) if shared == len(shared_ids) < len(ids) else 0
            choices.append((index, Choice(ids, kept, rows, scoring, normalize_length)))
        return choices, errors

    def _prompt_ids(
        self, prompt: str | Sequence[Message], probes: Sequence[Sequence[Message]]
    ) -> tuple[IntArray, int]:
        """Tokens of a prompt, and how many of them other prompts begin with too."""
        if isinstance(prompt, str):
            check_text(prompt, field="prompt")
            return self._engine.tokenize(prompt, add_special=True, parse_special=False), 0
        for index, message in enumerate(prompt):
            check_text(message.content, field=f"chat.messages[{index}].content")
        ids = self._engine.chat_tokens(prompt)
        if not probes:
            return ids, 0
        first, second = (self._engine.chat_tokens(probe) for probe in probes)
        shared = _common_length(ids, first[: _common_length(first, second)])
        return ids, min(shared, len(ids) - 1)

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
