"""Texts and what is asked about them, as the choices that an engine makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sprat.engine.base import MOST_OPTION_TOKENS, Choice, Chosen, GenerativeEngine
from sprat.errors import EngineError, InputTooLong, InvalidInput
from sprat.model.common import note
from sprat.model.instructed import Instructed, common_length
from sprat.tokenizer import check_text
from sprat.values import IntArray, ItemError, Scoring


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the things that are asked about a text.

    Attributes
    ----------
    options : tuple of str
        2 or more, none empty.
    field : str
        Where the options stand in the request, such as ``labels``.
    cue : str
        What the answer begins with, before an option; empty for nothing.
    """

    options: tuple[str, ...]
    field: str
    cue: str = ""


@dataclass(frozen=True, slots=True)
class Choices:
    """What `sprat.model.GenerativeModel.choose` found.

    Attributes
    ----------
    kept : list of (int, int)
        Index of each text that was answered, and the tokens that were read for it: what its
        branches share counts once.
    chosen : list of list of Chosen
        For each of ``kept``, one a branch.
    cpu_ns : list of int
        For each of ``kept``, the CPU time of its tokens in nanoseconds: the wall time of each
        decode times its threads, shared by tokens. What texts share counts for the one that was
        there first; what `sprat.model.prior` asks without a text for none.
    errors : tuple of ItemError
        Texts that cannot be asked about.
    failed : dict of int to EngineError
        Texts that the engine failed on while it answered others, by their indices.
    """

    kept: list[tuple[int, int]]
    chosen: list[list[Chosen]]
    cpu_ns: list[int]
    errors: tuple[ItemError, ...]
    failed: dict[int, EngineError]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int

    @property
    def all_errors(self) -> tuple[ItemError, ...]:
        """Those of ``errors`` and ``failed``, in order."""
        failed = (
            ItemError(index, error.reason, error.message) for index, error in self.failed.items()
        )
        return tuple(sorted((*self.errors, *failed), key=lambda error: error.index))


@dataclass(frozen=True, slots=True)
class Row:
    """The tokens of a branch."""

    cue: IntArray
    options: tuple[IntArray, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prompts and options in tokens.

    Attributes
    ----------
    shared : int32[S]
        What prompts begin with whatever their text.
    texts : list of (int, int32[T])
        Index and prompt of each good text.
    errors : list of ItemError
        For each bad one.
    free : list of int32[T]
        Prompts about texts that say nothing.
    """

    shared: IntArray
    rows: tuple[Row, ...]
    scoring: Scoring
    normalize_length: bool
    adapter: str
    texts: list[tuple[int, IntArray]]
    errors: list[ItemError]
    free: list[IntArray]

    def choices(self, prompt: IntArray) -> list[Choice]:
        """One for each branch."""
        # The last token is decoded for each request: its logits are what is asked for.
        is_kept = common_length(prompt, self.shared) == len(self.shared) < len(prompt)
        several = len(self.rows) > 1
        return [
            Choice(
                _joined(prompt, row.cue),
                len(self.shared) if is_kept else 0,
                row.options,
                self.scoring,
                self.normalize_length,
                common=len(prompt) if several and len(row.cue) else 0,
                # What a prior lifts may be improbable before.
                is_pruned=not self.free,
                adapter=self.adapter,
            )
            for row in self.rows
        ]

    def tokens(self, prompt: IntArray) -> int:
        """Tokens to read about a text: of the prompt and of each cue."""
        return len(prompt) + sum(len(row.cue) for row in self.rows)


def prepare(
    engine: GenerativeEngine,
    prompts: Instructed,
    make_row: Callable[[Branch], Row],
    instructions: str,
    texts: Sequence[str],
    branches: Sequence[Branch],
    *,
    scoring: Scoring,
    normalize_length: bool,
    adapter: str,
    free: Sequence[str],
    partial: bool,
) -> Prepared:
    """Tokenize everything. Errors as in `sprat.model.GenerativeModel.choose`.

    Parameters
    ----------
    make_row : callable
        `tokenize_branch` for the engine.
    free : sequence of str
        Texts that say nothing; they are not checked.
    """
    rows = tuple(map(make_row, branches))
    shared = prompts.shared_tokens(instructions)
    limit = min(engine.most_choice_tokens(row.options) - len(row.cue) for row in rows)
    kept: list[tuple[int, IntArray]] = []
    errors: list[ItemError] = []
    for index, text in enumerate(texts):
        field = f"texts[{index}]"
        try:
            check_text(text, field=field)
            ids = prompts.tokens(instructions, text)
            if len(ids) > limit:
                raise InputTooLong(field=field, tokens=len(ids), limit=limit)
        except (InvalidInput, InputTooLong) as error:
            note(errors, index, error, partial)
            continue
        kept.append((index, ids))
    nothing = [prompts.tokens(instructions, text) for text in free]
    return Prepared(shared, rows, scoring, normalize_length, adapter, kept, errors, nothing)


def tokenize_branch(engine: GenerativeEngine, branch: Branch) -> Row:
    """Cue and options in tokens. Errors as in `sprat.model.GenerativeModel.choose`."""
    # Together, as the model would write it: the space goes to the option's first token.
    lead = f"{branch.cue} " if branch.cue else ""
    whole = [_tokens(engine, lead + option) for option in branch.options]
    cue = _tokens(engine, branch.cue)
    for ids in whole:
        cue = cue[: common_length(cue, ids)]
    options = tuple(ids[len(cue) :] for ids in whole)
    seen: dict[bytes, int] = {}
    for index, option in enumerate(options):
        field = f"{branch.field}[{index}]"
        if len(option) > MOST_OPTION_TOKENS:
            raise InputTooLong(field=field, tokens=len(option), limit=MOST_OPTION_TOKENS)
        if not len(option):
            raise InvalidInput(f"{field}: has no tokens", field=field)
        first = seen.setdefault(option.tobytes(), index)
        if first != index:
            raise InvalidInput(
                f"{field}: the model reads it as it does {branch.field}[{first}]", field=field
            )
    return Row(cue, options)


def _tokens(engine: GenerativeEngine, text: str) -> IntArray:
    return engine.tokenize(text, add_special=False, parse_special=False)


def _joined(prompt: IntArray, cue: IntArray) -> IntArray:
    return np.concatenate([prompt, cue]) if len(cue) else prompt
