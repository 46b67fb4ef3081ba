"""Decision logs with rows that a test chose."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.decisions import SCHEMA


@dataclass(frozen=True)
class Logged:
    """A row: what each tier said, as (name, label, confidence), and what became of it."""

    tiers: tuple[tuple[str, str, float | None], ...]
    label: str
    version: str
    text: str | None = None
    feedback: str | None = None
    shadow: str | None = None
    degraded: str | None = None
    task: str = "tickets"
    kind: str = "classify"
    time: float = 1_750_000_000.0
    flagged: tuple[str, ...] | None = None


def write_log(path: Path, rows: Iterable[Logged]) -> Path:
    """Write a decision log; rows follow each other by a second."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
        for at, row in enumerate(rows):
            said: list[dict[str, Any]] = [
                {"tier": place, "name": name, "label": label, "confidence": confidence}
                for place, (name, label, confidence) in enumerate(row.tiers)
            ]
            if row.flagged is not None:
                said[-1]["flagged"] = row.flagged
            tier = len(said) - 1
            connection.execute(
                "INSERT INTO decisions VALUES (?, ?, 0, ?, ?, ?, ?, zeroblob(16), ?, ?, ?, ?, ?, "
                "?, ?, ?, 5)",
                (
                    *(at + 1, f"request-{at}", row.time + at, row.task, row.version, row.kind),
                    *(row.text, row.label, said[-1]["confidence"], not row.label, tier, tier > 0),
                    *(row.degraded, json.dumps(said)),
                ),
            )
            if row.shadow is not None:
                connection.execute(
                    "INSERT INTO shadows VALUES (?, ?, 'head', ?, 0.9, ?)",
                    (at + 1, tier + 1, row.shadow, row.time + at),
                )
            if row.feedback is not None:
                connection.execute(
                    "INSERT INTO feedback VALUES (?, 0, ?, ?)",
                    (f"request-{at}", row.feedback, row.time + at),
                )
        connection.commit()
    return path
