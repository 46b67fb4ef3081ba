"""Drafts from the prompt: guesses at the next tokens, which one pass then checks together.

The answer is the same as without: a guess counts only where the sampler chooses that very token.
"""

from __future__ import annotations

import secrets

import numpy as np

from sprat.kernels import NgramIndex
from sprat.values import IntArray

LEAST_DRAFT, MOST_DRAFT = 8, 32
"""Tokens of a draft. A pass over 9, 17 and 33 tokens of SmolLM2-135M (Q8_0, 2 cores) takes 3.1, 4.2
and 6.3 times that over one, and over 5 tokens hardly less than over 9."""

LEAST_MATCH, MOST_MATCH = 3, 8
"""Tokens at the end of the text that have to occur before. Shorter matches are mostly wrong."""

BREAK_EVEN = 0.3
"""Share of guesses that have to be right for drafts to pay, by the figures above."""

_MEMORY = 0.7  # weight of what was seen before, against the latest draft
_LEAST_PAUSE, _MOST_PAUSE = 8, 64  # tokens


class Drafter:
    """Guesses for one sequence, as long as they pay.

    Drafts grow while they are right and shrink when they are not. When fewer than `BREAK_EVEN` of
    the guesses were right lately there is a pause, each twice as long as the last.

    Parameters
    ----------
    prompt : int32[T]
        Where guesses come from, beside the answer itself.
    """

    def __init__(self, prompt: IntArray) -> None:
        # A seed that nobody knows: strangers cannot choose tokens that collide.
        self._index = NgramIndex(LEAST_MATCH, MOST_MATCH, secrets.randbits(64))
        self._index.append(np.ascontiguousarray(prompt, np.int32))
        self._length = LEAST_DRAFT
        self._right = 1.0
        self._pause = _LEAST_PAUSE
        self._wait = 0

    def append(self, tokens: list[int]) -> None:
        """Take tokens that the answer grew by."""
        self._index.append(np.array(tokens, np.int32))
        self._wait = max(0, self._wait - len(tokens))

    def draft(self, most: int) -> list[int]:
        """Guess at most ``most`` next tokens; none where that would not pay."""
        most = min(most, self._length)
        if most < 1 or self._wait:
            return []
        guesses: list[int] = self._index.draft(most).tolist()
        return guesses

    def judge(self, drafted: int, right: int) -> None:
        """Learn from a draft: how many of its tokens were right."""
        self._right = _MEMORY * self._right + (1 - _MEMORY) * right / drafted
        if right == drafted:
            self._length = min(2 * self._length, MOST_DRAFT)
            self._pause = _LEAST_PAUSE
        else:
            self._length = max(right, LEAST_DRAFT)
        if self._right < BREAK_EVEN:
            self._wait = self._pause
            self._pause = min(2 * self._pause, _MOST_PAUSE)
            self._right = BREAK_EVEN  # the next draft decides
