"""Schemas: what is refused, what grammars are made of, and what is allowed where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sprat.errors import InvalidInput
from sprat.text.schema import MOST_BYTES, Schema

NAME = {"type": "object", "properties": {"name": {"type": "string"}}}


def schema(**fields: Any) -> Schema:
    return Schema(json.dumps({"type": "object", **fields}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "schema: is empty"),
        (" \n", "schema: holds no visible character"),
        ("{", "schema: expected JSON (line 1)"),
        ('{\n"type":\n object}', "schema: expected JSON (line 3)"),
        ("NaN", "schema: expected JSON"),
        ('{"type":"object","x":Infinity}', "schema: expected JSON"),
        ('"object"', 'schema: expected "type": "object" at the top level'),
        ("[]", 'schema: expected "type": "object"'),
        ("true", 'schema: expected "type": "object"'),
        ("{}", 'schema: expected "type": "object"'),
        ('{"type":"array"}', 'schema: expected "type": "object"'),
        ('{"type":["object","null"]}', 'schema: expected "type": "object"'),
        ('{"$ref":"#/$defs/a"}', 'schema: expected "type": "object"'),
        ('{"$ref":"#"}', 'schema: expected "type": "object"'),
        ('{"anyOf":[{"type":"object"},{"type":"null"}]}', 'schema: expected "type": "object"'),
        ('{"anyOf":[]}', 'schema: expected "type": "object"'),
        ('{"type":"object","title":"\\ud800"}', "schema: half a surrogate pair"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "schema: 120001 bytes, at most 65536"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "schema: nested too deeply"),
        ("[" * 60_000, "schema: "),
    ],
)
def test_schema_refuses(source: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Schema(source)
    assert caught.value.message.startswith(message)
    assert caught.value.field == "schema"


def test_schema_size_is_in_bytes() -> None:
    frame = len(json.dumps({"type": "object", "title": ""}))
    Schema(json.dumps({"type": "object", "title": "x" * (MOST_BYTES - frame)}))
    umlauts = json.dumps({"type": "object", "title": "ü" * (MOST_BYTES // 2)}, ensure_ascii=False)
    with pytest.raises(InvalidInput, match="at most 65536"):
        Schema(umlauts)


@pytest.mark.parametrize(
    "top",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
        {"$ref": "#/$defs/a~1~0b", "$defs": {"a/~b": {"type": "object"}}},
        {"anyOf": [{"type": "object"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "object"}}},
        {"oneOf": [{"type": "object"}]},
        {"allOf": [{"required": ["a"]}, {"type": "object"}]},
        {"type": "object", "allOf": [{"required": ["a"]}]},
        {"type": "object", "properties": {"self": {"$ref": "#"}}},
    ],
)
def test_schema_of_an_object_may_say_so_in_other_words(top: dict[str, Any]) -> None:
    assert json.loads(Schema(json.dumps(top)).text) == top


def test_schema_text_is_compact_and_not_escaped() -> None:
    made = Schema('{\n  "type": "object",\n  "title": "\\u00fc"\n}')
    assert made.text == '{"type":"object","title":"ü"}'


def test_schema_grammar_has_no_properties_that_are_not_listed() -> None:
    source = {
        "type": "object",
        "properties": {
            "a": NAME,
            "b": {"type": "array", "items": NAME},
            "c": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
            "d": {"type": "object", "additionalProperties": NAME},
            "e": {**NAME, "additionalProperties": True},
            "f": {"type": "array", "prefixItems": [NAME]},
            "properties": {"type": "object"},
        },
        "$defs": {"n": NAME},
    }
    closed = {**NAME, "additionalProperties": False}
    grammar = json.loads(Schema(json.dumps(source)).grammar)
    assert grammar["additionalProperties"] is False
    properties = grammar["properties"]
    assert properties["a"] == properties["b"]["items"] == grammar["$defs"]["n"] == closed
    assert properties["d"]["additionalProperties"] == properties["f"]["prefixItems"][0] == closed
    for name in ("c", "e", "properties"):
        assert properties[name] == source["properties"][name]  # type: ignore[index]


@pytest.mark.parametrize(
    "part",
    [
        {"allOf": [NAME]},
        {"oneOf": [NAME]},
        {"not": NAME},
        {"if": NAME, "then": NAME},
        {**NAME, "anyOf": [NAME]},
        {**NAME, "$ref": "#/$defs/n"},
        {**NAME, "patternProperties": {"x": NAME}},
    ],
)
def test_schema_grammar_leaves_combined_schemas_alone(part: dict[str, Any]) -> None:
    """Two schemas that speak of one object, each without other properties, would exclude all."""
    source = {"type": "object", "properties": {"a": part}, "$defs": {"n": NAME}}
    assert json.loads(Schema(json.dumps(source)).grammar) == source


COLOURS = {"enum": ["red", "blue"]}


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (COLOURS, ()),
        ({"$ref": "#/$defs/c"}, ()),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/c"}]}, ()),
        ({"oneOf": [COLOURS, {"type": "string"}]}, ()),
        ({"const": "red"}, ()),
        ({"items": COLOURS}, (7,)),
        ({"prefixItems": [COLOURS], "items": {"type": "string"}}, (0,)),
        ({"prefixItems": [{}], "items": COLOURS}, (1,)),
        ({"items": [{}, COLOURS]}, (1,)),
        ({"items": [{}], "additionalItems": COLOURS}, (1,)),
        ({"properties": {"x": {"items": {"properties": {"y": COLOURS}}}}}, ("x", 3, "y")),
        ({"additionalProperties": COLOURS}, ("anything",)),
        ({"patternProperties": {"^x": COLOURS}}, ("x",)),
        ({"properties": {"r": {"$ref": "#"}, "a": COLOURS}}, ("a",)),
    ],
)
def test_schema_lists_values_of_enums_and_constants(
    part: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    made = schema(properties={"a": part, "b": {}}, **{"$defs": {"c": COLOURS}})
    assert made.lists(("a", *path), "red")
    assert not made.lists(("a", *path), "green")
    assert not made.lists(("b", *path), "red")
    assert not made.lists(("unknown",), "red")


def test_schema_with_references_in_a_circle_has_an_end() -> None:
    again = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}, {"$ref": "#"}]}
    made = schema(properties={"a": again}, **{"$defs": {"a": again}})
    assert not made.lists(("a", "a", "a", "a"), "red")


def test_schema_references_elsewhere_lead_nowhere() -> None:
    made = schema(properties={"a": {"$ref": "https://example.org/x"}, "b": {"$ref": 7}})
    assert not made.lists(("a",), "red")
    assert not made.lists(("b",), "red")


def test_schema_knows_the_limits_of_arrays() -> None:
    made = schema(properties={"a": {"maxItems": 3, "anyOf": [{"maxItems": 2}]}, "b": {}})
    assert made.most_items(("a",)) == 2
    assert made.most_items(("b",)) is None


def test_schema_knows_objects_with_alternatives() -> None:
    made = schema(
        properties={"a": {"anyOf": [NAME, {"type": "null"}]}, "b": {"anyOf": [NAME, NAME]}}
    )
    assert made.is_plain_object(())
    assert made.is_plain_object(("a",))
    assert not made.is_plain_object(("b",))
