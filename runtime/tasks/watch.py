"""The newest answers of a cascade, held against the rows that it was tuned on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from sprat.bundle_manifest import BundleManifest
from sprat.drift import Counts, Row, compare
from sprat.tuning_manifest import Traffic
from sprat.values import Drift, Verdict

log = logging.getLogger(__name__)

WINDOW = 2000
WINDOW_A_LABEL = 10
"""The newest answers that are compared: so many, or for each label so many if that is more."""

STEP = 500
"""After so many answers the verdict is looked at, for the log."""

_ALARMS = ("watch", "drifted")


class Watch:
    """A window of the newest answers, as counts; a row costs some microseconds.

    Answers that went another way than the task's own thresholds send them are for the caller to
    leave out.

    Parameters
    ----------
    task : str
        For the log.
    manifest : BundleManifest
    parts : sequence of (str, float)
        Name and threshold of each tier that takes part.
    """

    def __init__(self, task: str, manifest: BundleManifest, parts: Sequence[tuple[str, float]]):
        self._task = task
        self._traffic, self._note = _reference(manifest, parts)
        self._window: deque[Row] = deque()
        self._size = max(WINDOW, WINDOW_A_LABEL * len(manifest.labels))
        self._verdict: Verdict = "too_few"
        self._until_look = STEP
        if self._traffic is not None:
            self._counts = Counts.of(self._traffic)

    @property
    def drift(self) -> Drift:
        """How far the window is from the rows of the tuning."""
        if self._traffic is None:
            return Drift("unknown", 0, note=self._note)
        return compare(self._traffic, self._counts)

    def add(self, items: Iterable[Any]) -> None:
        """Take in answers, and say so in the log if they change the verdict.

        Parameters
        ----------
        items : iterable of Classification, Moderation, Extraction or None
            Those of a call; None for texts without an answer.
        """
        if self._traffic is None:
            return
        for item in items:
            if item is None:
                continue
            known = [said.confidence for said in item.tiers if said.confidence is not None]
            if len(known) < len(item.tiers):
                continue
            is_missed = item.degraded is not None
            row = self._counts.row(
                known,
                is_passed_on=is_missed or item.abstained,
                label=None if is_missed else "" if item.abstained else item.tiers[-1].label,
            )
            self._window.append(row)
            self._counts.add(row)
            if len(self._window) > self._size:
                self._counts.add(self._window.popleft(), -1)
            self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = STEP
            self._look()

    def _look(self) -> None:
        drift = self.drift
        if drift.verdict == self._verdict:
            return
        before, self._verdict = self._verdict, drift.verdict
        if drift.verdict in _ALARMS:
            found = ", ".join(
                f"{each.what}{each.tier and ' of ' + each.tier} (PSI {each.psi:.3f})"
                for each in drift.figures
                if each.verdict in _ALARMS
            )
            log.warning(
                "task %s: %s on the last %d answers: %s; %s",
                *(self._task, drift.verdict, drift.rows, found, drift.note),
            )
        elif before in _ALARMS:
            log.warning("task %s: %s again", self._task, drift.verdict)


def _reference(
    manifest: BundleManifest, parts: Sequence[tuple[str, float]]
) -> tuple[Traffic | None, str]:
    """What a cascade was tuned on, or why there is nothing that its answers could be held to."""
    if manifest.tuning is None or manifest.tuning.traffic is None:
        return None, "the bundle was not tuned, or by a version that kept no reference: tune it"
    if tuple(parts) != tuple((tier.name, tier.accept_at) for tier in manifest.tiers):
        return None, "the tiers and thresholds that are served are not those of the tuning"
    return manifest.tuning.traffic, ""
