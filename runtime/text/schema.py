"""JSON Schemas of what is to be extracted: checked, made narrow, asked about places."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from sprat.errors import InvalidInput
from sprat.text.leaves import Path
from sprat.tokenizer import check_text

MOST_BYTES = 64 * 1024
"""Largest schema, in bytes of UTF-8."""

_COMBINING = frozenset(
    {"$dynamicRef", "allOf", "dependentSchemas", "else", "if", "not", "oneOf", "patternProperties"}
    | {"then", "unevaluatedItems", "unevaluatedProperties"}
)


class Schema:
    """A JSON Schema of an object.

    Parameters
    ----------
    source : str
        The schema as JSON, of at most `MOST_BYTES`.

    Attributes
    ----------
    text : str
        The schema without white space, for the model to read.
    grammar : str
        What answers have to fit, as JSON: the schema, where objects that list their ``properties``
        and say nothing of others have no others. Schemas that combine schemas (``allOf``,
        ``oneOf``, ``if`` and the like) stay as they are.

    Raises
    ------
    InvalidInput
        It is too large, no JSON, or no schema of an object. Field: ``schema``.
    """

    def __init__(self, source: str) -> None:
        check_text(source, field="schema")
        if (size := len(source.encode())) > MOST_BYTES:
            _refuse(f"{size} bytes, at most {MOST_BYTES} are accepted")
        try:
            self._root = json.loads(source, parse_constant=_refuse_constant)
            self.text = json.dumps(self._root, ensure_ascii=False, separators=(",", ":"))
            narrow = self._root if _combines(self._root) else _closed(self._root)
            self.grammar = json.dumps(narrow, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            _refuse("nested too deeply")
        except ValueError as error:
            at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            _refuse(f"expected JSON{at}")
        check_text(self.text, field="schema")
        if not self._is_object(self._root, set()):
            _refuse('expected "type": "object" at the top level')
        self._known: dict[Path, list[dict[str, Any]]] = {(): self._expanded([self._root])}

    @property
    def properties(self) -> tuple[str, ...]:
        """Those that the schema itself lists, in its order."""
        listed = self._root.get("properties")
        return tuple(listed) if isinstance(listed, dict) else ()

    def lists(self, path: Path, value: object) -> bool:
        """Whether a value is one of an ``enum``, or a ``const``, at its place."""
        return any(
            ("const" in node and node["const"] == value) or value in _list(node.get("enum"))
            for node in self._at(path)
        )

    def most_items(self, path: Path) -> int | None:
        """Most items of the array at a place; None without a limit."""
        limits = [node.get("maxItems") for node in self._at(path)]
        return min((limit for limit in limits if isinstance(limit, int)), default=None)

    def is_plain_object(self, path: Path) -> bool:
        """Whether one schema alone says what the object at a place holds."""
        nodes = [n for n in self._at(path) if {"properties", "additionalProperties"} & n.keys()]
        return len(nodes) <= 1

    def _at(self, path: Path) -> list[dict[str, Any]]:
        """Every schema that may say what is at a place."""
        if path not in self._known:
            above = self._at(path[:-1])
            below = [child for node in above for child in _children(node, path[-1])]
            self._known[path] = self._expanded(below)
        return self._known[path]

    def _expanded(self, nodes: list[Any]) -> list[dict[str, Any]]:
        """Schemas with those that they refer to or are combined of, each once."""
        found: dict[int, dict[str, Any]] = {}
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if not isinstance(node, dict) or id(node) in found:
                continue
            found[id(node)] = node
            pending.append(self._referred(node.get("$ref")))
            for word in ("anyOf", "oneOf", "allOf"):
                pending.extend(_list(node.get(word)))
        return list(found.values())

    def _is_object(self, node: Any, seen: set[int]) -> bool:
        """Whether a schema takes nothing but objects."""
        if not isinstance(node, dict) or id(node) in seen:
            return False
        seen = seen | {id(node)}
        branches = _list(node.get("anyOf")) or _list(node.get("oneOf"))
        return (
            node.get("type") == "object"
            or self._is_object(self._referred(node.get("$ref")), seen)
            or any(self._is_object(each, seen) for each in _list(node.get("allOf")))
            or (bool(branches) and all(self._is_object(each, seen) for each in branches))
        )

    def _referred(self, reference: Any) -> Any:
        """What a local reference points to; None for anything else."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        node: Any = self._root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            node = node.get(step) if isinstance(node, dict) else None
        return node


def _children(node: dict[str, Any], key: str | int) -> list[Any]:
    """The schemas of a member or an item."""
    if isinstance(key, str):
        properties = node.get("properties")
        if isinstance(properties, dict) and key in properties:
            return [properties[key]]
        patterns = node.get("patternProperties")
        others = list(patterns.values()) if isinstance(patterns, dict) else []
        return [*others, node.get("additionalProperties")]
    first = _list(node.get("prefixItems")) or _list(node.get("items"))
    if key < len(first):
        return [first[key]]
    return [node.get("items"), node.get("additionalItems")]


def _combines(node: Any) -> bool:
    """Whether more than one schema may speak of the same object."""
    if isinstance(node, list):
        return any(map(_combines, node))
    if not isinstance(node, dict):
        return False
    beside = "properties" in node and ("$ref" in node or "anyOf" in node)
    return beside or not _COMBINING.isdisjoint(node) or any(map(_combines, node.values()))


def _closed(node: Any) -> Any:
    """The schema with objects that have no other properties than those that they list."""
    if not isinstance(node, dict):
        return node
    made = dict(node)
    for word in ("properties", "$defs", "definitions"):
        if isinstance(node.get(word), dict):
            made[word] = {key: _closed(child) for key, child in node[word].items()}
    for word in ("items", "additionalProperties", "additionalItems"):
        if word in node:
            made[word] = _closed(node[word])
    for word in ("anyOf", "prefixItems", "items"):
        if isinstance(node.get(word), list):
            made[word] = [_closed(child) for child in node[word]]
    if isinstance(node.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refuse(why: str) -> NoReturn:
    raise InvalidInput(f"schema: {why}", field="schema")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError
