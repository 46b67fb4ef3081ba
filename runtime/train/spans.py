"""Texts with spans: JSONL files in, bad rows named by their line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sprat.errors import DataError
from sprat.manifest import sha256_file
from sprat.train.checks import Conflicts
from sprat.train.rows import (
    JSON_TYPES,
    Fault,
    bad_rows,
    decode,
    json_records,
    label,
    parse_rows,
    string,
)


@dataclass(frozen=True, slots=True, order=True)
class GoldSpan:
    """A span that a text has.

    Attributes
    ----------
    start, end : int
        Characters of the text, from ``start`` to before ``end``, without white space at its ends.
    field : str
        What it is.
    """

    start: int
    end: int
    field: str


@dataclass(frozen=True, slots=True)
class SpanDataset:
    """Texts with spans in the order of their file.

    Attributes
    ----------
    texts : tuple of str
        None of them empty.
    spans : tuple of tuple of GoldSpan
        Of each text, in its order; no two are the same.
    requested : tuple of tuple of str
        Fields that each text was asked for, each once; empty where nothing is known.
    lines : tuple of int
        Line of each row in the file, from 1.
    path : str
        The file, for messages.
    sha256 : str
        Of the whole file, in hex; empty for rows that were not read from one.
    """

    texts: tuple[str, ...]
    spans: tuple[tuple[GoldSpan, ...], ...]
    requested: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    path: str
    sha256: str = ""

    def __len__(self) -> int:
        """Rows."""
        return len(self.texts)

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that has a span, sorted."""
        return tuple(sorted({span.field for spans in self.spans for span in spans}))

    def take(self, rows: Iterable[int]) -> SpanDataset:
        """The rows at these indices, in this order."""
        rows = tuple(rows)
        return SpanDataset(
            tuple(self.texts[row] for row in rows),
            tuple(self.spans[row] for row in rows),
            tuple(self.requested[row] for row in rows),
            tuple(self.lines[row] for row in rows),
            self.path,
            self.sha256,
        )

    def check_fields(self, known: Collection[str]) -> None:
        """Refuse rows with other fields than these.

        Raises
        ------
        DataError
            It names the lines of such rows and the fields that are known.
        """
        unknown = []
        for line, spans, requested in zip(self.lines, self.spans, self.requested, strict=True):
            for index, span in enumerate(spans):
                if span.field not in known:
                    unknown.append((line, f"spans[{index}].field: unknown"))
            if not set(requested) <= set(known):
                unknown.append((line, "requested: an unknown field"))
        if unknown:
            names = ", ".join(map(repr, known))
            raise bad_rows(self.path, unknown, hint=f"\n  known fields: {names}")


def read_spans(path: Path) -> SpanDataset:
    r"""Read texts with spans from a JSONL file.

    Each line is an object with ``text``; ``spans``, a list of objects with ``field``, ``start`` and
    ``end``, which count code points of the text as it is after JSON's escapes, and optionally
    ``text``, which must be what stands there; and optionally ``requested``, a list of the fields
    that were asked for. Other members are ignored, and so are empty lines. White space at the ends
    of a span does not belong to it.

    Raises
    ------
    DataError
        When the file cannot be read, holds no rows, or has bad ones: the message names the lines
        of the first ten and what is wrong with each.
    """
    if path.suffix.lower() != ".jsonl":
        raise DataError(str(path), 0, f"expected .jsonl, found {path.suffix or 'no suffix'}")
    rows, lines = parse_rows(path, json_records(decode(path)), _row)
    texts, spans, requested = zip(*rows, strict=True)
    return SpanDataset(texts, spans, requested, lines, str(path), sha256_file(path))


def overlaps(spans: Sequence[GoldSpan]) -> list[tuple[GoldSpan, GoldSpan]]:
    """Spans of one text that share characters, each with the first one before it that it meets."""
    found = []
    for index, span in enumerate(spans):
        before = [other for other in spans[:index] if span.start < other.end]
        found += [(other, span) for other in before[:1]]
    return found


def resolve_overlaps(data: SpanDataset, conflicts: Conflicts) -> SpanDataset:
    """Rows that a tagger can be trained on: spans of one text share no character.

    Parameters
    ----------
    conflicts : {"refuse", "drop", "keep"}
        What happens to a row with spans that overlap: an error, out with it, or out with all but
        the longest of them, the first of those of equal length.

    Raises
    ------
    DataError
        With ``refuse``: it names the lines of such rows.
    """
    clashes = [overlaps(spans) for spans in data.spans]
    if conflicts == "refuse":
        faults = [
            (
                line,
                f"spans overlap: {_shown(one)} and {_shown(other)}",
            )
            for line, found in zip(data.lines, clashes, strict=True)
            for one, other in found[:1]
        ]
        if faults:
            hint = "\n  leave such rows out with --conflicts drop, or train on their longest spans "
            raise bad_rows(data.path, faults, hint=hint + "with --conflicts keep")
        return data
    if conflicts == "drop":
        return data.take(row for row, found in enumerate(clashes) if not found)
    return replace(data, spans=tuple(map(_longest, data.spans)))


def _shown(span: GoldSpan) -> str:
    return f"{span.field!r} at characters {span.start} to {span.end}"


def _longest(spans: Sequence[GoldSpan]) -> tuple[GoldSpan, ...]:
    kept: list[GoldSpan] = []
    for span in sorted(spans, key=lambda span: span.start - span.end):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept))


def _row(record: dict[str, object]) -> tuple[str, tuple[GoldSpan, ...], tuple[str, ...]]:
    text = string(record, "text")
    given = _list(record, "spans")
    found = sorted((_span(text, span, f"spans[{i}]"), i) for i, span in enumerate(given))
    for (one, i), (other, j) in pairwise(found):
        if one == other:
            raise Fault(f"spans[{i}] and spans[{j}] are the same")
    requested = [
        label({"field": name}, "field", f"requested[{i}]")
        for i, name in enumerate(_list(record, "requested") if "requested" in record else ())
    ]
    return text, tuple(span for span, _ in found), tuple(dict.fromkeys(requested))


def _span(text: str, span: object, where: str) -> GoldSpan:
    if not isinstance(span, dict):
        raise Fault(f"{where}: expected a JSON object, found {JSON_TYPES[type(span)]}")
    field = label(span, "field", f"{where}.field")
    start, end = (_offset(span, name, where) for name in ("start", "end"))
    if not 0 <= start < end <= len(text):
        raise Fault(
            f"{where}: expected 0 <= start < end <= {len(text)}, the characters of the text, found "
            f"{start} and {end}"
        )
    if "text" in span and span["text"] != text[start:end]:
        raise Fault(f"{where}.text: not what stands at characters {start} to {end}")
    stands = text[start:end]
    if not stands.strip():
        raise Fault(f"{where}: nothing but white space at characters {start} to {end}")
    start += len(stands) - len(stands.lstrip())
    return GoldSpan(start, start + len(stands.strip()), field)


def _list(record: dict[str, object], field: str) -> list[object]:
    if field not in record:
        raise Fault(f"{field}: missing")
    value = record[field]
    if not isinstance(value, list):
        raise Fault(f"{field}: expected a list, found {JSON_TYPES[type(value)]}")
    return value


def _offset(span: dict[str, object], name: str, where: str) -> int:
    if name not in span:
        raise Fault(f"{where}.{name}: missing")
    value = span[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise Fault(f"{where}.{name}: expected a whole number, found {JSON_TYPES[type(value)]}")
    return value
