"""Limits that an evaluation has to keep, for continuous integration."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from sprat.errors import InvalidInput


class Gate(BaseModel):
    """A limit and how it was kept.

    Attributes
    ----------
    option : str
        Such as ``min-accuracy``.
    metric : str
    limit, value : float
        What was asked for, and what came.
    passed : bool
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    option: str
    metric: str
    limit: float
    value: float
    passed: bool

    def message(self) -> str:
        """What failed and by how much."""
        miss = abs(self.value - self.limit)
        way = "below" if self.option.startswith("min") else "above"
        return f"{self.metric} is {self.value:.4f}: {miss:.4f} {way} --{self.option} {self.limit:g}"


def check(figures: Mapping[str, float], limits: Mapping[str, float | None]) -> tuple[Gate, ...]:
    """Judge figures by limits.

    Parameters
    ----------
    figures : mapping of str to float
        Metrics by name.
    limits : mapping of str to float or None
        By option: ``min-METRIC`` or ``max-METRIC``, with dashes; None sets no limit. A value at the
        limit passes.

    Raises
    ------
    InvalidInput
        There is no such metric: a limit that nothing is compared with must not pass.
    """
    gates = []
    for option, limit in limits.items():
        if limit is None:
            continue
        side, _, name = option.partition("-")
        metric = name.replace("-", "_")
        if metric not in figures:
            known = ", ".join(sorted(figures))
            raise InvalidInput(
                f"--{option}: this evaluation has no {metric}; it has {known}", field=option
            )
        value = figures[metric]
        passed = value >= limit if side == "min" else value <= limit
        gates.append(Gate(option=option, metric=metric, limit=limit, value=value, passed=passed))
    return tuple(gates)
