"""Rows with spans: what is read, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sprat.errors import DataError
from sprat.train.spans import GoldSpan, SpanDataset, overlaps, read_spans, resolve_overlaps

TEXT = "Caf\u00e9 for Zoe\u0308 \U0001f600 at\r\n7:30 pm"


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def span(field: str, start: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"field": field, "start": start, "end": end, **more}


def test_spans_count_code_points(tmp_path: Path) -> None:
    at = TEXT.index("7:30")
    rows = read_spans(
        write(
            tmp_path,
            {
                "text": TEXT,
                "spans": [
                    span("time", at, len(TEXT), text="7:30 pm"),
                    span("name", 9, 13, text="Zoe\u0308"),
                ],
                "requested": ["name", "time", "name"],
                "comment": "not read",
            },
            "",
            {"text": "none", "spans": []},
        )
    )
    assert rows.spans == ((GoldSpan(9, 13, "name"), GoldSpan(at, len(TEXT), "time")), ())
    assert rows.requested == (("name", "time"), ())
    assert (rows.lines, rows.fields, len(rows)) == ((1, 3), ("name", "time"), 2)
    assert rows.take([1]).texts == ("none",)
    assert rows.take([1]).lines == (3,)


def test_spans_leave_out_white_space_at_their_ends(tmp_path: Path) -> None:
    rows = read_spans(write(tmp_path, {"text": "at  7 pm ", "spans": [span("time", 2, 9)]}))
    assert rows.spans == ((GoldSpan(4, 8, "time"),),)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[1]", "expected a JSON object, found a list"),
        ("{", "not JSON at column"),
        ({"spans": []}, "text: missing"),
        ({"text": " ", "spans": []}, "text: empty"),
        ({"text": "\ud800", "spans": []}, "text: a lone surrogate at character 1"),
        ({"text": "a"}, "spans: missing"),
        ({"text": "a", "spans": {}}, "spans: expected a list, found an object"),
        ({"text": "a", "spans": [3]}, r"spans\[0\]: expected a JSON object, found a number"),
        ({"text": "a", "spans": [{"start": 0, "end": 1}]}, r"spans\[0\].field: missing"),
        ({"text": "a", "spans": [span(" ", 0, 1)]}, r"spans\[0\].field: empty"),
        ({"text": "a", "spans": [span("f" * 129, 0, 1)]}, r"spans\[0\].field: 129 characters"),
        ({"text": "a", "spans": [span("a\tb", 0, 1)]}, r"spans\[0\].field: a control character"),
        ({"text": "a", "spans": [{"field": "f", "start": 0}]}, r"spans\[0\].end: missing"),
        ({"text": "a", "spans": [span("f", "0", 1)]}, r"start: expected a whole number, found a s"),
        ({"text": "a", "spans": [span("f", 0, True)]}, r"end: expected a whole number, found true"),
        ({"text": "a", "spans": [span("f", 0.0, 1)]}, "start: expected a whole number, found a n"),
        ({"text": "ab", "spans": [span("f", 0, 3)]}, r"<= 2, the characters of the text, found 0 "),
        ({"text": "ab", "spans": [span("f", -1, 1)]}, "found -1 and 1"),
        ({"text": "ab", "spans": [span("f", 1, 1)]}, "found 1 and 1"),
        ({"text": "a  b", "spans": [span("f", 1, 3)]}, "nothing but white space at characters 1"),
        (
            {"text": "table for 5", "spans": [span("f", 10, 11, text="6")]},
            r"spans\[0\].text: not what stands at characters 10 to 11",
        ),
        ({"text": "ab", "spans": [span("f", 0, 1)] * 2}, r"spans\[0\] and spans\[1\] are the same"),
        ({"text": "a", "spans": [], "requested": "f"}, "requested: expected a list, found a str"),
        ({"text": "a", "spans": [], "requested": ["f", 1]}, r"requested\[1\]: expected a string"),
    ],
)
def test_spans_name_the_line_of_a_bad_row(tmp_path: Path, row: Any, said: str) -> None:
    path = write(tmp_path, {"text": "a", "spans": []}, "", row)
    with pytest.raises(DataError, match=said) as caught:
        read_spans(path)
    assert caught.value.message.startswith(f"{path}:3: ")
    assert "table for" not in caught.value.message


def test_spans_count_bad_rows_beyond_ten(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_spans(write(tmp_path, *[{"text": "a"}] * 13))
    assert "line 10: spans: missing" in caught.value.message
    assert "line 11" not in caught.value.message
    assert "and 3 more bad rows" in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b"\n\n", "no rows"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.csv", b"text,spans\n", "expected .jsonl, found .csv"),
        ("rows.jsonl", b'{"text": "caf\xe9", "spans": []}\n', "not UTF-8"),
    ],
)
def test_spans_refuse_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_spans(path)
    path.unlink()
    with pytest.raises(DataError):
        read_spans(path)


def test_spans_of_unknown_fields_are_named_with_those_that_are_known(tmp_path: Path) -> None:
    rows = read_spans(
        write(
            tmp_path,
            {"text": "7 pm", "spans": [span("time", 0, 4)], "requested": ["time"]},
            {"text": "7 pm", "spans": [span("hour", 0, 1), span("time", 2, 4)]},
            {"text": "7 pm", "spans": [], "requested": ["time", "minute"]},
        )
    )
    rows.check_fields(["time", "hour", "minute"])
    with pytest.raises(DataError) as caught:
        rows.check_fields(["time"])
    assert ":2: spans[0].field: unknown" in caught.value.message
    assert "line 3: requested: an unknown field" in caught.value.message
    assert "known fields: 'time'" in caught.value.message
    assert "minute" not in caught.value.message


OVERLAPPING = SpanDataset(
    ("tuesday at 12", "in an hour", "at 7"),
    (
        (GoldSpan(0, 13, "date"), GoldSpan(11, 13, "time")),
        (GoldSpan(0, 10, "date"), GoldSpan(0, 10, "time")),
        (GoldSpan(3, 4, "time"),),
    ),
    ((), (), ()),
    (4, 5, 9),
    "rows.jsonl",
)


def test_spans_that_overlap_are_refused_dropped_or_shortened_to_the_longest() -> None:
    assert [len(overlaps(spans)) for spans in OVERLAPPING.spans] == [1, 1, 0]
    with pytest.raises(DataError) as caught:
        resolve_overlaps(OVERLAPPING, "refuse")
    message = caught.value.message
    assert (
        "rows.jsonl:4: spans overlap: 'date' at characters 0 to 13 and 'time' at characters 11"
        in message
    )
    assert "line 5: spans overlap" in message
    assert "--conflicts keep" in message
    assert resolve_overlaps(OVERLAPPING, "drop").lines == (9,)
    kept = resolve_overlaps(OVERLAPPING, "keep")
    assert kept.lines == (4, 5, 9)
    assert kept.spans[:2] == ((GoldSpan(0, 13, "date"),), (GoldSpan(0, 10, "date"),))
    fine = OVERLAPPING.take([2])
    assert resolve_overlaps(fine, "refuse") == fine
