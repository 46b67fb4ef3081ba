"""A generator that writes what a test tells it to, for tasks that read what a model wrote."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from doubles import WAIT_S, Generator

from sprat.engine.base import CompiledGrammar, Progress, Start
from sprat.errors import InvalidInput
from sprat.values import Grammar, TokenChoice, TokenLogprob

CHANCE = 0.5
"""Probability of each of its tokens."""


@dataclass
class Writer(Generator):
    """A `GenerativeEngine` with one token for each character, in prompts and in answers.

    Attributes
    ----------
    answer : callable
        What it writes about the last message of a chat; an answer that ends is complete.
    starts : list of Start
        All that it was asked to do.
    grammars : list of Grammar
        All that it was asked to compile.
    refusal : str
        Why it compiles no grammar; empty: it does.
    broken : str
        It fails on texts with this in them; empty: on none.
    """

    context_length: int = 4000
    cells: int = 100_000
    answer: Callable[[str], str] = lambda text: "{}"
    starts: list[Start] = field(default_factory=list)
    grammars: list[Grammar] = field(default_factory=list)
    refusal: str = ""
    broken: str = ""

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        self.grammars.append(grammar)
        if self.refusal:
            raise InvalidInput(f"grammar: {self.refusal}", field="grammar")
        return grammar

    def start(self, start: Start) -> None:
        self.starts.append(start)
        super().start(start)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        self._check_owner()
        assert self.gate.wait(WAIT_S), "the gate stayed shut"
        made = []
        for number, sequence in list(self.live.items()):
            text = last_message(sequence.start)
            letters = self.answer(text)
            if self.broken and self.broken in text:
                del self.live[number]
                made.append(Progress(number, "", 0, error="it broke"))
                continue
            letter = letters[sequence.done : sequence.done + 1]
            sequence.done += 1
            is_whole = sequence.done >= len(letters)
            is_over = is_whole or sequence.done >= sequence.start.sampling.max_tokens
            if is_over:
                del self.live[number]
            token = TokenChoice(TokenLogprob(letter.encode(), math.log(CHANCE)))
            made.append(
                Progress(
                    number,
                    letter,
                    1,
                    ("stop" if is_whole else "length") if is_over else None,
                    complete=is_whole,
                    logprobs=() if sequence.start.logprobs is None else (token,),
                    cached=sequence.start.shared if sequence.done == 1 else 0,
                    forced=int(letter in '{"}'),
                )
            )
        return made


def said(start: Start) -> str:
    """The prompt as text: each message behind its role in angle brackets."""
    return "".join(map(chr, start.prompt.tolist()[1:]))


def last_message(start: Start) -> str:
    """What the user said."""
    return said(start).partition("<user>")[2]
