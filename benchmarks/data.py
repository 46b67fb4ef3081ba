"""The texts that benchmarks send: public ones where they are on this machine, else our own."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

TRAIN = "banking77.train.jsonl"
PUBLIC = "banking77.test.jsonl"
"""3,080 questions to a bank, of 14 tokens on average: short texts, as narrow tasks get them."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and where they are from.

    Attributes
    ----------
    source : str
        For the report.
    texts : tuple of str
        In the order of their file.
    """

    source: str
    texts: tuple[str, ...]

    def exactly(self, count: int) -> tuple[str, ...]:
        """The first ``count`` texts, from the start again where there are fewer."""
        return tuple(itertools.islice(itertools.cycle(self.texts), count))


def tickets() -> Texts:
    """The support tickets of the demo, which come with sprat."""
    rows: list[str] = []
    for name in ("tickets.test.jsonl", "tickets.train.jsonl"):
        rows += (files("sprat.demo") / name).read_text("utf-8").splitlines()
    return Texts("sprat demo tickets", _texts(rows))


def load(checkout: Path | None) -> Texts:
    """BANKING77's test texts where they are found, else `tickets`.

    Parameters
    ----------
    checkout : Path or None
        The data is looked for in ``../shared/data`` beside it, unless ``SPRAT_TEST_DATA`` names
        the folder.
    """
    path = find(PUBLIC, checkout)
    if path is None:
        return tickets()
    return Texts("BANKING77 test", _texts(path.read_text("utf-8").splitlines()))


def public(checkout: Path | None) -> tuple[Path, Path] | None:
    """BANKING77's labelled rows to train on and to test with; None where they are not found.

    Parameters
    ----------
    checkout : Path or None
        As for `load`.
    """
    train, test = find(TRAIN, checkout), find(PUBLIC, checkout)
    return None if train is None or test is None else (train, test)


def ticket_files() -> tuple[Path, Path]:
    """The demo's labelled rows to train on and to test with."""
    folder = Path(str(files("sprat.demo")))
    return folder / "tickets.train.jsonl", folder / "tickets.test.jsonl"


def find(name: str, checkout: Path | None) -> Path | None:
    """A file of the public data sets, or None where it is not on this machine; see `load`."""
    folder = os.environ.get("SPRAT_TEST_DATA")
    if folder is not None:
        path = Path(folder) / name
    elif checkout is not None:
        path = checkout.parent / "shared" / "data" / name
    else:
        return None
    return path if path.is_file() else None


def _texts(rows: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(json.loads(row)["text"]) for row in rows)
