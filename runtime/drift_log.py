"""Count the rows of a decision log as `sprat.drift` compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sprat.bundle_manifest import BundleManifest
from sprat.calibration import least_confidence
from sprat.decisions import RIGHT_OR_WRONG, Decision
from sprat.drift import Counts, Outcome, Reference, Row, reference
from sprat.errors import DataError, InvalidInput

COUNTED_AT_ONCE = 1000

LABELLED = ("classify", "route", "moderate")
"""Kinds whose answers are labels, or due to one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision, as it is counted.

    Attributes
    ----------
    row : Row
    outcome : Outcome
    """

    row: Row
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads decisions of one version of a task.

    Attributes
    ----------
    kind : str
    labels : sequence of str
    thresholds : sequence of float
        Of each tier that takes part.
    counts : Counts
        Its bins are those of the rows.
    is_evaluation : bool
        Labels are the most probable ones, whether they were accepted or not.
    """

    kind: str
    labels: Sequence[str]
    thresholds: Sequence[float]
    counts: Counts
    is_evaluation: bool

    def read(self, decision: Decision) -> Seen | None:
        """What is counted; None where the way through the tiers is not that of the thresholds."""
        known = [said.confidence for said in decision.tiers if said.confidence is not None]
        if len(known) < len(decision.tiers) or not self._is_own_way(decision, known):
            return None
        is_missed = decision.degraded is not None
        label: str | None = decision.tiers[-1].label
        if not self.is_evaluation:
            label = None if is_missed else decision.label
        is_passed_on = is_missed or decision.abstained
        row = self.counts.row(known, is_passed_on=is_passed_on, label=label)
        return Seen(row, Outcome() if is_passed_on else self._outcome(decision, len(known)))

    def _is_own_way(self, decision: Decision, known: Sequence[float]) -> bool:
        """Whether a row went where the thresholds send it.

        How wide the band above a threshold is depends on the engine, so that both ways are right in
        the widest.
        """
        if not 1 <= len(known) <= len(self.thresholds):
            return False
        last = len(known) - 1
        for at, confidence in enumerate(known[:last]):
            if confidence > least_confidence(self.thresholds[at], "llama"):
                return False
        if decision.degraded is not None:
            return True
        if decision.abstained:
            return last == len(self.thresholds) - 1 and known[last] < self.thresholds[last]
        return known[last] >= self.thresholds[last]

    def _outcome(self, decision: Decision, heard: int) -> Outcome:
        right, said = decision.feedback, decision.label
        is_right = None
        # A category may have such a name, too.
        is_word = right in RIGHT_OR_WRONG and right not in self.labels
        if right is not None:
            is_right = right == RIGHT_OR_WRONG[0] if is_word else right == said
        last = decision.shadow
        if last is None or heard == len(self.thresholds) or self.kind not in LABELLED:
            return Outcome(is_right=is_right)
        is_agreed = last.label == said
        is_last_right: bool | None = None if right is None else last.label == right
        if is_word:
            # What else would have been right is not known.
            is_last_right = is_agreed if is_right else False if is_agreed else None
        return Outcome(is_agreed, is_right, is_last_right)


@dataclass(slots=True)
class Counted:
    """What was counted, and what was not.

    Attributes
    ----------
    counts : Counts
    other_versions : Counter of str
        Rows that another version of the task answered, by version.
    other_ways : int
        Rows that thresholds of the request's own sent another way.
    since, until : float or None
        Seconds since 1970 of the oldest and the newest row that was counted.
    """

    counts: Counts
    other_versions: Counter[str] = field(default_factory=Counter)
    other_ways: int = 0
    since: float | None = None
    until: float | None = None


def reference_of(manifest: BundleManifest) -> Reference:
    """What answers of a bundle are compared with, if it is served as it is.

    Raises
    ------
    InvalidInput
        There is nothing: it says what to do.
    """
    tiers = [manifest.tiers[place] for place in manifest.answering]
    found = reference(manifest, [(tier.name, tier.accept_at) for tier in tiers])
    if isinstance(found, str):
        raise InvalidInput(f"{manifest.name}: {found}", field="task")
    return found


def count(
    decisions: Iterable[Decision], manifest: BundleManifest, compared_with: Reference
) -> Counted:
    """Count the answers of one version of a task.

    Parameters
    ----------
    decisions : iterable of Decision
        Of the task.
    manifest : BundleManifest
        Answers of other versions than this one are left out, and so are those whose way through
        the tiers is not that of its thresholds.
    compared_with : Reference
        What they will be compared with.
    """
    counted = Counted(Counts.of(compared_with.traffic))
    accept_at: dict[str, float] = {tier.name: tier.accept_at for tier in manifest.tiers}
    reader = Reader(
        manifest.kind,
        manifest.labels,
        [accept_at[tier.name] for tier in compared_with.traffic.tiers],
        counted.counts,
        compared_with.tuning is None,
    )
    rows: list[Row] = []
    for decision in decisions:
        if decision.task_version != manifest.version:
            counted.other_versions[decision.task_version] += 1
        elif (seen := reader.read(decision)) is None:
            counted.other_ways += 1
        else:
            counted.since = decision.time if counted.since is None else counted.since
            counted.until = decision.time
            rows.append(seen.row)
            counted.counts.learn(seen.outcome)
            if len(rows) == COUNTED_AT_ONCE:
                counted.counts.count(rows)
                rows.clear()
    counted.counts.count(rows)
    return counted


def require_rows(counted: Counted, manifest: BundleManifest, path: Path) -> None:
    """Refuse a log without a single row of the version.

    Raises
    ------
    DataError
        It names the versions that the log has.
    """
    if counted.counts.rows:
        return
    found = "none in that time"
    if counted.other_versions:
        most = ", ".join(f"{name} ({n})" for name, n in counted.other_versions.most_common(5))
        found = f"those of {most}: another bundle, or thresholds of the configuration"
    elif counted.other_ways:
        found = f"{counted.other_ways} with thresholds of the request's own, or no confidence"
    raise DataError(
        str(path), 0, f"expected answers of version {manifest.version} of the task, found {found}"
    )
