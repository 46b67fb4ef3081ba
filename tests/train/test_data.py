"""Data files: what is read, and bad rows named by line, never by content."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprat.errors import DataError
from sprat.manifest import sha256_file
from sprat.train.data import Dataset, read
from sprat.train.rows import MAX_TEXT_BYTES

SECRET = "xyzzy-secret"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
rows = st.lists(
    st.tuples(texts, labels).filter(lambda r: r[0].strip() and r[1].strip()), min_size=1
)


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path)
    assert SECRET not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = {"text": "a parcel", "label": "delivery"}


# -- what is read ----------------------------------------------------------------------------


@given(rows=rows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_jsonl_round_trips(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    content = "".join(
        json.dumps({"text": t, "label": label}, ensure_ascii=False) + "\n" for t, label in rows
    )
    data = read(write(tmp_path, "rows.jsonl", content))
    assert data.texts == tuple(text for text, _ in rows)
    assert data.labels == tuple(label.strip() for _, label in rows)
    assert data.lines == tuple(range(1, len(rows) + 1))


@given(rows=rows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_csv_round_trips(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("text", "label"), *rows])
    data = read(write(tmp_path, "rows.csv", stream.getvalue()))
    assert data.texts == tuple(text for text, _ in rows)
    assert data.labels == tuple(label.strip() for _, label in rows)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_data_lines_survive_endings_blank_lines_and_byte_order_mark(
    tmp_path: Path, ending: str, mark: bytes
) -> None:
    lines = [json.dumps(GOOD), "", json.dumps({**GOOD, "id": 7, "label": " x "}), "   "]
    path = write(tmp_path, "rows.jsonl", mark + ending.join(lines).encode())
    data = read(path)
    assert data == Dataset(
        ("a parcel", "a parcel"), ("delivery", "x"), (1, 3), str(path), sha256_file(path)
    )
    assert data.take([1]).sha256 == data.sha256
    lines = ["id,label,text", "", '7,x,"two', 'lines, ""quoted"""', "", "8,y,z"]
    data = read(write(tmp_path, "rows.CSV", mark + ending.join(lines).encode()))
    assert data.texts == (f'two{ending}lines, "quoted"', "z")
    assert data.lines == (3, 6)


def test_data_unicode_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour"
    content = json.dumps({"text": text, "label": "x"}, ensure_ascii=False)
    # JSON forbids a raw vertical tab.
    content = content.replace("\x0b", "\\u000b")
    assert read(write(tmp_path, "rows.jsonl", content)).texts == (text,)
    assert read(write(tmp_path, "rows.csv", f'text,label\n"{text}",x\n')).texts == (text,)


def test_data_csv_takes_texts_of_any_length_and_leaves_the_csv_limit_alone(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    text = "long " * 200_000
    assert read(write(tmp_path, "rows.csv", f"text,label\n{text},x\n")).texts == (text,)
    assert csv.field_size_limit() == limit


# -- bad rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON at column 2"),
        (f'{{"text": "{SECRET}", "label": }}', "not JSON at column"),
        (f'"{SECRET}"', "expected a JSON object, found a string"),
        ("[1]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
        ('{"label": "x"}', "text: missing"),
        ('{"text": "a"}', "label: missing"),
        ('{"text": 5, "label": "x"}', "text: expected a string, found a number"),
        ('{"text": "a", "label": 1}', "label: expected a string, found a number"),
        ('{"text": "a", "label": true}', "label: expected a string, found true or false"),
        ('{"text": null, "label": "x"}', "text: expected a string, found null"),
        ('{"text": ["a"], "label": "x"}', "text: expected a string, found a list"),
        ('{"text": {}, "label": "x"}', "text: expected a string, found an object"),
        ('{"text": 1e999, "label": "x"}', "text: expected a string, found a number"),
        ('{"text": "", "label": "x"}', "text: empty"),
        ('{"text": " \\t\\n", "label": "x"}', "text: empty"),
        (f'{{"text": "{SECRET}", "label": ""}}', "label: empty"),
        (f'{{"text": "{SECRET}", "label": "  "}}', "label: empty"),
        ('{"text": "ab\\ud800", "label": "x"}', "text: a lone surrogate at character 3"),
        ('{"text": "a", "label": "\\udfff"}', "label: a lone surrogate at character 1"),
        ('{"text": "a", "label": "x\\u0000y"}', "label: a control character"),
        (f'{{"text": "a", "label": "{SECRET * 20}"}}', "label: 240 characters, at most 128"),
        ('{"text": ' + "1" * 5000 + ', "label": "x"}', "a number too long"),
        ('{"text": ' + "[" * 200_000 + "}", "nested too deep"),
    ],
)
def test_data_jsonl_names_the_bad_row(tmp_path: Path, row: str, message: str) -> None:
    error = failure(write(tmp_path, "rows.jsonl", f"{jsonl(GOOD)}\n{row}\n{jsonl(GOOD)}"))
    assert error.line == 3
    assert message in error.message
    assert "more bad rows" not in error.message


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", 0, "no rows"),
        ("text,label\n", 0, "no rows"),
        (f"{SECRET},x\n", 1, "expected one column text in the first record, found 0 among 2"),
        (f"text;label\n{SECRET};x\n", 1, "found 0 among 1 columns separated by commas"),
        ("text,category\na,b\n", 1, "expected one column label"),
        ("text,label,text\na,b,c\n", 1, "expected one column text in the first record, found 2"),
        (
            f"text,label\na,b\n{SECRET},with a comma,x\n",
            3,
            "expected 2 fields as in the header, found 3",
        ),
        (f"text,label\n{SECRET}\n", 2, "expected 2 fields as in the header, found 1"),
        ('text,label\n"two\nlines",x\n,y\n', 4, "text: empty"),
        (f"text,label\n{SECRET}, \n", 2, "label: empty"),
        (f'text,label\n"{SECRET}" trailing,x\n', 2, "broken CSV"),
        (f'text,label\na,x\n"{SECRET},x\nb,y\n', 3, "broken CSV"),
    ],
)
def test_data_csv_names_the_bad_row(tmp_path: Path, content: str, line: int, message: str) -> None:
    error = failure(write(tmp_path, "rows.csv", content))
    assert error.line == line
    assert message in error.message


