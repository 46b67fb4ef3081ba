"""A model's own chat template, rendered so that what users write stays what users write.

A template is a program that came with a model. It runs in jinja2's sandbox, which keeps it from
Python's objects, and on a budget, which keeps it from running or growing without end: loops, calls
and the texts that it builds are counted. Of filters and methods it has those that chat templates
need and that cannot make much out of little.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join, do_replace
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sprat.errors import InvalidInput, UnsupportedModel
from sprat.values import Message

MOST_STEPS = 1_000_000
"""Loop turns and calls of one rendering: about a second."""

MOST_CHARACTERS = 1_000_000
"""Characters that one rendering may build, beside 64 for each of the chat's."""

_FILTERS = frozenset(
    "abs capitalize count d default dictsort e escape first float int items last length list lower"
    " map max min reject rejectattr replace reverse round safe select selectattr sort string title"
    " trim unique upper".split()
)
_TEXT_METHODS = frozenset(
    "capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper lower"
    " lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split"
    " splitlines startswith strip title upper".split()
)
_DATE_LAYOUT = re.compile(r"(?:[^%]|%-?[a-zA-Z%]){0,80}")
_BUDGET = "the budget of this rendering"
_BLANK = "x"


def blanked(messages: Sequence[Message]) -> list[Message]:
    """The same chat with nothing in it: each content that is not blank becomes one letter."""
    return [Message(m.role, _BLANK if m.content.strip() else m.content) for m in messages]


class ChatTemplate:
    """A chat template, compiled.

    Thread-safe.

    Parameters
    ----------
    template : str
        Jinja source, as the model's file holds it.
    bos, eos : str
        Texts of the special tokens that templates use.

    Raises
    ------
    UnsupportedModel
        The source is no template, or needs what ours have not.
    """

    def __init__(self, template: str, *, bos: str, eos: str) -> None:
        self._values = {"bos_token": bos, "eos_token": eos, "tools": None, "documents": None}
        try:
            self._template = _Environment().from_string(template)
        except (TemplateError, RecursionError) as error:
            reason = getattr(error, "message", None) or type(error).__name__
            raise UnsupportedModel(f"the chat template is malformed: {reason}") from None

    def render(self, messages: Sequence[Message], *, protect: re.Pattern[str]) -> list[str]:
        """The prompt for a chat, ending where the answer begins.

        Parameters
        ----------
        protect : re.Pattern
            Matches, without taking anything, wherever in a text a special token begins.

        Returns
        -------
        list of str
            The prompt in parts: one, unless a content has the text of special tokens. Then it is cut
            inside of each. Tokenized one by one with special tokens parsed, the parts have those of
            the template and none of the contents.

        Raises
        ------
        InvalidInput
            The template refuses this chat: some take no system message, or want turns to alternate.
        UnsupportedModel
            The template fails, or exceeds its budget.
        """
        cut = "".join(chr(_PRIVATE + secrets.randbelow(0xFFFE)) for _ in range(4))
        chat = [
            {"role": m.role, "content": protect.sub(lambda found: found[0] + cut, m.content)}
            for m in messages
        ]
        budget = _Budget(sum(len(m["content"]) for m in chat))
        pieces = []
        try:
            for piece in self._template.generate(
                {_BUDGET: budget}, messages=chat, add_generation_prompt=True, **self._values
            ):
                budget.build(len(piece))
                pieces.append(piece)
        except _Refusal as refusal:
            raise self._refused(messages, protect, str(refusal)) from None
        except Exception as error:  # a program of unknown origin may come to anything
            reason = str(error) if isinstance(error, _OverBudget) else type(error).__name__
            raise UnsupportedModel(f"the chat template failed on this chat: {reason}") from None
        return "".join(pieces).split(cut)

    def _refused(
        self, messages: Sequence[Message], protect: re.Pattern[str], reason: str
    ) -> InvalidInput | UnsupportedModel:
        """The error for a chat that the template refuses, in its words if they hold no content."""
        blank = blanked(messages)
        if list(messages) != blank:
            try:
                self.render(blank, protect=protect)
            except (InvalidInput, UnsupportedModel) as error:
                return error
            reason = "it has a content that the template does not take"
        return InvalidInput(f"the chat template refuses this chat: {reason}", field="chat")


class _Refusal(TemplateError):
    """What a template raises with ``raise_exception``."""


class _OverBudget(SecurityError):
    """A template that runs or grows beyond all use."""


class _Budget:
    def __init__(self, characters: int) -> None:
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS + 64 * characters

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise _OverBudget(f"more than {MOST_STEPS} steps")

    def build(self, characters: int) -> None:
        self._characters -= characters
        if self._characters < 0:
            raise _OverBudget("it builds too much text")


def _budget(context: Context) -> _Budget:
    budget = context.parent[_BUDGET]  # no template can spell this name
    assert isinstance(budget, _Budget)
    return budget


class _Generation(Extension):
    """``{% generation %}``: marks answers for training; here, just its body."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.filters = {name: self.filters[name] for name in sorted(_FILTERS)} | {
            "_concat": _concat,
            "_turns": _turns,
            "join": _join,
            "replace": _replace,
            "tojson": _tojson,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("dict", "namespace", "range")},
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        for loop in source.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "_turns")
        for concatenation in source.find_all(nodes.Concat):
            parts = nodes.List(concatenation.nodes, lineno=concatenation.lineno)
            concatenation.nodes = [_filtered(parts, "_concat")]
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sizes = _size(left), _size(right)
        _budget(context).build(sum(sizes))
        if operator == "*":
            repeats = right if isinstance(right, int) and not isinstance(left, int) else left
            is_number = isinstance(left, (int, float)) and isinstance(right, (int, float))
            _budget(context).build(0 if is_number else max(sizes) * int(repeats))
        elif operator == "**" or (operator == "%" and isinstance(left, str)):
            raise _OverBudget(f"it uses {operator!r}, which can make much out of little")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        _budget(__context).step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            return _replace(__context, owner, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _size(value: Any) -> int:
    """Characters, elements, or bits of a number."""
    if isinstance(value, int):
        return value.bit_length()
    return len(value) if isinstance(value, (str, list, tuple)) else 1


@pass_context
def _turns(context: Context, iterable: Any) -> Iterator[Any]:
    budget = _budget(context)
    for item in iterable:
        budget.step()
        yield item


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _budget(context).build(sum(map(len, texts)))
    return "".join(texts)
