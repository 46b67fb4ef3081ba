"""What a training was made from: for reports, and to repeat it."""

from __future__ import annotations

import platform
from typing import Protocol

from pydantic import BaseModel, ConfigDict

import sprat
from sprat.measure import versions

LIBRARIES = ("numpy", "scikit-learn", "scipy", "ctranslate2", "tokenizers")
"""Whose versions, beside those of Python and sprat, decide what comes out of a training."""


class Source(Protocol):
    """Rows of a file."""

    @property
    def sha256(self) -> str:
        """Of the whole file, in hex."""

    def __len__(self) -> int:
        """Rows."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Part):
    """Rows that were used.

    Attributes
    ----------
    sha256 : str
        Of the whole file; empty where the rows come from no file. Its name is nobody's business.
    rows : int
        How many of its rows were used.
    """

    sha256: str
    rows: int


class Provenance(_Part):
    """What a training can be repeated from: the same gives the same weights and version.

    Attributes
    ----------
    train, test : DataSource
        Rows that were trained on, and rows that were evaluated on. The same file for both: it was
        split.
    seed : int
        Of split, folds and resampling.
    versions : dict of str to str
        Of Python, sprat and the libraries that compute.
    """

    train: DataSource
    test: DataSource
    seed: int
    versions: dict[str, str]

    @classmethod
    def of(cls, train: Source, test: Source, *, seed: int) -> Provenance:
        """The provenance of a training in this process."""
        sources = [DataSource(sha256=rows.sha256, rows=len(rows)) for rows in (train, test)]
        return cls(
            train=sources[0],
            test=sources[1],
            seed=seed,
            versions={
                "python": platform.python_version(),
                "sprat": sprat.__version__,
                **versions(LIBRARIES),
            },
        )
