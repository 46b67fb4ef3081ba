"""Count the rows of a decision log as `sprat.drift` compares them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sprat.bundle_manifest import REPORT, BundleManifest
from sprat.calibration import least_confidence
from sprat.decisions import Decision
from sprat.drift import Counts
from sprat.errors import DataError, InvalidInput
from sprat.tuning_manifest import TierTraffic, Traffic

KINDS = ("classify", "route")


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


def reference(manifest: BundleManifest, folder: Path) -> tuple[Traffic, str]:
    """What the answers of a bundle are compared with, and where that is from.

    The rows that its thresholds were verified on; of a bundle without thresholds, whose last tier
    answers alone, the rows that this tier was evaluated on.

    Parameters
    ----------
    folder : Path
        Of the bundle, for its report.

    Returns
    -------
    (Traffic, {"tuning", "evaluation"})

    Raises
    ------
    InvalidInput
        There is neither: it says what to do.
    """
    if manifest.kind not in KINDS:
        raise InvalidInput(
            f"{manifest.name}: expected a classify or route task, not {manifest.kind}", field="task"
        )
    traffic = None if manifest.tuning is None else manifest.tuning.traffic
    if traffic is not None and [t.name for t in traffic.tiers] == [t.name for t in manifest.tiers]:
        return traffic, "tuning"
    advice = "run `sprat tune`, which keeps the rows that later ones are compared with"
    if manifest.tuning is not None or any(tier.accept_at for tier in manifest.tiers):
        raise InvalidInput(
            f"{manifest.name}: its thresholds come with no rows to compare with; {advice}",
            field="task",
        )
    last = manifest.tiers[-1]
    try:
        report = json.loads((folder / REPORT).read_text("utf-8"))
        evaluation = report["tiers"][last.name]["evaluation"]
        return _evaluated(last.name, evaluation), "evaluation"
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput(
            f"{manifest.name}: it was not tuned, and its {REPORT} has no evaluation of tier "
            f"{last.name}; {advice}",
            field="task",
        ) from None


def count(decisions: Iterable[Decision], manifest: BundleManifest, traffic: Traffic) -> Counted:
    """Count the answers of one version of a task.

    Parameters
    ----------
    decisions : iterable of Decision
        Of the task.
    manifest : BundleManifest
        Answers of other versions than this one are left out, and so are those whose way through
        the tiers is not that of its thresholds.
    traffic : Traffic
        What they will be compared with.
    """
    counted = Counted(Counts.of(traffic))
    accept_at: dict[str, float] = {tier.name: tier.accept_at for tier in manifest.tiers}
    thresholds = [accept_at[tier.name] for tier in traffic.tiers]
    for decision in decisions:
        if decision.task_version != manifest.version:
            counted.other_versions[decision.task_version] += 1
            continue
        known = [said.confidence for said in decision.tiers if said.confidence is not None]
        if len(known) < len(decision.tiers) or not _is_own_way(decision, known, thresholds):
            counted.other_ways += 1
            continue
        counted.since = decision.time if counted.since is None else counted.since
        counted.until = decision.time
        _count(counted.counts, decision, known, is_early=len(known) < len(thresholds))
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
        found = f"{counted.other_ways} with thresholds of the request's own"
    raise DataError(
        str(path), 0, f"expected answers of version {manifest.version} of the task, found {found}"
    )


def _is_own_way(decision: Decision, known: list[float], thresholds: list[float]) -> bool:
    """Whether a row went where the thresholds send it.

    How wide the band above a threshold is depends on the engine, so that both ways are right in the
    widest.
    """
    if not 1 <= len(known) <= len(thresholds):
        return False
    last = len(known) - 1
    for at, confidence in enumerate(known[:last]):
        if confidence > least_confidence(thresholds[at], "llama"):
            return False
    if decision.degraded is not None:
        return True
    if decision.abstained:
        return last == len(thresholds) - 1 and known[last] < thresholds[last]
    return known[last] >= thresholds[last]


def _count(counts: Counts, decision: Decision, known: list[float], *, is_early: bool) -> None:
    is_missed = decision.degraded is not None
    label = None if is_missed else decision.label
    counts.add(counts.row(known, is_passed_on=is_missed or decision.abstained, label=label))
    if is_missed or decision.abstained:
        return
    right, shadow = decision.feedback, decision.shadow
    if right is not None:
        counts.reviewed += 1
        counts.wrong += label != right
    if is_early and shadow is not None:
        counts.early += 1
        counts.agreed += label == shadow.label
        if right is not None:
            counts.both_known += 1
            counts.gained += shadow.label == right != label
            counts.lost += label == right != shadow.label


def _evaluated(name: str, evaluation: dict[str, Any]) -> Traffic:
    """The rows of an evaluation: bins of its reliability, and what was predicted.

    Where a bin ends with the confidence that the next one begins with, there is no edge between.
    """
    lowest: list[float] = []
    counts: list[int] = []
    highest = -1.0
    for each in evaluation["reliability"]:
        if each["lowest"] > highest:
            lowest.append(each["lowest"])
            counts.append(0)
        counts[-1] += each["n"]
        highest = each["highest"]
    labels = {each["label"]: each["predicted"] for each in evaluation["labels"]}
    tier = TierTraffic(name=name, edges=tuple(lowest[1:]), counts=tuple(counts), passed_on=0)
    return Traffic(rows=evaluation["n"], tiers=(tier,), labels=labels)
