"""Extract: fill the fields of a JSON Schema from texts, and say where in the texts they stand.

A field's score is the product of the model's probabilities of the tokens that overlap the field's
characters in the answer, each among the tokens that the schema allows at its place: what the schema
forces costs nothing. A string's quotes are among its characters, and so is what ends a number, the
comma or bracket behind it. It is a score by the model's own lights, not a calibrated confidence.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

from sprat.engine.base import CompiledGrammar
from sprat.errors import EngineError, InputTooLong, InvalidInput
from sprat.model import GenerativeModel
from sprat.model.common import note, readable
from sprat.model.instructed import PROBES
from sprat.scheduler import Mailbox
from sprat.text.grounding import Grounder
from sprat.text.leaves import Leaf, Tree, leaves, plain, pointer, read, write
from sprat.text.merging import merge
from sprat.text.parts import cut
from sprat.text.schema import Schema
from sprat.text.scores import Scores
from sprat.tokenizer import check_text
from sprat.values import (
    Chunk,
    Extraction,
    ExtractResult,
    ExtractSpec,
    Field,
    Grammar,
    ItemError,
    LongInput,
    Sampling,
    Timings,
    TokenChoice,
)

GENERAL_INSTRUCTIONS = (
    "Extract what the JSON schema asks for from the text that the user sends. "
    "Copy words as they stand in the text."
)
SIDE_BY_SIDE = 8
"""Most answers of one call at a time: enough to keep a model busy, and few enough to wait in its
queue even if each fills a context."""

LEAST_ROOM = 32
"""Fewest tokens of a text that it is cut for."""

MOST_OVERLAP = 64
"""Most tokens that neighbouring parts of a text share."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the model made of a text or a part of one; no tree where it did not come to an end."""

    tree: Tree | None
    chance: float
    last: Chunk


@dataclass(frozen=True, slots=True)
class Found:
    """What the model finds in N texts.

    Attributes
    ----------
    items : list of Extraction or None
        None where there is no answer.
    chances : list of float
        Probability in [0, 1] of each answer as a whole, absent fields included: of all its tokens,
        each among those that the schema allows at its place; of a text in parts the product. 0
        where there is no answer or it is not complete.
    failed : dict of int to EngineError
        Texts that the model failed on.
    cpu_ns : list of int
        CPU time of each text in nanoseconds; 0 where there is no answer.
    errors : list of ItemError
        Texts that it cannot read.
    tokenize_ns, queue_ns, infer_ns : int
        As in `sprat.values.Timings`.
    """

    items: list[Extraction | None]
    chances: list[float]
    failed: dict[int, EngineError]
    cpu_ns: list[int]
    errors: list[ItemError]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int


