"""JSON that a model wrote: every leaf with its place, and what no value can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.text.leaves import MOST_DEPTH, Leaf, leaves, plain, pointer, read, write

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
FINITE = SCALARS.filter(lambda value: value not in (float("inf"), float("-inf")))
VALUES = st.recursive(
    FINITE, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=20
)


@given(VALUES, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")]))
def test_leaves_are_those_of_the_json_and_stand_where_they_say(
    value: Any, ascii_only: bool, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    tree = read(text)
    assert plain(tree) == value
    for _, leaf in leaves(tree):
        assert json.loads(text[leaf.start : leaf.end]) == leaf.value
    assert json.loads(write(tree)) == value


def test_leaves_have_paths_in_order() -> None:
    tree = read('{"b":[1,{"a/b~c":null}],"a":{},"c":"x"}')
    assert [pointer(path) for path, _ in leaves(tree)] == ["/b/0", "/b/1/a~1b~0c", "/c"]
    assert pointer(()) == ""


def test_leaves_of_the_last_of_two_like_keys() -> None:
    tree = read('{"a":{"x":1,"y":2},"b":0,"a":{"x":3}}')
    assert plain(tree) == {"a": {"x": 3}, "b": 0}
    assert [pointer(path) for path, _ in leaves(tree)] == ["/a/x", "/b"]


def test_leaves_keep_every_digit_of_an_integer() -> None:
    digits = "123456789012345678901234567890"
    assert write(read(digits)) == digits


def test_leaves_hold_no_half_of_a_pair() -> None:
    tree = read(r'{"\ud83d\ude00\ud83d":"\ude00 \ud83d\ude00"}')
    assert plain(tree) == {"\U0001f600\ufffd": "\ufffd \U0001f600"}


def test_leaves_nest_as_deep_as_they_may() -> None:
    deepest = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert write(read(deepest)) == deepest
    with pytest.raises(ValueError, match=f"deeper than {MOST_DEPTH} levels"):
        read(f"[{deepest}]")
    with pytest.raises(ValueError, match="deeper"):
        read('{"a":' * 100_000)


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "9" * 400, "-" + "9" * 5000, "NaN", "Infinity", "-Infinity"]
)
def test_leaves_are_no_numbers_beyond_float64(number: str) -> None:
    with pytest.raises(ValueError, match="at character 5"):
        read(f'{{"a":{number}}}')
    assert read("1e300") == Leaf(1e300, 0, 5)


@pytest.mark.parametrize(
    "secret",
    [
        *("", "secret", '"secret', '{"secret"}', '{"secret":1', '{"secret":1,}', "[1 2]", "[1,]"),
        *(
            '{1:"secret"}',
            '"secret" 1',
            '{"secret" 1}',
            "{",
            "[",
            '"\\q"',
            '"a\nb"',
            "01",
            "-",
            "+1",
        ),
    ],
)
def test_leaves_refuse_what_is_no_json_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError, match="character") as caught:
        read(secret)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
