"""The texts that benchmarks send: public ones where they are on this machine, else our own."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

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
    folder = os.environ.get("SPRAT_TEST_DATA")
    if folder is not None:
        path = Path(folder) / PUBLIC
    elif checkout is not None:
        path = checkout.parent / "shared" / "data" / PUBLIC
    else:
        return tickets()
    if not path.is_file():
        return tickets()
    return Texts("BANKING77 test", _texts(path.read_text("utf-8").splitlines()))


def _texts(rows: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(json.loads(row)["text"]) for row in rows)
