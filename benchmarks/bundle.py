"""The task that benchmarks serve: a classifier of the demo's support tickets."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

from sprat.errors import SetupError
from sprat.pull import pull
from sprat.store import Store

ENCODER = "minilm-l6"
GENERATOR = "smollm2-135m"
TASK = "tickets"


def train(store: Store, folder: Path) -> str:
    """Train the classifier below ``folder``, which stays outside of the store.

    Returns
    -------
    str
        What ``sprat serve --task`` takes.

    Raises
    ------
    DownloadError
        When the encoder is not on this machine and cannot be pulled.
    SetupError
        When it cannot be trained.
    """
    with (
        as_file(files("sprat.demo") / "tickets.train.jsonl") as rows,
        as_file(files("sprat.demo") / "tickets.test.jsonl") as held_out,
    ):
        return train_on(store, folder, rows, held_out)


def train_on(store: Store, folder: Path, rows: Path, held_out: Path) -> str:
    """As `train`, on other rows."""
    pull(ENCODER, store)
    path = folder / TASK
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sprat", "train", str(rows)),
            *("--base", ENCODER, "--test", str(held_out), "--out", str(path)),
        ],
        env={**os.environ, "SPRAT_HOME": str(store.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or ["it said nothing"]
        raise SetupError(f"the benchmark's task cannot be trained: {reason[-1]}")
    return str(path)
