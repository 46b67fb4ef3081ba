"""Rows, bundles and a store in a folder, and the commands of sprat that a user would give there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sprat.benchmarks import data
from sprat.benchmarks.harness import Context
from sprat.errors import SetupError

Row = dict[str, Any]


class Workbench:
    """A folder to work in.

    Parameters
    ----------
    folder : Path
        For rows and bundles.
    home : Path
        Root of the store.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "SPRAT_HOME": str(home)}

    def rows(self, name: str) -> Path:
        """The file of the rows of a name."""
        return self.folder / f"{name}.jsonl"

    def write(self, name: str, rows: Iterable[Row]) -> Path:
        """Write rows, and say where."""
        path = self.rows(name)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def sprat(self, *arguments: str) -> str:
        """What a command prints.

        Raises
        ------
        SetupError
            When it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", "sprat", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines() or ["it said nothing"]
            raise SetupError(
                f"sprat {arguments[0]} ended with status {done.returncode}: {reason[-1]}"
            )
        return done.stdout


def banking_rows(context: Context, part: str) -> list[Row]:
    """The rows of BANKING77's file of that part, ``train`` or ``test``.

    Raises
    ------
    SetupError
        It is not on this machine.
    """
    path = data.find(f"banking77.{part}.jsonl", context.checkout)
    if path is None:
        raise SetupError(
            f"banking77.{part}.jsonl is not on this machine; SPRAT_TEST_DATA names its folder"
        )
    return parse(path)


def draw(labels: Sequence[str], count: int, seed: int) -> list[int]:
    """So many rows of each label at random, in the order of the file."""
    rng = np.random.default_rng(seed)
    labels_n = np.array(labels)
    chosen = [
        rng.permutation(np.flatnonzero(labels_n == label))[:count] for label in sorted(set(labels))
    ]
    return sorted(np.concatenate(chosen).tolist())


def parse(path: Path) -> list[Row]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
