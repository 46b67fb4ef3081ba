"""What ``sprat train`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sprat.train.checks import Conflicts
from sprat.train.fit import ClassWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """The command line of ``sprat train``; its help says what each option means."""

    data: Path
    out: str
    kind: str
    base: str
    tiers: tuple[str, ...]
    static_base: str | None
    test: Path | None
    held_out: float
    conflicts: Conflicts
    class_weights: ClassWeights
    accept_at: float
    targets: Path | None
    default: str | None
    learning_curve: bool
    suspects: Path | None
    html: Path | None
    cache: bool
    epochs: int | None
    learning_rate: float | None
    resume: bool
    seed: int
    replace: bool
    clean_label: str | None
    policy: Path | None
    min_precision: tuple[str, ...]
    min_recall: tuple[str, ...]
    block_precision: tuple[str, ...]
    as_json: bool

    @property
    def loop(self) -> dict[str, Any]:
        """What was said of how weights are trained; the rest is the trainer's."""
        given = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return {name: value for name, value in given.items() if value is not None}

    def tuning(self) -> tuple[tuple[str, object | None], ...]:
        """The options of training with torch that were given: name, and None where it was not."""
        return (
            ("tiers finetune", True if "finetune" in self.tiers else None),
            ("epochs", self.epochs),
            ("learning-rate", self.learning_rate),
            ("resume", self.resume or None),
        )
