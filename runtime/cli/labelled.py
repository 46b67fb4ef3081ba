"""Files of labelled rows, as the kind of a bundle has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from sprat.bundle_manifest import BundleManifest
    from sprat.train.rate import Rows


def read_labelled(path: Path, bundle: BundleManifest, clean_label: str | None = None) -> Rows:
    """The rows of a file for a bundle, as its kind has them.

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
    from sprat.train.wanted import read_wanted

    kind = bundle.kind
    if kind == "moderate":
        return read_categories(path, clean_label=clean_label)
    if clean_label is not None:
        raise InvalidInput("--clean-label: expected a moderate task", field="clean-label")
    if bundle.transform is not None:
        return read_wanted(path, bundle.transform.inputs)
    return read_spans(path) if kind == "extract" else read(path)
