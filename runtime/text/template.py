"""Prompts with places for inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sprat.errors import InvalidInput
from sprat.tokenizer import check_text

MOST_CHARACTERS = 4 * 1024 * 1024
"""Longest filled prompt: a placeholder may come again and again."""

TEXT = "text"
"""The placeholder that every prompt has."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
_MARK = re.compile(rf"\{{\{{|\}}\}}|\{{({_NAME})\}}|[{{}}]")


class Template:
    """A prompt with ``{NAME}`` where inputs go; ``{{`` and ``}}`` are braces.

    Nothing else that ``str.format`` knows is there: no attributes, indices, conversions or formats.
    What an input holds is never read as a placeholder.

    Parameters
    ----------
    prompt : str
        With ``{text}`` in it at least once. Names are 1 to 64 ASCII letters, digits and
        underscores, and begin with no digit.

    Raises
    ------
    InvalidInput
        Another brace, or no ``{text}``. Field: ``prompt``.

    Examples
    --------
    >>> Template("In {{}}, {tone}: {text}").fill({"text": "{tone}", "tone": "kindly"})
    'In {}, kindly: {tone}'
    """

    def __init__(self, prompt: str) -> None:
        check_text(prompt, field="prompt")
        self._literals: list[str] = []
        self._names: list[str] = []
        literal, at = "", 0
        for mark in _MARK.finditer(prompt):
            literal += prompt[at : mark.start()]
            at = mark.end()
            if mark[1] is not None:
                self._literals.append(literal)
                self._names.append(mark[1])
                literal = ""
            elif len(mark[0]) == 2:
                literal += mark[0][0]
            else:
                raise InvalidInput(
                    f"prompt: the brace at character {mark.start()} belongs to no placeholder; "
                    "expected {NAME}, or {{ or }} for a brace",
                    field="prompt",
                )
        self._literals.append(literal + prompt[at:])
        if TEXT not in self._names:
            raise InvalidInput("prompt: expected the placeholder {text}", field="prompt")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the placeholders, each once, in the order of the prompt."""
        return tuple(dict.fromkeys(self._names))

    def fill(self, inputs: Mapping[str, str]) -> str:
        """The prompt with its inputs.

        Raises
        ------
        InvalidInput
            An input is missing, or is none of the prompt's (field ``inputs``); or the result is
            longer than `MOST_CHARACTERS` (field ``prompt``).
        """
        for name in self._names:
            if name not in inputs:
                raise InvalidInput(f"inputs: nothing for {{{name}}} of the prompt", field="inputs")
        for name in inputs:
            if name not in self._names:
                shown = f"{{{name}}}" if re.fullmatch(_NAME, name) else "a name that cannot be one"
                raise InvalidInput(f"inputs: the prompt has no placeholder {shown}", field="inputs")
        size = sum(map(len, self._literals)) + sum(len(inputs[name]) for name in self._names)
        if size > MOST_CHARACTERS:
            raise InvalidInput(
                f"prompt: {size} characters with its inputs, at most {MOST_CHARACTERS}",
                field="prompt",
            )
        pairs = zip(self._literals, (inputs[name] for name in self._names), strict=False)
        return "".join(piece for pair in pairs for piece in pair) + self._literals[-1]

    def fill_all(self, value: str) -> str:
        """The prompt with the same input everywhere."""
        return self.fill(dict.fromkeys(self._names, value))
