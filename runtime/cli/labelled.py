"""Files of labelled rows, as the kind of a bundle has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.train.rate import Rows


def read_labelled(path: Path, kind: str, clean_label: str | None = None) -> Rows:
    """The rows of a file for a bundle of that kind.

    Raises
    ------
    DataError
        See `sprat.train.data.read`.
    InvalidInput
        There is a label of clean texts, and the task is none of moderation.
    """
    from sprat.train.categories import read_categories
    from sprat.train.data import read
    from sprat.train.spans import read_spans

    if kind == "moderate":
        return read_categories(path, clean_label=clean_label)
    if clean_label is not None:
        raise InvalidInput("--clean-label: expected a moderate task", field="clean-label")
    return read_spans(path) if kind == "extract" else read(path)
