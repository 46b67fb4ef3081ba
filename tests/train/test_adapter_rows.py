"""Rows for adapters: what is read, what is refused and where, what is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sprat.errors import DataError, InvalidInput
from sprat.train.adapter_rows import Rows, hold_out, read_rows, with_labels
from sprat.values import ExtractSpec, Label, LabelSet, TransformSpec

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "who": {"type": "string"},
            "when": {"type": "array", "items": {"type": "string"}},
            "more": {"type": "object", "properties": {"a": {}, "b": {}}},
        },
    }
)
EXTRACT = ExtractSpec("base", SCHEMA)


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def span(field: str, start: int, end: int, **more: str) -> dict[str, Any]:
    return {"field": field, "start": start, "end": end, **more}


def test_adapter_rows_of_spans_become_values(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {
            "text": "At 8 or 9, Zoé",
            "spans": [span("when", 3, 4), span("when", 8, 9), span("who", 11, 14, text="Zoé")],
            "requested": ["who"],
        },
        {"text": "Hello", "spans": []},
    )
    rows = read_rows(path, EXTRACT)
    assert rows.answers == ('{"who":"Zoé","when":["8","9"]}', "{}")
    assert rows.texts == ("At 8 or 9, Zoé", "Hello")
    assert rows.lines == (1, 2)


def test_adapter_rows_of_values_have_keys_in_the_order_of_the_schema(tmp_path: Path) -> None:
    value = {"other": 1, "more": {"b": 2.5, "a": [{"z": None}]}, "who": "me"}
    rows = read_rows(jsonl(tmp_path, {"text": "x", "value": value}), EXTRACT)
    assert rows.answers == ('{"who":"me","more":{"a":[{"z":null}],"b":2.5},"other":1}',)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "expected either value or spans, found neither"),
        ({"value": {}, "spans": []}, "expected either value or spans, found both"),
        ({"value": {"who": "x" * 5_000_000}}, "value: 5000010 bytes, at most 4194304 are"),
        ({"value": nested(900)}, "value: nested too deeply"),
        ({"value": {"who": float("nan")}}, "value: holds a number that JSON does not have"),
        ({"value": [1]}, "value: expected an object"),
        ({"spans": {}}, "spans: expected a list"),
        ({"spans": [3]}, "spans[0]: expected an object"),
        ({"spans": [span("who", 0, 1), span("nobody", 0, 1)]}, "spans[1].field: none of the"),
        ({"spans": [span("who", 0, 99)]}, "spans[0]: expected 0 <= start < end <= 6"),
        ({"spans": [span("who", 2, 2)]}, "spans[0]: expected 0 <= start < end"),
        ({"spans": [span("who", -1, 2)]}, "spans[0]: expected 0 <= start < end"),
        ({"spans": [{"field": "who", "start": True, "end": 2}]}, "spans[0]: expected 0 <="),
        ({"spans": [span("who", 0, 1, text="?")]}, "spans[0].text: not what stands in the text"),
        ({"spans": [span("who", 0, 1), span("who", 2, 3)]}, "spans[1].field: twice"),
    ],
)
def test_adapter_rows_name_the_line_of_what_is_no_value(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path, {"text": "fine", "value": {}}, {"text": "secret", **row})
    with pytest.raises(DataError) as error:
        read_rows(path, EXTRACT)
    assert error.value.line == 2
    assert message in error.value.message
    assert "secret" not in error.value.message


def test_adapter_rows_for_a_prompt_need_its_inputs(tmp_path: Path) -> None:
    spec = TransformSpec("base", "In {tone}: {text} ({tone})")
    path = jsonl(tmp_path, {"text": "a", "target": "b", "tone": "anger", "other": 1})
    rows = read_rows(path, spec)
    assert (rows.texts, rows.answers, rows.inputs) == (("a",), ("b",), ({"tone": "anger"},))
    with pytest.raises(DataError, match="1: tone: missing"):
        read_rows(jsonl(tmp_path, {"text": "a", "target": "b"}), spec)
    with pytest.raises(InvalidInput, match="expected the placeholder"):
        read_rows(path, TransformSpec("base", "no place"))


def test_adapter_rows_name_labels_unless_the_spec_does(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"text": text, "label": text} for text in "bca"))
    assert with_labels(LabelSet("base", ()), path).labels == (Label("a"), Label("b"), Label("c"))
    named = LabelSet("base", (Label("x"),))
    assert with_labels(named, path) is named
    assert read_rows(path, named).answers == ("b", "c", "a")


def rows(*texts: str, labels: str = "") -> Rows:
    answers = tuple(labels) or ("{}",) * len(texts)
    lines = tuple(range(10, 10 + len(texts)))
    return Rows(texts, answers, ({},) * len(texts), lines, "rows")


def test_adapter_rows_hold_out_texts_that_are_the_same_together() -> None:
    texts = [f"Text {number}" for number in range(10)]
    every = rows(*texts, *(text.upper() for text in texts))
    kept, held = hold_out(every, 0.3, kind="extract", seed=1)
    assert (len(kept), len(held)) == (14, 6)
    assert sorted([*kept.lines, *held.lines]) == list(every.lines)
    fold = [{text.casefold() for text in part.texts} for part in (kept, held)]
    assert not fold[0] & fold[1]
    assert hold_out(every, 0.3, kind="extract", seed=1) == (kept, held)
    assert hold_out(every, 0.3, kind="extract", seed=2) != (kept, held)


def test_adapter_rows_hold_out_some_of_each_label() -> None:
    every = rows(*(f"t{number}" for number in range(20)), labels="ab" * 10)
    kept, held = hold_out(every, 0.2, kind="classify", seed=0)
    assert sorted(held.answers) == ["a", "a", "b", "b"]
    assert len(kept) == 16
    for part in (kept, held):
        for text, line in zip(part.texts, part.lines, strict=True):
            assert line == 10 + int(text[1:])


def test_adapter_rows_never_hold_out_everything() -> None:
    kept, held = hold_out(rows("a", "b"), 0.9, kind="transform", seed=0)
    assert (len(kept), len(held)) == (1, 1)
    with pytest.raises(DataError, match="expected 2 or more different texts, found 1"):
        hold_out(rows("a", "A"), 0.5, kind="transform", seed=0)
