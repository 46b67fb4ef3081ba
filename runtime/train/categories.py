"""Rows with any number of labels: what a moderator learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError
from sprat.manifest import sha256_file
from sprat.train.data import Dataset
from sprat.train.rows import JSON_TYPES, Fault, bad_rows, label, parse_rows, records, string

SEPARATOR = ","
"""Between the labels of a CSV field."""

MAX_SHOWN = 10
"""Labels that a message names at most."""


@dataclass(frozen=True, slots=True)
class CategoryData:
    """Texts with the categories that each belongs to, in the order of their file.

    Attributes
    ----------
    texts : tuple of str
        None of them empty.
    categories : tuple of tuple of str
        Of each row, sorted, without repeats; empty for a clean text.
    lines : tuple of int
        Line of each row in the file, from 1.
    path : str
        The file, for messages.
    sha256 : str
        Of the whole file, in hex; empty for rows that were not read from one.
    """

    texts: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    path: str
    sha256: str = ""

    def __len__(self) -> int:
        """Rows."""
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> CategoryData:
        """The rows at these indices, in this order."""
        rows = tuple(rows)
        return CategoryData(
            tuple(self.texts[row] for row in rows),
            tuple(self.categories[row] for row in rows),
            tuple(self.lines[row] for row in rows),
            self.path,
            self.sha256,
        )

    def names(self) -> tuple[str, ...]:
        """Every category that a row has, sorted."""
        return tuple(sorted({name for row in self.categories for name in row}))

    def truth(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each row belongs to each category.

        Returns
        -------
        bool[N, K]

        Raises
        ------
        DataError
            When rows have other categories: it names their lines and those that are known.
        """
        index = {name: column for column, name in enumerate(names)}
        unknown = [
            (line, "labels: unknown")
            for row, line in zip(self.categories, self.lines, strict=True)
            if not index.keys() >= set(row)
        ]
        if unknown:
            known = ", ".join(map(repr, names))
            raise bad_rows(self.path, unknown, hint=f"\n  known categories: {known}")
        truth_nk = np.zeros((len(self), len(names)), np.bool_)
        for number, row in enumerate(self.categories):
            truth_nk[number, [index[name] for name in row]] = True
        return truth_nk

    def as_dataset(self) -> Dataset:
        """Return the rows with one label each, the names of their categories: for data checks."""
        return Dataset(
            self.texts, tuple(map(shown_categories, self.categories)), self.lines, self.path
        )


def shown_categories(names: Iterable[str]) -> str:
    """The categories of a text as one name for people."""
    return " + ".join(sorted(names)) or "(clean)"


def read_categories(path: Path, *, clean_label: str | None = None) -> CategoryData:
    """Read rows with any number of labels.

    A row of a ``.jsonl`` file has ``text`` and either ``labels``, a list of strings that is empty
    for a clean text, or ``label``, one string. A ``.csv`` file has a column ``text`` and a column
    ``labels``, with commas between labels, or ``label``. Else as `sprat.train.data.read`.

    Parameters
    ----------
    clean_label : str, optional
        The label that says that a text is clean; such rows get no category.

    Raises
    ------
    DataError
        As `sprat.train.data.read`; and when no row has ``clean_label``, or one has it beside
        others.
    """
    met_clean = False

    is_csv = path.suffix.lower() == ".csv"

    def parse(record: dict[str, object]) -> tuple[str, tuple[str, ...]]:
        nonlocal met_clean
        text, names = _fields(record, is_csv=is_csv)
        if clean_label in names:
            met_clean = True
            if len(names) > 1:
                raise Fault(f"labels: {clean_label!r} beside others")
            names = set()
        return text, tuple(sorted(names))

    found, lines = parse_rows(path, records(path, ("text",)), parse)
    texts, rows = zip(*found, strict=True)
    if clean_label is not None and not met_clean:
        known = ", ".join(map(repr, sorted({name for row in rows for name in row})[:MAX_SHOWN]))
        raise DataError(
            str(path), 0, f"no row has the clean label {clean_label!r}; found {known or 'none'}"
        )
    return CategoryData(texts, rows, lines, str(path), sha256_file(path))


def _fields(record: dict[str, object], *, is_csv: bool) -> tuple[str, set[str]]:
    text = string(record, "text")
    if ("label" in record) == ("labels" in record):
        found = "both" if "label" in record else "neither"
        raise Fault(f"expected either label or labels, found {found}")
    if "label" in record:
        return text, {label(record, "label")}
    given = record["labels"]
    if is_csv and isinstance(given, str):
        given = [part for part in given.split(SEPARATOR) if part.strip()]
    if not isinstance(given, list):
        raise Fault(f"labels: expected a list of strings, found {JSON_TYPES[type(given)]}")
    return text, {label({"labels": name}, "labels") for name in given}