def test_data_names_ten_bad_rows_and_counts_the_others(tmp_path: Path) -> None:
    bad = [{"text": SECRET}] * 12
    error = failure(write(tmp_path, "rows.jsonl", jsonl(GOOD, *bad, GOOD, {"label": "x"})))
    first, *others = error.message.splitlines()
    assert first.endswith("rows.jsonl:2: label: missing")
    assert others[0] == "  line 3: label: missing"
    assert others[8] == "  line 11: label: missing"
    assert others[9:] == ["  and 3 more bad rows"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_data_names_line_and_column_of_invalid_utf8(tmp_path: Path, name: str) -> None:
    content = b"\xef\xbb\xbftext,label\ncaf\xe9,x\n"
    error = failure(write(tmp_path, name, content))
    assert error.line == 2
    assert "not UTF-8: invalid byte at column 4\n  convert the file" in error.message
    for encoding in ("utf-16-le", "utf-16-be"):
        error = failure(write(tmp_path, name, "\ufefftext,label\na,x\n".encode(encoding)))
        assert (error.line, "UTF-16, expected UTF-8" in error.message) == (1, True)


def test_data_mixed_encodings_are_named_by_line(tmp_path: Path) -> None:
    lines = ["text,label", *[f"caf\u00e9 {number},x" for number in range(14)]]
    content = b"\n".join(
        line.encode("utf-8" if number < 3 else "cp1252") for number, line in enumerate(lines)
    )
    error = failure(write(tmp_path, "rows.csv", content))
    assert error.line == 4
    assert error.message.endswith(
        "\n  line 13: not UTF-8: invalid byte at column 4\n  and 2 more bad rows"
        "\n  encodings are mixed: 2 other lines hold characters in valid UTF-8; convert the lines "
        "that are not, not the whole file"
    )


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_data_rows_of_ten_megabytes_are_named_by_line(tmp_path: Path, name: str) -> None:
    long = SECRET * (10_000_000 // len(SECRET) + 1)
    rows = [("fine", "x"), (long, "x"), ("fine", "y")]
    if name.endswith("csv"):
        stream = io.StringIO(newline="")
        csv.writer(stream).writerows([("text", "label"), *rows])
        content = stream.getvalue()
    else:
        content = jsonl(*({"text": text, "label": label} for text, label in rows))
    error = failure(write(tmp_path, name, content))
    assert error.line == (3 if name.endswith("csv") else 2)
    assert f"text: {len(long)} bytes, at most 4194304 are accepted" in error.message


def test_data_size_is_counted_in_bytes(tmp_path: Path) -> None:
    for text, fits in (("a" * MAX_TEXT_BYTES, True), ("\u00e9" * (MAX_TEXT_BYTES // 2 + 1), False)):
        path = write(tmp_path, "rows.jsonl", jsonl({"text": text, "label": "x"}))
        if fits:
            assert len(read(path).texts[0]) == MAX_TEXT_BYTES
        else:
            assert f"{MAX_TEXT_BYTES + 2} bytes" in failure(path).message


def test_data_refuses_files_that_it_cannot_read(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in failure(tmp_path / "absent.jsonl").message
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read: Is a directory" in failure(tmp_path / "folder.csv").message
    path = write(tmp_path, "rows.xlsx", b"PK")
    assert "expected .jsonl or .csv, found .xlsx" in failure(path).message
    assert "found no suffix" in failure(write(tmp_path, "rows", b"")).message
    assert "no rows" in failure(write(tmp_path, "empty.jsonl", "\n\n")).message


# -- labels ----------------------------------------------------------------------------------


def test_data_targets_are_indices_of_the_labels() -> None:
    data = Dataset(("a", "b", "c"), ("y", "x", "y"), (1, 2, 3), "rows.csv")
    assert data.targets(["x", "y", "z"]).tolist() == [1, 0, 1]


def test_data_targets_name_lines_of_unknown_labels_and_the_known_ones() -> None:
    data = Dataset(("a", "b", "c"), ("x", SECRET, SECRET), (4, 6, 9), "rows.csv")
    with pytest.raises(DataError) as caught:
        data.targets(["x", "y"])
    assert caught.value.message.splitlines() == [
        "rows.csv:6: label: unknown",
        "  line 9: label: unknown",
        "  known labels: 'x', 'y'",
    ]


def test_data_reads_the_public_sets(shared_data: Path) -> None:
    data = read(shared_data / "banking77.test.jsonl")
    assert len(data) == 3080
    assert len(set(data.labels)) == 77
    assert len(read(shared_data / "sms_spam.train.jsonl")) == 3901
