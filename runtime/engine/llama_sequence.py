"""One live answer: what it has to decode next, how it grows, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sprat.engine.base import Progress
from sprat.engine.llama_draft import Drafter
from sprat.engine.llama_grammar import Matcher
from sprat.engine.llama_lane import Lane
from sprat.engine.llama_sampler import Sampler
from sprat.engine.llama_vocab import Vocabulary
from sprat.engine.stream import TextStream
from sprat.values import FinishReason, IntArray, TokenChoice, TokenLogprob


@dataclass(eq=False, slots=True)
class LiveSequence:
    """A live sequence.

    Attributes
    ----------
    number : int
        The caller's name for it.
    order : int
        Later ones have the greater.
    prompt : int32[T]
        All of it.
    ids : int32[N]
        Tokens to decode next: the rest of the prompt, or what the answer grew by and ``draft``.
    left : int
        Tokens that the answer may still grow by.
    logprobs : int or None
        As in `sprat.engine.base.Start`.
    shared : int
        First tokens of the prompt that others may share.
    adapter : str
        What it is decoded under; empty for none.
    is_making, is_waiting : bool
        Whether it decodes these for others too, or waits until another one has.
    position : int
        Tokens that are decoded.
    draft : list of int
        The guesses at the end of ``ids``.
    reason : str or None
        Why the answer ended.
    """

    number: int
    order: int
    lane: Lane
    vocabulary: Vocabulary
    prompt: IntArray
    ids: IntArray
    left: int
    sampler: Sampler
    stream: TextStream
    matcher: Matcher | None = None
    drafter: Drafter | None = None
    logprobs: int | None = None
    shared: int = 0
    adapter: str = ""
    is_making: bool = False
    is_waiting: bool = False
    position: int = 0
    place: int = -1
    draft: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    _complete: bool = False
    _text: str = ""
    _fresh: list[int] = field(default_factory=list)
    _ends: int = 0
    _scored: list[TokenChoice] = field(default_factory=list)
    _cached: int = 0
    _forced: int = 0
    _drafted: int = 0
    _accepted: int = 0

    def skip_prefix(self) -> None:
        """Go on behind the shared tokens, which were copied for this sequence."""
        self.position = self._cached = self.shared
        self.ids = self.ids[self.shared :]

    def guess(self, room: int) -> int:
        """Add a draft of at most ``room`` tokens to ``ids``; return its length."""
        if self.drafter is None:
            return 0
        # What is checked includes one token that nobody guessed.
        draft = self.drafter.draft(min(room, self.left - 1))
        if draft and self.matcher is not None:
            draft = draft[: self.matcher.count_allowed(draft)]
        self.draft = draft
        self.ids = np.concatenate([self.ids, np.array(draft, np.int32)])
        return len(draft)

    def grow(self, token: int, scored: TokenChoice | None) -> None:
        """Take a token that was chosen, and see whether the answer ends."""
        if self.vocabulary.is_end(token):
            self._ends += 1
            self._end("stop")
            return
        if self.matcher is not None:
            self.matcher.take(token)
        self._append(token, scored)
        if self.matcher is not None and self.matcher.is_over:
            self._end("stop")

    def settle(self) -> None:
        """After all choices of a step: learn from the draft, take what the grammar forces."""
        right = 0
        for guessed, token in zip(self.draft, self._fresh, strict=False):
            if guessed != token:
                break
            right += 1
        wrong = len(self.draft) - right
        if self.drafter is not None and self.draft:
            self.drafter.judge(len(self.draft), right)
        self._drafted += len(self.draft)
        self._accepted += right
        self.draft = []
        if self.reason is None and wrong:
            self.position -= wrong
            self.lane.roll_back(self.place, self.position)
        first = max(len(self._fresh) - 1, 0)
        if self.reason is None and self.matcher is not None:
            for token in self.matcher.take_forced(self.left):
                forced = TokenLogprob(self.vocabulary.piece(token), 0.0)
                self._append(token, None if self.logprobs is None else TokenChoice(forced))
                self._forced += 1
            if self.matcher.is_over:
                self._end("stop")
        if self.drafter is not None:
            self.drafter.append(self._fresh)
        self.ids = np.array(self._fresh[first:], np.int32)

    def _append(self, token: int, scored: TokenChoice | None) -> None:
        self._fresh.append(token)
        self.left -= 1
        self._text += self.stream.feed(self.vocabulary.piece(token))
        if scored is not None:
            self._scored.append(scored)
        if self.stream.stopped:
            self._end("stop")
        elif not self.left:
            self.reason = self.reason or "length"

    def _end(self, reason: FinishReason) -> None:
        self.reason = reason
        self._complete = self.matcher is None or self.matcher.is_complete

    def progress(self) -> Progress:
        """What became of it since the last call."""
        if self.reason is not None:
            self._text += self.stream.flush()
        made = Progress(
            self.number,
            self._text,
            len(self._fresh) + self._ends,
            self.reason,
            complete=self._complete,
            logprobs=tuple(self._scored),
            cached=self._cached,
            forced=self._forced,
            drafted=self._drafted,
            accepted=self._accepted,
        )
        self._text = ""
        self._fresh, self._scored = [], []
        self._ends = self._cached = self._forced = self._drafted = self._accepted = 0
        return made
