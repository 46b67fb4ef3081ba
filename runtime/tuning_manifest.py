"""The part of a bundle's manifest that says where the thresholds of its cascade come from."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sprat.manifest import Interval, Manifest


class TierTraffic(Manifest):
    """What a tier made of the rows that reached it.

    Attributes
    ----------
    name : str
    edges : tuple of float
        Ascending. A confidence lies in the bin after the last edge that it reaches.
    counts : tuple of int
        Rows in each bin, one more than there are edges.
    passed_on : int or None
        Rows that it was not sure enough of; the last tier abstains from them. None: there was no
        threshold.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    passed_on: int | None = Field(ge=0)

    @model_validator(mode="after")
    def _counts_fit(self) -> TierTraffic:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(self.edges)} edges")
        if any(a >= b for a, b in itertools.pairwise(self.edges)):
            raise ValueError("edges: expected ascending numbers")
        if (self.passed_on or 0) > sum(self.counts):
            raise ValueError(f"passed_on: expected at most {sum(self.counts)} rows")
        return self

    @property
    def rows(self) -> int:
        """Rows that reached it."""
        return sum(self.counts)


class Traffic(Manifest):
    """What rows looked like to a task, which later ones are compared with: see `sprat.drift`.

    Attributes
    ----------
    rows : int
    tiers : tuple of TierTraffic
        Those that take part, in order.
    labels : dict of str to int
        Answers by label; those without one stand under the empty string. Without a threshold, the
        most probable labels. None of tasks whose answers are no labels.
    early, agreed : int
        Answers of tiers before the last; those of them that are the last tier's answer, too.
    """

    rows: int = Field(ge=1)
    tiers: tuple[TierTraffic, ...]
    labels: dict[str, int]
    early: int = Field(default=0, ge=0)
    agreed: int = Field(default=0, ge=0)


class LoggedRows(Manifest):
    """Which rows of a decision log were tuned on.

    Attributes
    ----------
    with_feedback : int
        Rows whose label is the right answer that somebody gave.
    confirmed : int
        Those of them whose answer was right: the others were corrected.
    from_last_tier : int
        Rows whose label is the last tier's answer, drawn at random.
    since, until : float
        Seconds since 1970 of the oldest and the newest row.
    """

    with_feedback: int = Field(ge=0)
    confirmed: int = Field(ge=0)
    from_last_tier: int = Field(ge=0)
    since: float
    until: float


class Tuning(Manifest):
    """How the thresholds of a cascade were chosen, and what showed that they do.

    Attributes
    ----------
    rule : {"loss", "error", "cost"}
        See `sprat.train.thresholds.Aim`, also for ``limit`` and ``delta``.
    data_sha256 : str
        Of the file of the labelled rows, in hex; of a log, over its texts and labels.
    chosen_on, verified_on : int
        Rows of the two halves; all figures are of the second one.
    cost_ms : dict of str to float
        CPU milliseconds of a row in each tier that was tried, on the machine of the tuning.
    cost_date : str or None
        When ``sprat bench --tiers`` had measured them there; None: while the rows were scored.
    shares : dict of str to float
        Share of the rows that each tier answers.
    cost_ratio : Interval
        Cost against that of the best tier alone.
    loss_points : Interval
        Points of accuracy below the best tier alone; rows without an answer count as wrong.
    coverage, wrong : Interval
        Share of the rows with an answer; share of the answers that are wrong.
    traffic : Traffic or None
        What the cascade made of the rows; None from before this was kept.
    logged : LoggedRows or None
        Of rows of a decision log.
    """

    rule: Literal["loss", "error", "cost"]
    limit: float
    delta: float
    data_sha256: str
    chosen_on: int = Field(ge=1)
    verified_on: int = Field(ge=1)
    cost_ms: dict[str, float]
    cost_date: str | None = None
    best_tier: str
    shares: dict[str, float]
    cost_ratio: Interval
    loss_points: Interval
    coverage: Interval
    wrong: Interval
    traffic: Traffic | None = None
    logged: LoggedRows | None = None
