"""Labelled rows: JSONL and CSV files in, bad rows named by their line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprat.manifest import sha256_file
from sprat.train.rows import bad_rows, label, parse_rows, records, string
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
    rows, lines = parse_rows(path, records(path, ("text", "label")), _row)
    texts, labels = zip(*rows, strict=True)
    return Dataset(texts, labels, lines, str(path), sha256_file(path))


def _row(record: dict[str, object]) -> tuple[str, str]:
    return string(record, "text"), label(record, "label")
