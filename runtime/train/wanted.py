"""Rows of rewriting: texts, their other inputs, and what they should become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sprat.manifest import sha256_file
from sprat.train.rows import read_records

WantedT = TypeVar("WantedT", bound="Wanted")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Texts, their other inputs, and what they should become.

    Attributes
    ----------
    texts, targets : tuple of str
        One of each per row.
    inputs : tuple of dict of str to str
        Values of the prompt's other placeholders.
    lines : tuple of int
        Line of each row in the file, from 1.
    path : str
        The file, for messages.
    sha256 : str
        Of the whole file, in hex; empty for rows that were not read from one.
    """

    texts: tuple[str, ...]
    targets: tuple[str, ...]
    inputs: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    path: str
    sha256: str = ""

    def __len__(self) -> int:
        """Rows."""
        return len(self.texts)

    def take(self: WantedT, rows: Iterable[int]) -> WantedT:
        """The rows at these indices, in this order."""
        rows = tuple(rows)
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows),
            targets=tuple(self.targets[row] for row in rows),
            inputs=tuple(self.inputs[row] for row in rows),
            lines=tuple(self.lines[row] for row in rows),
        )


def read_wanted(path: Path, inputs: Sequence[str] = ()) -> Wanted:
    """Read rows with ``text`` and ``target``, and with the fields that are inputs of the prompt.

    Raises
    ------
    DataError
        See `sprat.train.data.read_records`.
    """
    rows = read_records(path, ("text", "target", *inputs))
    return Wanted(
        texts=tuple(str(row["text"]) for _, row in rows),
        targets=tuple(str(row["target"]) for _, row in rows),
        inputs=tuple({name: str(row[name]) for name in inputs} for _, row in rows),
        lines=tuple(line for line, _ in rows),
        path=str(path),
        sha256=sha256_file(path),
    )
