"""Where chat templates run: programs that came with a model.

jinja2's sandbox keeps them from Python's objects. A budget keeps them from running or growing
without end: loop turns, calls, and the texts and lists that they work on or build are counted. Of
filters and methods there are those that chat templates use, and whose results are counted or no
longer than what they were given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_STEPS = 1_000_000
"""Turns of loops in one rendering: about a second."""

_STEPS_OF_A_CALL = 10

MOST_CHARACTERS = 10_000_000
"""Characters and list elements that one rendering may handle, beside 64 for each of the chat's."""

BUDGET = "the budget of this rendering"
"""Name of the `Budget` among the values of a rendering. No template can spell it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    """abs count d default dictsort first float int items last length list map max min reject
    rejectattr reverse round select selectattr sort unique"""
)
_TEXT_FILTERS = _words("capitalize e escape lower safe title trim upper")
_TEXT_METHODS = _words(
    """capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper lower
    lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split
    splitlines startswith strip title upper"""
)
_DATE_LAYOUT = re.compile(r"(?:[^%]|%-?[a-zA-Z%]){0,80}")
_MOST_INDENT = 16


class RefusalError(TemplateError):
    """What a template raises with ``raise_exception``."""


class OverBudgetError(SecurityError):
    """A template that runs or grows beyond all use."""


class Budget:
    """What one rendering may still do.

    Parameters
    ----------
    characters : int
        Of the chat's contents.
    """

    def __init__(self, characters: int) -> None:
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS + 64 * characters

    def step(self, count: int = 1) -> None:
        """Count the turn of a loop; what takes longer counts as several."""
        self._steps -= count
        if self._steps < 0:
            raise OverBudgetError(f"it takes more than {MOST_STEPS} steps")

    def build(self, characters: int) -> None:
        """Count characters of a text, or elements of a list."""
        self._characters -= characters
        if self._characters < 0:
            raise OverBudgetError("it handles too much text")

    def text(self, value: Any) -> str:
        """A value as text, counted before it is built."""
        self._count(value)
        return str(value)

    def _count(self, value: Any) -> None:
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        if isinstance(value, (list, tuple)):
            for item in value:
                self.step()
                self._count(item)
        elif isinstance(value, str):
            self.build(len(value))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates, with the helpers that they expect."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=_finalize,
        )
        known = self.filters
        self.filters = {
            **{name: known[name] for name in _FILTERS},
            **{name: _of_text(known[name]) for name in _TEXT_FILTERS},
            "_concat": _concat,
            "_counted": _counted,
            "_turns": _turns,
            "join": _join,
            "replace": _replace,
            "string": _string,
            "tojson": _tojson,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("dict", "namespace", "range")},
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,
    ) -> str:
        given = [each for each in source.find_all(nodes.Filter) if each.node is not None]
        for each in given:
            each.node = _filtered(each.node, "_counted")
        for loop in source.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "_turns")
        for concatenation in source.find_all(nodes.Concat):
            parts = nodes.List(concatenation.nodes, lineno=concatenation.lineno)
            concatenation.nodes = [_filtered(parts, "_concat")]
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Count what ``+`` and ``*`` build; refuse ``**``, and ``%`` on texts."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise OverBudgetError(f"it uses {operator}, which can make much out of little")
        sizes = _size(left), _size(right)
        _budget(context).build(sum(sizes))
        if operator == "*":
            for size, times in zip(sizes, (right, left), strict=True):
                _budget(context).build(max(0, size * times if isinstance(times, int) else 0))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Count a call, and the text whose method it is."""
        _budget(__context).step(_STEPS_OF_A_CALL)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _budget(__context).build(len(owner))
            if __obj.__name__ == "replace":
                return _replace(__context, owner, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> None:
        """No ``format``: it can make much out of little."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of a text, only known methods."""
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)


class _Generation(Extension):
    """``{% generation %}`` marks answers for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _filtered(node: nodes.Node | None, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=getattr(node, "lineno", None))


def _size(value: Any) -> int:
    """Characters of a text, elements of a list, bits of a number."""
    if isinstance(value, int):
        return value.bit_length()
    return len(value) if isinstance(value, (str, list, tuple)) else 1


def _budget(context: Context) -> Budget:
    budget = context.parent[BUDGET]
    assert isinstance(budget, Budget)
    return budget


def _of_text(known: Callable[..., str]) -> Callable[..., str]:
    def on_text(value: Any, *args: Any, **kwargs: Any) -> str:
        if isinstance(value, (list, tuple, dict)):
            raise OverBudgetError("it uses a filter for texts on a list")
        return known(value, *args, **kwargs)

    return on_text


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    return _budget(context).text(value) if isinstance(value, (list, tuple, dict)) else value


@pass_context
def _turns(context: Context, iterable: Any) -> Iterator[Any]:
    for item in iterable:
        _budget(context).step()
        yield item


@pass_context
def _counted(context: Context, value: Any) -> Any:
    if isinstance(value, (str, list, tuple, dict, range)):
        _budget(context).build(len(value))
    return value


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    return "".join(map(_budget(context).text, parts))


@pass_context
def _join(context: Context, value: Any, d: str = "") -> str:
    texts = [_budget(context).text(item) for item in value]
    _budget(context).build(len(d) * len(texts))
    return d.join(texts)


@pass_context
def _replace(context: Context, text: Any, old: str, new: str, count: int | None = None) -> str:
    before = _budget(context).text(text)
    _budget(context).build(before.count(old) * len(new))
    return before.replace(old, new, -1 if count is None else count)


@pass_context
def _string(context: Context, value: Any) -> str:
    return _budget(context).text(value)


@pass_context
def _tojson(
    context: Context,
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if indent is not None and not 0 <= indent <= _MOST_INDENT:
        raise OverBudgetError(f"it indents by more than {_MOST_INDENT}")
    _budget(context).text(value)
    return json.dumps(
        value,
        indent=indent,
        ensure_ascii=ensure_ascii,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise RefusalError(message)


def _strftime_now(layout: str) -> str:
    if not _DATE_LAYOUT.fullmatch(layout):
        raise OverBudgetError("it asks for an unusual date")
    return datetime.now().astimezone().strftime(layout)
