"""Texts that a quantized model is judged on, or calibrated with: plain, or rows with labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.errors import DataError, InvalidInput
from sprat.tokenizer import check_text
from sprat.train import data
from sprat.values import IntArray


@dataclass(frozen=True, slots=True)
class GateRows:
    """Texts in the order of their file.

    Attributes
    ----------
    texts : tuple of str
        At least one.
    rows : Dataset or None
        The same with their labels, where the file has some.
    path : str
        The file, for messages.
    sha256 : str
        Of the file.
    """

    texts: tuple[str, ...]
    rows: data.Dataset | None
    path: str
    sha256: str

    def targets(self, labels: Sequence[str]) -> IntArray | None:
        """Each row's label as its index in ``labels``, int32[N]; None without labels.

        Raises
        ------
        DataError
            Rows have other labels.
        """
        return None if self.rows is None else self.rows.targets(labels)


def read(path: Path) -> GateRows:
    """Read ``.jsonl`` or ``.csv`` with labelled rows, or ``.txt`` with a text on each line.

    Empty lines of a ``.txt`` are left out.

    Raises
    ------
    DataError
        The file cannot be read, is not UTF-8, holds no rows, or has bad ones, named by line.
    """
    if path.suffix.lower() != ".txt":
        rows = data.read(path)
        return GateRows(rows.texts, rows, str(path), _sha256(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        raise DataError(str(path), at, f"not UTF-8 at byte {error.start} of the file") from None
    texts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                check_text(line, "text")
            except InvalidInput as error:
                raise DataError(str(path), number, error.message) from None
            texts.append(line.rstrip("\r"))
    if not texts:
        raise DataError(str(path), 0, "no rows")
    return GateRows(tuple(texts), None, str(path), hashlib.sha256(content).hexdigest())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
