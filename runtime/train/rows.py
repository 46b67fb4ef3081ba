"""Files of rows: JSONL and CSV records with their lines, and messages that name bad ones."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sprat.config import LimitsConfig
from sprat.errors import DataError

MAX_LABEL_CHARACTERS = 128
MAX_TEXT_BYTES = LimitsConfig().max_text_bytes
"""As the server accepts by default: what it would refuse is nothing to learn from."""
MAX_SHOWN_ROWS = 10
"""A message names at most so many bad rows; the rest are counted."""

JSON_TYPES = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    str: "a string",
}
"""What people call a value of JSON."""

Row = TypeVar("Row")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Fault(Exception):
    """What is wrong with a row, without its content."""


def decode(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises
    ------
    DataError
        It cannot be read, or is not UTF-8: the message names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(str(path), 1, "UTF-16, expected UTF-8; save the file as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _not_utf8(str(path), data) from None


def _not_utf8(path: str, data: bytes) -> DataError:
    """Names the lines that are not UTF-8, and says whether others are."""
    faults: list[tuple[int, str]] = []
    others = 0
    for line, source in enumerate(data.split(b"\n"), 1):
        try:
            others += not source.decode().isascii()
        except UnicodeDecodeError as error:
            faults.append((line, f"not UTF-8: invalid byte at column {error.start + 1}"))
    hint = (
        f"\n  encodings are mixed: {others} other lines hold characters in valid UTF-8; convert "
        "the lines that are not, not the whole file"
        if others
        else "\n  convert the file, as with: iconv -f WINDOWS-1252 -t UTF-8"
    )
    return bad_rows(path, faults, hint=hint)


def records(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, object]]:
    """Line and content of each row of a .jsonl or .csv file, or a `Fault` in its place.

    Parameters
    ----------
    columns : sequence of str
        What CSV must name in its first record.

    Raises
    ------
    DataError
        It has another suffix, cannot be read, or is not UTF-8.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return json_records(decode(path))
    if suffix == ".csv":
        return csv_records(decode(path), columns)
    raise DataError(str(path), 0, f"expected .jsonl or .csv, found {suffix or 'no suffix'}")


def parse_rows(
    path: Path,
    found: Iterable[tuple[int, object]],
    parse: Callable[[dict[str, object]], Row],
) -> tuple[list[Row], tuple[int, ...]]:
    """Read every record as a row, or say of every bad one what is wrong with it.

    Parameters
    ----------
    found : iterable of (int, object)
        What `records` gives.
    parse : callable
        Makes a row of a record, or raises `Fault`.

    Returns
    -------
    list of rows, tuple of int
        Each with its line.

    Raises
    ------
    DataError
        There are bad rows, or none at all.
    """
    rows: list[Row] = []
    lines: list[int] = []
    faults: list[tuple[int, str]] = []
    for line, record in found:
        try:
            if isinstance(record, Fault):
                raise record
            if not isinstance(record, dict):
                raise Fault(f"expected a JSON object, found {JSON_TYPES[type(record)]}")
            rows.append(parse(record))
        except Fault as fault:
            faults.append((line, str(fault)))
        else:
            lines.append(line)
    if faults:
        raise bad_rows(str(path), faults)
    if not rows:
        raise DataError(str(path), 0, "no rows")
    return rows, tuple(lines)


def read_records(path: Path, fields: Sequence[str]) -> list[tuple[int, dict[str, object]]]:
    """Read rows with fields of any kind.

    Parameters
    ----------
    fields : sequence of str
        What each row needs, as a string that is not empty. Other fields are kept as they are.

    Returns
    -------
    list of (int, dict)
        Line and fields of each row.

    Raises
    ------
    DataError
        As in `sprat.train.data.read`.
    """

    def whole(record: dict[str, object]) -> dict[str, object]:
        for field in fields:
            string(record, field)
        return record

    rows, lines = parse_rows(path, records(path, fields), whole)
    return list(zip(lines, rows, strict=True))


def json_records(text: str) -> Iterator[tuple[int, object]]:
    """Line and content of each row of JSONL, or a `Fault` in the place of the content."""
    for line, source in enumerate(text.split("\n"), 1):
        if not source.strip():
            continue
        try:
            yield line, json.loads(source)
        except json.JSONDecodeError as error:
            yield line, Fault(f"expected one JSON object a line; not JSON at column {error.colno}")
        except (ValueError, RecursionError):
            yield line, Fault("JSON with a number too long or nested too deep")


def csv_records(text: str, columns: Sequence[str]) -> Iterator[tuple[int, object]]:
    """As `json_records`, of CSV whose first record names the columns, each of ``columns`` once.

    It ends at a broken quote, after which rows could not be told apart.
    """
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
                header = _header(row, columns)
            elif len(row) != len(header):
                yield (
                    line,
                    Fault(
                        f"expected {len(header)} fields as in the header, found {len(row)}; "
                        "a text with a comma, quote or line break needs quotes"
                    ),
                )
            else:
                yield line, dict(zip(header, row, strict=True))
            line = rows.line_num + 1
    except Fault as fault:
        yield line, fault
    except csv.Error as error:
        yield line, Fault(f"broken CSV: {error}")
    finally:
        csv.field_size_limit(limit)


def _header(row: list[str], columns: Sequence[str]) -> list[str]:
    for field in columns:
        if (count := row.count(field)) != 1:
            raise Fault(
                f"expected one column {field} in the first record, found {count} "
                f"among {len(row)} columns separated by commas"
            )
    return row


def string(record: dict[str, object], field: str, where: str = "") -> str:
    """A member of a record that is a string with something to see.

    Parameters
    ----------
    where : str
        What to call the member in messages; by default as it is called.

    Raises
    ------
    Fault
    """
    where = where or field
    if field not in record:
        raise Fault(f"{where}: missing")
    value = record[field]
    if not isinstance(value, str):
        raise Fault(f"{where}: expected a string, found {JSON_TYPES[type(value)]}")
    if not value.strip():
        raise Fault(f"{where}: empty")
    # A character takes at most four bytes: short values need no encoding to be measured.
    if 4 * len(value) > MAX_TEXT_BYTES:
        size = len(value.encode("utf-8", "replace"))
        if size > MAX_TEXT_BYTES:
            raise Fault(f"{where}: {size} bytes, at most {MAX_TEXT_BYTES} are accepted")
    if found := _LONE_SURROGATE.search(value):
        raise Fault(f"{where}: a lone surrogate at character {found.start() + 1}")
    return value


def label(record: dict[str, object], field: str, where: str = "") -> str:
    """As `string`, of a name: white space around it is dropped, and it has no control character."""
    where = where or field
    name = string(record, field, where).strip()
    if len(name) > MAX_LABEL_CHARACTERS:
        raise Fault(f"{where}: {len(name)} characters, at most {MAX_LABEL_CHARACTERS} are accepted")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise Fault(f"{where}: a control character")
    return name


def bad_rows(path: str, faults: Sequence[tuple[int, str]], *, hint: str = "") -> DataError:
    """An error that names the first lines of bad rows, and what is wrong with each.

    Parameters
    ----------
    faults : sequence of (int, str)
        Line and fault of each bad row, at least one.
    hint : str
        Put behind them.
    """
    (first, message), *others = faults
    shown = "".join(f"\n  line {line}: {fault}" for line, fault in others[: MAX_SHOWN_ROWS - 1])
    more = len(faults) - MAX_SHOWN_ROWS
    tail = f"\n  and {more} more bad rows" if more > 0 else ""
    return DataError(path, first, message + shown + tail + hint)
