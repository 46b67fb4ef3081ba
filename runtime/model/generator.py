"""A generative model: answers and choices, as coroutines over its scheduler."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from sprat.engine.base import Choice, Chosen, CompiledGrammar, GenerativeEngine, Progress, Start
from sprat.errors import EngineError, InputTooLong, InvalidInput, NotFound, SpratError
from sprat.manifest import ModelManifest
from sprat.model import prior
from sprat.model.choices import Branch, Choices, Prepared, prepare, tokenize_branch
from sprat.model.common import model_info
from sprat.model.instructed import KEPT, Instructed, common_length
from sprat.model.prior import Priors
from sprat.scheduler import ChoiceWork, ComputePool, GenerateScheduler, GenerateWork, Mailbox
from sprat.tokenizer import check_text
from sprat.values import (
    Chunk,
    FloatArray,
    Grammar,
    IntArray,
    Message,
    PrefixUse,
    Sampling,
    Scoring,
    Timings,
    Tokenized,
)

INLINE_CHARACTERS = 4096
"""Texts with their instructions up to this long are tokenized on the event loop: some 2 ms."""

MOST_BRANCHES = 256
"""Branches whose tokens are kept, those that were used last."""


def _answer(future: asyncio.Future[Chosen], outcome: Chosen | SpratError) -> None:
    if future.done():
        return
    if isinstance(outcome, SpratError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _first_error(group: Sequence[Chosen | EngineError]) -> EngineError | None:
    return next((each for each in group if isinstance(each, EngineError)), None)


def _post(
    mailbox: Mailbox,
    events: asyncio.Queue[tuple[int, Progress | SpratError]],
    index: int,
    event: Progress | SpratError,
) -> None:
    mailbox.post(events.put_nowait, (index, event))


def _reseeded(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + index)


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
        self._instructed = Instructed(self._engine)
        # The branches of a task come with each of its requests.
        self._tokenize_branch = functools.lru_cache(maxsize=MOST_BRANCHES)(
            functools.partial(tokenize_branch, self._engine)
        )
        self._shared = functools.lru_cache(maxsize=KEPT)(self._find_shared)
        self._priors = Priors()

    @property
    def pool(self) -> ComputePool:
        """Where work on long texts runs."""
        return self._pool

    @property
    def choice_prefixes(self) -> int:
        """How many instructions of `choose` are kept at most."""
        return self._engine.choice_prefixes

    @property
    def answer_prefixes(self) -> int:
        """How many beginnings of chats of `generate` are kept at most."""
        return self._engine.answer_prefixes

    @property
    def prefix_use(self) -> PrefixUse:
        """What kept prefixes have saved so far."""
        return self._scheduler.prefix_use

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
        return await self._pool.run(self.info.name, lambda: self.compile_now(grammar, field=field))

    def compile_now(self, grammar: Grammar, *, field: str) -> CompiledGrammar:
        """As `compile`, on this thread."""
        try:
            return self._engine.compile(grammar)
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
        adapter: str = "",
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
        adapter : str
            Name of a LoRA adapter that is loaded with the model; empty for none.
        sequences : int
            Answers to make side by side; a seed grows by 1 from one to the next.

        Yields
        ------
        Chunk
            Pieces of the answers; the last one of each has ``finish_reason`` and the totals.
            Closing the iterator early stops the generation within one step.

        Raises
        ------
        NotFound
            When no such adapter is loaded.
        InvalidInput, InputTooLong
            When the prompt cannot be used or leaves no room for an answer, or there are more
            sequences than the model has places for.
        QueueFull, DeadlineExceeded, NotReady
            When the model cannot take the work on.
        """
        started = time.perf_counter_ns()
        self._check_adapter(adapter)
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
            adapter=adapter,
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
                    cpu_ms=work.cpu_ns / 1e6,
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
        instructions: str,
        texts: Sequence[str],
        branches: Sequence[Branch],
        *,
        scoring: Scoring = "constrained",
        normalize_length: bool = False,
        correct_prior: bool = False,
        adapter: str = "",
        partial: bool = False,
        keep_going: bool = False,
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> Choices:
        """How probable each option is as an answer about each text.

        What the texts' prompts begin with is read once and kept; what branches have in common is
        read once for each text.

        Parameters
        ----------
        instructions : str
            What the model is told before it reads a text.
        branches : sequence of Branch
            What is asked, from 1; each gets its answer without the others'.
        correct_prior : bool
            Divide out what the options have without a text: see `sprat.model.prior`.
        adapter : str
            Name of a LoRA adapter that is loaded with the model; empty for none.
        partial : bool
            Answer the good texts when some are bad, instead of raising.
        keep_going : bool
            List texts that the engine fails on as `Choices.failed`, and answer the others. It
            raises all the same where it fails on all.

        Raises
        ------
        NotFound
            When no such adapter is loaded.
        InvalidInput, InputTooLong
            For options that the model cannot tell apart, and for the first bad text, unless
            ``partial``.
        QueueFull, DeadlineExceeded, NotReady, EngineError
            When the model cannot take the work on, or cannot go on.
        """
        started = time.perf_counter_ns()
        self._check_adapter(adapter)
        call = functools.partial(
            prepare,
            self._engine,
            self._instructed,
            self._tokenize_branch,
            instructions,
            texts,
            branches,
            scoring=scoring,
            normalize_length=normalize_length,
            adapter=adapter,
            free=prior.CONTENT_FREE if correct_prior else (),
            partial=partial,
        )
        # Waiting for a permit takes a step of the engine, and so a place in the next one.
        if sum(len(instructions) + len(text) for text in texts) <= INLINE_CHARACTERS:
            prepared = call()
        else:
            prepared = await self._pool.run(self.info.name, call)
        tokenize_ns = time.perf_counter_ns() - started
        priors = await self._find_priors(prepared, deadline, mailbox)
        groups = [prepared.choices(prompt) for _, prompt in prepared.texts]
        works, outcomes = await self._choose(groups, deadline, mailbox, keep_going=keep_going)
        failed = {
            index: error
            for (index, _), group in zip(prepared.texts, outcomes, strict=True)
            if (error := _first_error(group)) is not None
        }
        if failed and len(failed) == len(prepared.texts):
            raise next(iter(failed.values()))
        answered = [at for at, (index, _) in enumerate(prepared.texts) if index not in failed]
        chosen = [[each for each in outcomes[at] if isinstance(each, Chosen)] for at in answered]
        if priors:
            chosen = [
                [
                    replace(each, probabilities=prior.corrected(each.probabilities, without))
                    for each, without in zip(group, priors, strict=True)
                ]
                for group in chosen
            ]
        now = time.perf_counter_ns()
        asked = len(branches)
        texts_kept = [prepared.texts[at] for at in answered]
        return Choices(
            [(index, prepared.tokens(prompt)) for index, prompt in texts_kept],
            chosen,
            [sum(work.cpu_ns for work in works[at * asked : (at + 1) * asked]) for at in answered],
            tuple(prepared.errors),
            failed,
            tokenize_ns,
            max((work.started_ns - work.submitted_ns for work in works), default=0),
            max((now - work.started_ns for work in works), default=0),
        )

    def chat(self, instructions: str, text: str) -> list[Message]:
        """The chat about a text, as `sprat.model.instructed` has it."""
        return self._instructed.chat(instructions, text)

    def check_branches(self, instructions: str, branches: Sequence[Branch]) -> None:
        """Raise what `choose` would about these, with the shortest of texts. On this thread."""
        prepare(
            self._engine,
            self._instructed,
            self._tokenize_branch,
            instructions,
            ["0"],
            branches,
            scoring="constrained",
            normalize_length=False,
            adapter="",
            free=(),
            partial=False,
        )

    def check_chat(self, chat: Sequence[Message], *, field: str) -> None:
        """Raise what `generate` would about a chat, under another name. On this thread."""
        tokens, limit = len(self._engine.chat_tokens(chat)), self.info.max_tokens - 1
        if tokens > limit:
            raise InputTooLong(field=field, tokens=tokens, limit=limit)

    async def _find_priors(
        self, prepared: Prepared, deadline: float, mailbox: Mailbox
    ) -> list[FloatArray]:
        """The prior of each branch, computed where it is not kept; none without need."""
        if not prepared.free or not prepared.texts:
            return []
        groups = [prepared.choices(prompt) for prompt in prepared.free]
        keys = [prior.key(choice, prepared.shared.tobytes()) for choice in groups[0]]
        kept = [self._priors.get(key) for key in keys]
        missing = [at for at, found in enumerate(kept) if found is None]
        asked = [[group[at] for at in missing] for group in groups]
        _, outcomes = await self._choose(asked if missing else [], deadline, mailbox)
        for number, at in enumerate(missing):
            found = [group[number] for group in outcomes]
            made = prior.mean([each.probabilities for each in found if isinstance(each, Chosen)])
            self._priors.keep(keys[at], made)
            kept[at] = made
        return [found for found in kept if found is not None]

    async def _choose(
        self,
        groups: Sequence[Sequence[Choice]],
        deadline: float,
        mailbox: Mailbox,
        *,
        keep_going: bool = False,
    ) -> tuple[list[ChoiceWork], list[list[Chosen | EngineError]]]:
        """Make choices side by side, those of a text one behind the other.

        The first that fails is raised, and the others are dropped; errors of the engine stand among
        the answers with ``keep_going``.
        """
        loop = asyncio.get_running_loop()
        works = []
        futures: list[asyncio.Future[Chosen]] = []
        for group in groups:
            for number, choice in enumerate(group):
                # Who comes first reads what they have in common.
                known = max(choice.shared, choice.common if number else 0)
                future = loop.create_future()
                futures.append(future)
                works.append(
                    ChoiceWork(
                        choice,
                        len(choice.prompt) - known,
                        deadline,
                        on_done=functools.partial(mailbox.post, _answer, future),
                    )
                )
        self._scheduler.submit_choices(works)
        try:
            outcomes: list[Chosen | EngineError] = []
            for outcome in await asyncio.gather(*futures, return_exceptions=keep_going):
                if isinstance(outcome, BaseException) and not isinstance(outcome, EngineError):
                    raise outcome
                outcomes.append(outcome)
        except BaseException:
            for work in works:
                self._scheduler.cancel(work)
            raise
        ended = iter(outcomes)
        return works, [[next(ended) for _ in group] for group in groups]

    def _check_adapter(self, name: str) -> None:
        if name and name not in self._engine.adapters:
            raise NotFound("adapter", name, tuple(self._engine.adapters))

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
        shared = common_length(ids, self._shared(*map(tuple, probes)))
        return ids, min(shared, len(ids) - 1)

    def _find_shared(self, one: tuple[Message, ...], other: tuple[Message, ...]) -> IntArray:
        """The tokens with which two chats begin."""
        first, second = map(self._engine.chat_tokens, (one, other))
        return first[: common_length(first, second)]

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
