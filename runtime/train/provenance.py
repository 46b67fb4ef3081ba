"""What a training was made from: for reports, and to repeat it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

import sprat
from sprat.measure import versions

LIBRARIES = ("numpy", "scikit-learn", "scipy", "ctranslate2", "tokenizers")
"""Whose versions, beside those of Python and sprat, decide what comes out of a training."""

TORCH = ("torch", "transformers", "safetensors")
"""The same where the weights of an encoder are trained."""

LORA = ("numpy", "torch", "transformers", "peft", "gguf", "llama-cpp-python", "llguidance")
"""The same where an adapter is trained."""


class Source(Protocol):
    """Rows of a file."""

    @property
    def sha256(self) -> str:
        """Of the whole file, in hex."""

    @property
    def lines(self) -> tuple[int, ...]:
        """Line of each row in the file."""

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
    lines : str
        Sha256 over their lines in the file, in the order of their use: another split has another.
    """

    sha256: str
    rows: int
    lines: str

    @classmethod
    def of(cls, rows: Source) -> DataSource:
        """What is to be known of rows."""
        lines = hashlib.sha256(",".join(map(str, rows.lines)).encode()).hexdigest()
        return cls(sha256=rows.sha256, rows=len(rows), lines=lines)


class Provenance(_Part):
    """What a training can be repeated from: the same gives the same weights and version.

    Attributes
    ----------
    train, test : DataSource
        Rows that were trained on, and rows that were evaluated on. The same file for both: it was
        split.
    validation : DataSource or None
        Rows that said when to stop, where a training asks some; they are not among ``train``.
    seed : int
        Of split, folds and resampling.
    versions : dict of str to str
        Of Python, sprat and the libraries that compute.
    """

    train: DataSource
    test: DataSource
    validation: DataSource | None = None
    seed: int
    versions: dict[str, str]

    @classmethod
    def of(
        cls,
        train: Source,
        test: Source,
        *,
        seed: int,
        validation: Source | None = None,
        libraries: Sequence[str] = LIBRARIES,
    ) -> Provenance:
        """The provenance of a training in this process, by libraries whose versions count."""
        return cls(
            train=DataSource.of(train),
            test=DataSource.of(test),
            validation=None if validation is None else DataSource.of(validation),
            seed=seed,
            versions={
                "python": platform.python_version(),
                "sprat": sprat.__version__,
                **versions(libraries),
            },
        )
