"""Prompts of instructions and a text, in a model's own chat template."""

from __future__ import annotations

import functools

import numpy as np

from sprat.engine.base import GenerativeEngine
from sprat.errors import InvalidInput
from sprat.values import IntArray, Message

PROBES = ("0", "Text")
"""Texts that begin differently: what prompts about both begin with is there without a text."""

KEPT = 64
"""Instructions whose tokens are kept, those that were used last."""


class Instructed:
    """Makes prompts. Thread-safe.

    The instructions are the system's message; where the template takes none, or leaves it out, they
    stand at the head of the user's.
    """

    def __init__(self, engine: GenerativeEngine) -> None:
        self._engine = engine
        # The instructions of a task come with each of its requests.
        self._shared = functools.lru_cache(maxsize=KEPT)(self._find_shared)
        self._takes_system: bool | None = None

    def chat(self, instructions: str, text: str) -> list[Message]:
        """The chat about a text."""
        if self._takes_system is None:
            self._takes_system = self._find_out()
        if self._takes_system:
            return [Message("system", instructions), Message("user", text)]
        return [Message("user", f"{instructions}\n\n{text}")]

    def tokens(self, instructions: str, text: str) -> IntArray:
        """The prompt about a text: int32[T]. Errors as in `GenerativeEngine.chat_tokens`."""
        return self._engine.chat_tokens(self.chat(instructions, text))

    def shared_tokens(self, instructions: str) -> IntArray:
        """What the prompts about all texts begin with: int32[S].

        A text whose first characters merge with the template's gives another prompt still.
        """
        return self._shared(instructions)

    def _find_shared(self, instructions: str) -> IntArray:
        one, other = (self.tokens(instructions, text) for text in PROBES)
        return one[: common_length(one, other)]

    def _find_out(self) -> bool:
        """Whether what the system says gets into the prompt."""
        user = Message("user", PROBES[1])
        try:
            one, other = (
                self._engine.chat_tokens([Message("system", text), user]) for text in PROBES
            )
        except InvalidInput:
            return False
        return not np.array_equal(one, other)


def common_length(one: IntArray, other: IntArray) -> int:
    """How many tokens two rows have in common at their start."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
