"""Labelled rows: JSONL and CSV files in, bad rows named by their line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprat.errors import DataError
from sprat.values import IntArray

MAX_LABEL_CHARACTERS = 128
MAX_SHOWN_ROWS = 10
"""A message names at most so many bad rows; the rest are counted."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_TYPES = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    str: "a string",
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled texts in the order of their file.

    Attributes
    ----------
    texts, labels : tuple of str
        One of each per row, none of them empty.
    lines : tuple of int
        Line of each row in the file, from 1.
    path : str
        The file, for messages.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...]
    path: str

    def __len__(self) -> int:
        """Rows."""
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> Dataset:
        """The rows at these indices, in this order."""
        rows = tuple(rows)
        return Dataset(
            tuple(self.texts[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.lines[row] for row in rows),
            self.path,
        )

    def targets(self, labels: Sequence[str]) -> IntArray:
        """Each row's label as its index in ``labels``.

        Returns
        -------
        int32[N]

        Raises
        ------
        DataError
            When rows have other labels: it names their lines and the labels that are known.
        """
        index = {label: i for i, label in enumerate(labels)}
        unknown = [
            (line, "label: unknown")
            for label, line in zip(self.labels, self.lines, strict=True)
            if label not in index
        ]
        if unknown:
            known = ", ".join(map(repr, labels))
            raise _bad_rows(self.path, unknown, hint=f"\n  known labels: {known}")
        return np.array([index[label] for label in self.labels], np.int32)


def read(path: Path) -> Dataset:
    """Read labelled rows from a file.

    ``.jsonl`` holds one JSON object a line; ``.csv`` (RFC 4180, with commas) names its columns in
    the first record. Both are UTF-8, with or without a byte order mark, and need ``text`` and
    ``label``, both strings. Other fields are ignored, and so are empty lines. White space around
    a label is dropped; a text is kept as it is.

    Raises
    ------
    DataError
        When the file cannot be read, holds no rows, or has bad ones: the message names the lines
        of the first ten and what is wrong with each.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        records = _json_records(_decode(path))
    elif suffix == ".csv":
        records = _csv_records(_decode(path))
    else:
        raise DataError(str(path), 0, f"expected .jsonl or .csv, found {suffix or 'no suffix'}")
    rows: list[tuple[str, str, int]] = []
    faults: list[tuple[int, str]] = []
    for line, record in records:
        checked = _check(record)
        if isinstance(checked, _Fault):
            faults.append((line, str(checked)))
        else:
            rows.append((*checked, line))
    if faults:
        raise _bad_rows(str(path), faults)
    if not rows:
        raise DataError(str(path), 0, "no rows")
    texts, labels, lines = zip(*rows, strict=True)
    return Dataset(texts, labels, lines, str(path))


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[start:].decode()
    except UnicodeDecodeError as error:
        offset = start + error.start
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(
            str(path), line, f"not UTF-8: invalid byte at offset {offset} of the file"
        ) from None


class _Fault(Exception):
    """What is wrong with a row, without its content."""


def _json_records(text: str) -> Iterator[tuple[int, object]]:
    """Line and content of each row, or a `_Fault` in the place of the content."""
    for line, source in enumerate(text.split("\n"), 1):
        if not source.strip():
            continue
        try:
            yield line, json.loads(source)
        except json.JSONDecodeError as error:
            yield line, _Fault(f"expected one JSON object a line; not JSON at column {error.colno}")
        except (ValueError, RecursionError):
            yield line, _Fault("JSON with a number too long or nested too deep")


def _csv_records(text: str) -> Iterator[tuple[int, object]]:
    """As `_json_records`; it ends at a broken quote, after which rows could not be told apart."""
    # The limit guards programs that stream files of strangers; here the whole file is in memory.
    limit = csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            if not row:
                pass
            elif header is None:
                header = _header(row)
            elif len(row) != len(header):
                yield (
                    line,
                    _Fault(
                        f"expected {len(header)} fields as in the header, found {len(row)}; "
                        "a text with a comma, quote or line break needs quotes"
                    ),
                )
            else:
                yield line, dict(zip(header, row, strict=True))
            line = rows.line_num + 1
    except _Fault as fault:
        yield line, fault
    except csv.Error as error:
        yield line, _Fault(f"broken CSV: {error}")
    finally:
        csv.field_size_limit(limit)


def _header(row: list[str]) -> list[str]:
    for field in ("text", "label"):
        if (count := row.count(field)) != 1:
            raise _Fault(
                f"expected one column {field} in the first record, found {count} "
                f"among {len(row)} columns separated by commas"
            )
    return row


def _check(record: object) -> tuple[str, str] | _Fault:
    """Text and label of a record, or what is wrong with it."""
    if isinstance(record, _Fault):
        return record
    try:
        return _fields(record)
    except _Fault as fault:
        return fault


def _fields(record: object) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise _Fault(f"expected a JSON object, found {_JSON_TYPES[type(record)]}")
    text, label = (_string(record, field) for field in ("text", "label"))
    label = label.strip()
    if len(label) > MAX_LABEL_CHARACTERS:
        raise _Fault(f"label: {len(label)} characters, at most {MAX_LABEL_CHARACTERS} are accepted")
    if any(unicodedata.category(character) == "Cc" for character in label):
        raise _Fault("label: a control character")
    return text, label


def _string(record: dict[str, object], field: str) -> str:
    if field not in record:
        raise _Fault(f"{field}: missing")
    value = record[field]
    if not isinstance(value, str):
        raise _Fault(f"{field}: expected a string, found {_JSON_TYPES[type(value)]}")
    if not value.strip():
        raise _Fault(f"{field}: empty")
    if found := _LONE_SURROGATE.search(value):
        raise _Fault(f"{field}: a lone surrogate at character {found.start() + 1}")
    return value


def _bad_rows(path: str, faults: Sequence[tuple[int, str]], *, hint: str = "") -> DataError:
    (first, message), *others = faults
    shown = "".join(f"\n  line {line}: {fault}" for line, fault in others[: MAX_SHOWN_ROWS - 1])
    more = len(faults) - MAX_SHOWN_ROWS
    tail = f"\n  and {more} more bad rows" if more > 0 else ""
    return DataError(path, first, message + shown + tail + hint)
