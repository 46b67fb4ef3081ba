"""One value from several parts of a text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sprat.text.leaves import Leaf, Tree, plain, read
from sprat.text.merging import merge
from sprat.text.schema import Schema


def tree(value: Any, *, score: float = 0.5, grounded: bool = True) -> Tree:
    """A value with leaves that are all alike."""

    def known(node: Tree) -> Tree:
        if isinstance(node, dict):
            return {key: known(child) for key, child in node.items()}
        if isinstance(node, list):
            return [known(child) for child in node]
        return replace(node, score=score, place=(0, 1) if grounded else None)

    return known(read(json.dumps(value)))


def schema(**properties: Any) -> Schema:
    return Schema(json.dumps({"type": "object", "properties": properties}))


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        ((0.9, False), (0.1, True), "second"),
        ((0.1, True), (0.9, False), "first"),
        ((0.1, True), (0.9, True), "second"),
        ((0.9, False), (0.1, False), "first"),
        ((0.5, True), (0.5, True), "first"),
    ],
)
def test_merging_takes_the_grounded_then_the_more_probable(
    first: tuple[float, bool], second: tuple[float, bool], best: str
) -> None:
    trees = [
        tree({"a": name}, score=score, grounded=grounded)
        for name, (score, grounded) in (("first", first), ("second", second))
    ]
    assert plain(merge(trees, schema(a={"type": "string"}))) == {"a": best}


def test_merging_takes_members_from_wherever_they_are() -> None:
    trees = [tree({"a": 1, "b": {"c": 2}}), tree({"b": {"d": 3}, "e": 4})]
    assert plain(merge(trees, schema())) == {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}


def test_merging_joins_arrays_without_what_comes_twice() -> None:
    trees = [
        tree({"a": ["Anna", "Tom", "Tom"]}),
        tree({"a": ["TOM", "Eve \n Sue"]}),
        tree({"a": []}),
        tree({"a": ["eve sue", "Anna", "Lou"]}),
    ]
    merged = merge(trees, schema(a={"items": {"type": "string"}}))
    assert plain(merged) == {"a": ["Anna", "Tom", "Tom", "Eve \n Sue", "Lou"]}


def test_merging_compares_whole_items() -> None:
    one, two = {"name": "Anna", "age": 3}, {"name": "Anna", "age": 4}
    same = {"age": 3, "name": "anna"}
    merged = merge([tree({"a": [one]}), tree({"a": [two, same]})], schema())
    assert plain(merged) == {"a": [one, two]}


def test_merging_keeps_to_the_limits_of_arrays() -> None:
    trees = [tree({"a": [1, 2]}), tree({"a": [3, 4]})]
    assert plain(merge(trees, schema(a={"maxItems": 3}))) == {"a": [1, 2, 3]}


def test_merging_takes_alternatives_whole() -> None:
    """Members of two alternatives together would fit neither."""
    cat = {"type": "object", "properties": {"purrs": {}}}
    dog = {"type": "object", "properties": {"barks": {}}}
    trees = [tree({"pet": {"purrs": True}}, score=0.2), tree({"pet": {"barks": True}}, score=0.8)]
    merged = merge(trees, schema(pet={"anyOf": [cat, dog]}))
    assert plain(merged) == {"pet": {"barks": True}}


def test_merging_takes_objects_and_arrays_before_null() -> None:
    trees = [tree({"a": None, "b": None}, score=0.9), tree({"a": {}, "b": [1]}, score=0.1)]
    assert plain(merge(trees, schema())) == {"a": {}, "b": [1]}


def test_merging_keeps_what_is_known_of_leaves() -> None:
    best = Leaf("x", 3, 6, score=0.7, place=(40, 41))
    other = Leaf("y", 3, 6, score=0.9)
    assert merge([{"a": other}, {"a": best}], schema()) == {"a": best}
