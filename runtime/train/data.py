"""Labelled rows: JSONL and CSV files in, bad rows named by their line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprat.errors import DataError
from sprat.manifest import sha256_file
from sprat.train.rows import JSON_TYPES, Fault, bad_rows, label, records, string
from sprat.values import IntArray


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
    sha256 : str
        Of the file, in hex; empty where the rows come from none.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...]
    path: str
    sha256: str = ""

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
            self.sha256,
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
            raise bad_rows(self.path, unknown, hint=f"\n  known labels: {known}")
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
    rows: list[tuple[str, str, int]] = []
    faults: list[tuple[int, str]] = []
    for line, record in records(path, ("text", "label")):
        checked = _check(record)
        if isinstance(checked, Fault):
            faults.append((line, str(checked)))
        else:
            rows.append((*checked, line))
    if faults:
        raise bad_rows(str(path), faults)
    if not rows:
        raise DataError(str(path), 0, "no rows")
    texts, labels, lines = zip(*rows, strict=True)
    return Dataset(texts, labels, lines, str(path), sha256_file(path))


def _check(record: object) -> tuple[str, str] | Fault:
    """Text and label of a record, or what is wrong with it."""
    if isinstance(record, Fault):
        return record
    try:
        return _fields(record)
    except Fault as fault:
        return fault


def _fields(record: object) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise Fault(f"expected a JSON object, found {JSON_TYPES[type(record)]}")
    return string(record, "text"), label(record, "label")
