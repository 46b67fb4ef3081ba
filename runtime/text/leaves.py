"""JSON as a tree whose leaves know where they stand: what becomes of a model's answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

MOST_DEPTH = 30
"""Deepest nesting of objects and arrays: protobuf readers refuse a Struct of much more."""

Path = tuple[str | int, ...]
"""Keys and indices from the root to a place in a tree."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A string, a number, a boolean or null, and what is known of it.

    Attributes
    ----------
    value : str, int, float, bool or None
        What it says.
    start, end : int
        Characters of the JSON, from ``start`` to before ``end``, that it takes.
    score : float
        Probability in [0, 1] by the lights of the model that wrote it.
    place : (int, int) or None
        Characters of the text that it was taken from, where it stands in there.
    """

    value: str | int | float | bool | None
    start: int
    end: int
    score: float = 0.0
    place: tuple[int, int] | None = None


Tree = dict[str, "Tree"] | list["Tree"] | Leaf


def read(text: str) -> Tree:
    """The tree of a JSON text.

    The last one of members with the same key counts. Half a surrogate pair, which no text can
    hold, becomes U+FFFD.

    Raises
    ------
    ValueError
        It is no JSON, is nested deeper than `MOST_DEPTH`, or has a number beyond the range of
        float64. The message has no part of the text.

    Examples
    --------
    >>> read('{"a":[1,"b"]}')["a"][1]
    Leaf(value='b', start=8, end=11, score=0.0, place=None)
    """
    tree, end = _tree(text, _skip(text, 0), 0)
    if _skip(text, end) < len(text):
        raise ValueError(f"expected the end of the JSON at character {end}")
    return tree


def plain(tree: Tree) -> Any:
    """The value of a tree: dicts, lists, strings, numbers, booleans and None."""
    if isinstance(tree, Leaf):
        return tree.value
    if isinstance(tree, dict):
        return {key: plain(child) for key, child in tree.items()}
    return [plain(child) for child in tree]


def write(tree: Tree) -> str:
    """The value of a tree as JSON without white space."""
    return json.dumps(plain(tree), ensure_ascii=False, separators=(",", ":"))


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf with its path, in the order of the tree."""
    if isinstance(tree, Leaf):
        yield path, tree
    else:
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(child, (*path, key))


def pointer(path: Path) -> str:
    """A path as JSON Pointer (RFC 6901).

    Examples
    --------
    >>> pointer(("items", 0, "a/b"))
    '/items/0/a~1b'
    """
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in path)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr] # it matches everywhere


def _tree(text: str, at: int, depth: int) -> tuple[Tree, int]:
    opening = text[at : at + 1]
    if opening not in ("{", "["):
        value, end = _scalar(text, at)
        return Leaf(value, at, end), end
    if depth == MOST_DEPTH:
        raise ValueError(f"nested deeper than {MOST_DEPTH} levels")
    members: dict[str, Tree] = {}
    items: list[Tree] = []
    made, closing = (members, "}") if opening == "{" else (items, "]")
    at = _skip(text, at + 1)
    if text.startswith(closing, at):
        return made, at + 1
    while True:
        if opening == "{":
            key, at = _scalar(text, at)
            at = _skip(text, at)
            if not isinstance(key, str) or not text.startswith(":", at):
                raise ValueError(f"expected a key and a colon at character {at}")
            members[key], at = _tree(text, _skip(text, at + 1), depth + 1)
        else:
            item, at = _tree(text, at, depth + 1)
            items.append(item)
        at = _skip(text, at)
        if text.startswith(closing, at):
            return made, at + 1
        if not text.startswith(",", at):
            raise ValueError(f"expected a comma or {closing} at character {at}")
        at = _skip(text, at + 1)


def _scalar(text: str, at: int) -> tuple[str | int | float | bool | None, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except ValueError:  # its message may be about the text, and the error holds it
        raise ValueError(f"no JSON value at character {at}") from None
    if isinstance(value, str):
        return (value if value.isascii() else _SURROGATE.sub("\ufffd", value)), end
    if value is None or isinstance(value, bool):
        return value, end
    if isinstance(value, (int, float)) and _is_float64(value):
        return value, end
    raise ValueError(f"expected a number within the range of float64 at character {at}")


def _is_float64(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
