"""Rows with any number of labels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sprat.errors import DataError
from sprat.train.categories import CategoryData, read_categories


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_categories_reads_lists_of_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"text": "a", "labels": ["spam", " abuse ", "spam"]},
        "",
        {"text": "b", "labels": []},
        {"text": "c", "label": "abuse"},
    )
    data = read_categories(path)
    assert data == CategoryData(
        ("a", "b", "c"),
        (("abuse", "spam"), (), ("abuse",)),
        (1, 3, 4),
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert data.names() == ("abuse", "spam")
    assert data.truth(("abuse", "spam")).tolist() == [[True, True], [False, False], [True, False]]
    assert data.as_dataset().labels == ("abuse + spam", "(clean)", "abuse")
    assert data.take([2, 0]).lines == (4, 1)


def test_categories_take_a_label_for_clean_texts(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a", "label": "ham"}, {"text": "b", "label": "spam"})
    assert read_categories(path, clean_label="ham").categories == ((), ("spam",))
    assert read_categories(path).names() == ("ham", "spam")


def test_categories_read_csv(tmp_path: Path) -> None:
    path = write(tmp_path, "text,labels", 'a,"spam,abuse"', "b,", name="rows.csv")
    assert read_categories(path).categories == (("abuse", "spam"), ())
    path = write(tmp_path, "text,label", "a,spam", "b,ham", name="rows.csv")
    assert read_categories(path, clean_label="ham").categories == (("spam",), ())


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": "a"}, "expected either label or labels, found neither"),
        ({"text": "a", "label": "x", "labels": []}, "found both"),
        ({"text": "a", "labels": 3}, "labels: expected a list of strings, found a number"),
        ({"text": "a", "labels": ""}, "labels: expected a list of strings, found a string"),
        ({"text": "a", "labels": ["x", 3]}, "labels: expected a string, found a number"),
        ({"text": "a", "labels": ["x", " "]}, "labels: empty"),
        ({"text": "a", "labels": ["x" * 129]}, "labels: 129 characters, at most 128"),
        ({"text": "a", "labels": ["ham", "spam"]}, "labels: 'ham' beside others"),
        ({"labels": []}, "text: missing"),
        ({"text": "  ", "labels": []}, "text: empty"),
        (["a"], "expected a JSON object, found a list"),
        ("{", "not JSON at column"),
    ],
)
def test_categories_name_the_line_of_a_bad_row(tmp_path: Path, row: object, fault: str) -> None:
    path = write(tmp_path, {"text": "good words", "label": "ham"}, row)
    with pytest.raises(DataError) as raised:
        read_categories(path, clean_label="ham")
    assert raised.value.message.startswith(f"{path}:2: ")
    assert fault in raised.value.message
    assert "good words" not in raised.value.message


def test_categories_want_the_clean_label_somewhere(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a", "label": "spam"})
    with pytest.raises(DataError, match="no row has the clean label 'hma'; found 'spam'"):
        read_categories(path, clean_label="hma")


def test_categories_refuse_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected \.jsonl or \.csv, found \.txt"):
        read_categories(write(tmp_path, "a", name="rows.txt"))
    with pytest.raises(DataError, match="no rows"):
        read_categories(write(tmp_path, ""))


def test_categories_of_a_test_file_must_be_known(tmp_path: Path) -> None:
    data = read_categories(
        write(tmp_path, {"text": "a", "labels": ["x"]}, {"text": "b", "labels": ["x", "new"]})
    )
    with pytest.raises(DataError, match=r":2: labels: unknown\n  known categories: 'x'"):
        data.truth(("x",))