async def run(
    model: GenerativeModel,
    texts: Sequence[str],
    spec: ExtractSpec,
    *,
    long_input: LongInput = "refuse",
    partial: bool = False,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> ExtractResult:
    """Extract a value from each text, side by side.

    Parameters
    ----------
    long_input : {"refuse", "chunk"}
        What happens to a text that does not fit into the model's context beside the schema and an
        answer.
    partial : bool
        Answer the good texts when some are bad, instead of raising.

    Raises
    ------
    InvalidInput, InputTooLong
        For a schema that is none, too large or cannot be followed, instructions or a number that
        cannot be used, and for the first bad text, unless ``partial``.
    QueueFull, DeadlineExceeded, NotReady, EngineError
        When the model cannot take the work on, or cannot go on.
    """
    started = time.perf_counter_ns()
    found = await ask(
        model,
        texts,
        spec,
        long_input=long_input,
        partial=partial,
        keep_going=partial,
        deadline=deadline,
        mailbox=mailbox,
    )
    failed = [ItemError(at, each.reason, each.message) for at, each in found.failed.items()]
    return ExtractResult(
        items=tuple(found.items),
        errors=tuple(sorted([*found.errors, *failed], key=lambda error: error.index)),
        model=model.info.name,
        model_version=model.info.version,
        task_version="",
        timings=Timings(
            found.tokenize_ns,
            found.queue_ns,
            found.infer_ns,
            time.perf_counter_ns() - started,
        ),
    )


async def ask(
    model: GenerativeModel,
    texts: Sequence[str],
    spec: ExtractSpec,
    *,
    long_input: LongInput,
    partial: bool,
    keep_going: bool,
    deadline: float,
    mailbox: Mailbox,
) -> Found:
    """What the model finds in texts, and how probable it is.

    Parameters
    ----------
    keep_going : bool
        Where the model fails on a text, answer the others.

    See `run` for the others and for what is raised.
    """
    schema = _check(spec, long_input)
    errors: list[ItemError] = []
    failed: dict[int, EngineError] = {}
    good = readable(texts, errors, partial)
    grammar = await model.compile(Grammar("json_schema", schema.grammar), field="schema")
    call = _Call(model, schema, spec, grammar, long_input, deadline, mailbox)

    async def item(index: int) -> list[_Answer]:
        field = f"texts[{index}]"
        try:
            return await call.answers(texts[index], field)
        except InvalidInput as error:
            if error.field != field:
                raise
            note(errors, index, error, partial)
        except EngineError as error:
            if not keep_going:
                raise
            failed[index] = error
        return []

    answers = await _side_by_side([item(index) for index in good])
    items: list[Extraction | None] = [None] * len(texts)
    chances, cpu_ns = [0.0] * len(texts), [0] * len(texts)
    for index, found in zip(good, answers, strict=True):
        if found:
            items[index] = own = _extraction(found, schema, spec)
            chances[index] = math.prod(answer.chance for answer in found)
            cpu_ns[index] = round(1e6 * (own.cpu_ms or 0.0))
    times = [answer.last.timings for found in answers for answer in found]
    return Found(
        items=items,
        chances=chances,
        failed=failed,
        cpu_ns=cpu_ns,
        errors=errors,
        tokenize_ns=max((t.tokenize_ns for t in times), default=0),
        queue_ns=max((t.queue_ns for t in times), default=0),
        infer_ns=max((t.infer_ns for t in times), default=0),
    )


def check(model: GenerativeModel, spec: ExtractSpec) -> None:
    """Raise what `run` would, whatever the text."""
    schema = _check(spec, "refuse")
    model.compile_now(Grammar("json_schema", schema.grammar), field="schema")
    model.check_chat(model.chat(prompt(spec, schema), PROBES[1]), field="schema")


async def warm_up(model: GenerativeModel, spec: ExtractSpec, *, mailbox: Mailbox) -> None:
    """Have a model read what prompts begin with, and begin an answer."""
    schema = _check(spec, "refuse")
    grammar = await model.compile(Grammar("json_schema", schema.grammar), field="schema")
    call = _Call(model, schema, spec, grammar, "refuse", math.inf, mailbox)
    async with aclosing(call.stream(PROBES[1])) as chunks:
        await anext(chunks)


def prompt(spec: ExtractSpec, schema: Schema) -> str:
    """What the model is told before it reads a text."""
    head = spec.instructions or GENERAL_INSTRUCTIONS
    return f"{head}\nAnswer with JSON that fits this schema, and nothing else:\n{schema.text}"


def _check(spec: ExtractSpec, long_input: LongInput) -> Schema:
    if long_input not in get_args(LongInput):
        raise InvalidInput(
            f"long_input: expected refuse or chunk, got {long_input!r}", field="long_input"
        )
    if not 1 <= spec.max_tokens <= 2**20:
        raise InvalidInput(
            f"max_tokens: expected [1, {2**20}], got {spec.max_tokens}", field="max_tokens"
        )
    if spec.instructions:
        check_text(spec.instructions, field="instructions")
    return Schema(spec.schema)


async def _side_by_side(works: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Results in order; where one fails, or the caller gives up, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class _Call:
    """What the texts of one call have in common."""

    def __init__(
        self,
        model: GenerativeModel,
        schema: Schema,
        spec: ExtractSpec,
        grammar: CompiledGrammar,
        long_input: LongInput,
        deadline: float,
        mailbox: Mailbox,
    ) -> None:
        self._model = model
        self._spec = spec
        self._grammar = grammar
        self._long_input = long_input
        self._deadline = deadline
        self._mailbox = mailbox
        self._prompt = prompt(spec, schema)
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def answers(self, text: str, field: str) -> list[_Answer]:
        """One answer, or one for each part of a text that is too long.

        Too long is what does not fit, and what leaves less room than ``max_tokens``, or half of the
        context, where the answer needed more.
        """
        answer = None
        try:
            answer = await self._answer(text)
        except InputTooLong as error:
            prompt_tokens = error.tokens
        else:
            if answer.last.complete or answer.last.output_tokens >= self._spec.max_tokens:
                return [answer]
            prompt_tokens = answer.last.prompt_tokens
        (tokenized,) = await self._model.tokenize([text])
        frame = prompt_tokens - len(tokenized.ids)
        space = self._model.info.max_tokens - frame
        room = space - min(self._spec.max_tokens, space // 2)
        if answer is not None and len(tokenized.ids) <= room:
            return [answer]
        if room < LEAST_ROOM:
            limit = self._model.info.max_tokens - 2 * LEAST_ROOM
            hint = "no room is left for a text"
            raise InputTooLong(field="schema", tokens=frame, limit=limit, hint=hint)
        if self._long_input == "refuse":
            raise InputTooLong(
                field=field,
                tokens=prompt_tokens,
                limit=frame + room,
                hint="send a shorter text, or ask for chunks (long_input)",
            )
        # A part alone may be of more tokens than it was within the text.
        room -= room // 8
        parts = cut(text, tokenized.tokens, room, min(MOST_OVERLAP, room // 8))
        try:
            return await _side_by_side(
                [self._answer(text[start:end], start) for start, end in parts]
            )
        except InputTooLong as error:
            raise InputTooLong(field=field, tokens=error.tokens, limit=error.limit) from None

    def stream(self, text: str) -> AsyncGenerator[Chunk, None]:
        """What the model writes about a text."""
        return self._model.generate(
            self._model.chat(self._prompt, text),
            Sampling(max_tokens=self._spec.max_tokens),
            probes=[self._model.chat(self._prompt, probe) for probe in PROBES],
            grammar=self._grammar,
            logprobs=0,
            adapter=self._spec.adapter,
            deadline=self._deadline,
            mailbox=self._mailbox,
        )

    async def _answer(self, text: str, offset: int = 0) -> _Answer:
        """Ask the model about a text. Places in it count from ``offset``."""
        pieces: list[str] = []
        tokens: list[TokenChoice] = []
        async with self._places, aclosing(self.stream(text)) as stream:
            async for last in stream:
                pieces.append(last.text)
                tokens.extend(last.logprobs)
        if not last.complete:
            return _Answer(None, 0.0, last)
        scores = Scores(tokens)
        tree = _found("".join(pieces), scores, text, offset)
        return _Answer(tree, 0.0 if tree is None else scores.whole, last)


def _found(answer: str, scores: Scores, text: str, offset: int) -> Tree | None:
    """The tree of an answer, its leaves scored and found in the text; None where it has none."""
    try:
        tree = read(answer)
    except ValueError:
        return None
    grounder = Grounder(text)
    is_ascii = answer.isascii()

    def find(node: Tree) -> Tree:
        if isinstance(node, dict):
            return {key: find(child) for key, child in node.items()}
        if isinstance(node, list):
            return [find(child) for child in node]
        place = None
        start, end = node.start, node.end
        if isinstance(node.value, str):
            place = grounder.string(node.value)
        elif isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            place = grounder.number(answer[start:end])
            end += 1
        if not is_ascii:
            start, end = len(answer[:start].encode()), len(answer[:end].encode())
        return replace(
            node,
            score=scores.of(start, end),
            place=None if place is None else (place[0] + offset, place[1] + offset),
        )

    return find(tree)


def _extraction(answers: Sequence[_Answer], schema: Schema, spec: ExtractSpec) -> Extraction:
    last = [answer.last for answer in answers]
    empty = Extraction(
        value=None,
        json="",
        fields=(),
        complete=False,
        input_tokens=sum(chunk.prompt_tokens for chunk in last),
        cached_tokens=sum(chunk.cached_tokens for chunk in last),
        output_tokens=sum(chunk.output_tokens for chunk in last),
        forced_tokens=sum(chunk.forced_tokens for chunk in last),
        chunks=len(answers),
        cpu_ms=sum(chunk.cpu_ms or 0.0 for chunk in last),
    )
    trees = [answer.tree for answer in answers if answer.tree is not None]
    if len(trees) < len(answers):
        return empty
    tree = trees[0] if len(trees) == 1 else merge(trees, schema)
    found = list(leaves(tree))
    whole = replace(
        empty,
        complete=True,
        fields=tuple(_field(pointer(path), leaf) for path, leaf in found),
    )
    if spec.require_grounding and any(
        _is_invented(leaf) and not schema.lists(path, leaf.value) for path, leaf in found
    ):
        return replace(whole, abstained=True)
    return replace(whole, value=plain(tree), json=write(tree))


def _field(path: str, leaf: Leaf) -> Field:
    start, end = leaf.place or (None, None)
    return Field(
        path, leaf.score, start, end, grounded=isinstance(leaf.value, str) and start is not None
    )


def _is_invented(leaf: Leaf) -> bool:
    """Whether it is a string that says something, and does not stand in the text."""
    return isinstance(leaf.value, str) and bool(leaf.value.strip()) and leaf.place is None
