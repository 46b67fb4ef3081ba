"""What ``sprat train`` was asked for, as tests ask for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sprat.cli.train_request import TrainRequest

PLAIN = TrainRequest(
    data=Path("rows.jsonl"),
    out="task",
    kind="classify",
    base="minilm-l6",
    tiers=("head",),
    static_base=None,
    test=None,
    held_out=0.2,
    conflicts="refuse",
    class_weights="none",
    accept_at=0.0,
    targets=None,
    default=None,
    learning_curve=False,
    suspects=None,
    html=None,
    cache=True,
    epochs=None,
    learning_rate=None,
    resume=False,
    seed=0,
    replace=False,
    clean_label=None,
    policy=None,
    min_precision=(),
    min_recall=(),
    block_precision=(),
    as_json=False,
)


def train_request(kind: str, **changes: Any) -> TrainRequest:
    """A command line with nothing but its kind, and what is said here."""
    return dataclasses.replace(PLAIN, kind=kind, **changes)
