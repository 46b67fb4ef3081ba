"""The newest answers of a task, held against the rows that it was tuned or evaluated on."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sprat.bundle_manifest import BundleManifest
from sprat.decisions import HOUR_S, Decision
from sprat.drift import Counts, Row, compare, reference
from sprat.drift_log import Reader
from sprat.tasks.outcomes import Outcomes
from sprat.tasks.tier import Heard
from sprat.values import Drift, DriftFigure

log = logging.getLogger(__name__)

WINDOW = 2000
WINDOW_A_LABEL = 10
"""The newest answers that are compared: so many, or for each label so many if that is more."""

STEP = 500
STEP_KNOWN = 20
"""After so many answers, or so many that something became known of, the verdict is looked at, for
the log."""

BLOCK = 64
"""Answers that are counted at a time, which costs each of them less."""

_ALARMS = ("watch", "drifted")


class Watch:
    """A window of the newest answers, as counts; a row costs some microseconds.

    Beside it stand the outcomes that became known, which are few, and come later. Answers that went
    another way than the task's own thresholds send them are for the caller to leave out, and so are
    outcomes of other versions of the task.

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
        found = reference(manifest, parts)
        self._note = found if isinstance(found, str) else ""
        self._reference = None if isinstance(found, str) else found
        self._window: deque[Row] = deque()
        self._uncounted: list[Row] = []
        self._size = max(WINDOW, WINDOW_A_LABEL * len(manifest.labels))
        self._said = ("too_few", "")
        self._until_look, self._until_look_known = STEP, STEP_KNOWN
        if self._reference is None:
            return
        self._counts = Counts.of(self._reference.traffic)
        self._outcomes = Outcomes(self._counts, time.time())
        self._is_evaluation = self._reference.tuning is None
        self._reader = Reader(
            manifest.kind,
            manifest.labels,
            [accept_at for _, accept_at in parts],
            self._counts,
            self._is_evaluation,
        )

    @property
    def drift(self) -> Drift:
        """How far the window, and what is known of answers, is from the rows of the reference."""
        if self._reference is None:
            return Drift("unknown", 0, note=self._note)
        self._count()
        counts = replace(self._counts, answered=self._outcomes.answered)
        return compare(self._reference, counts)

    def add(self, items: Iterable[Any]) -> None:
        """Take in answers of several tiers, and say so in the log if they change the verdict.

        Parameters
        ----------
        items : iterable of Classification, Moderation, Extraction or None
            Those of a call; None for texts without an answer.
        """
        if self._reference is None:
            return
        came, row_of = self._uncounted, self._counts.row
        before, answered = len(came), 0
        for item in items:
            if item is None:
                continue
            known = [said.confidence for said in item.tiers if said.confidence is not None]
            if len(known) < len(item.tiers):
                continue
            is_missed = item.degraded is not None
            is_passed_on = is_missed or item.abstained
            label = None if is_missed else "" if item.abstained else item.tiers[-1].label
            came.append(row_of(known, is_passed_on=is_passed_on, label=label))
            answered += not is_passed_on
        self._take(len(came) - before, answered)

    def add_alone(self, heard: Heard[Any], accept_at: float) -> None:
        """Take in what the only tier says, as `add`.

        Parameters
        ----------
        accept_at : float
            From which confidence on that is the answer.
        """
        if self._reference is None:
            return
        came, row_of = self._uncounted, self._counts.row
        before, answered = len(came), 0
        for row, confidence in enumerate(heard.confidence):
            if confidence is None:
                continue
            is_sure = heard.is_sure(row, accept_at)
            label = heard.label(row) if is_sure or self._is_evaluation else ""
            came.append(row_of((confidence,), is_passed_on=not is_sure, label=label))
            answered += is_sure
        self._take(len(came) - before, answered)

    def learn(self, decision: Decision) -> None:
        """Take in what became known of an answer, as the decision log has it."""
        if self._reference is None or (seen := self._reader.read(decision)) is None:
            return
        key = decision.request_id, decision.item
        self._outcomes.learn(key, decision.time, seen.outcome)
        self._until_look_known -= 1
        if self._until_look_known <= 0:
            self._look()

    def recall(
        self,
        newest: Iterable[Decision],
        known: Iterable[Decision],
        answered: Mapping[int, int],
    ) -> None:
        """Take in what the decision log has from before, while nothing has been answered yet.

        Parameters
        ----------
        newest : iterable of Decision
            The newest ones, from the oldest of them on.
        known : iterable of Decision
            Those that something became known of, what was learned first coming first.
        answered : mapping of int to int
            Answers by the hour since 1970.
        """
        if self._reference is None:
            return
        read = map(self._reader.read, newest)
        self._uncounted += [seen.row for seen in read if seen is not None]
        self._outcomes.recall(answered)
        for decision in known:
            if (seen := self._reader.read(decision)) is not None:
                key = decision.request_id, decision.item
                self._outcomes.learn(key, decision.time, seen.outcome)
        self._look()

    def _take(self, count: int, answered: int) -> None:
        """Go on from so many rows more, of which some were answered."""
        self._outcomes.count_answers(answered, int(time.time()) // HOUR_S)
        if len(self._uncounted) >= BLOCK:
            self._count()
        self._until_look -= count
        if self._until_look <= 0:
            self._look()

    def _count(self) -> None:
        self._window += self._uncounted
        self._counts.count(self._uncounted)
        self._uncounted = []
        old = len(self._window) - self._size
        if old > 0:
            self._counts.count([self._window.popleft() for _ in range(old)], -1)

    def _look(self) -> None:
        self._until_look, self._until_look_known = STEP, STEP_KNOWN
        drift = self.drift
        before, self._said = self._said, (drift.verdict, drift.note)
        if self._said == before:
            return
        if drift.verdict in _ALARMS:
            found = ", ".join(_said(each) for each in drift.figures if each.verdict in _ALARMS)
            log.warning(
                "task %s: %s on the last %d answers: %s; %s",
                *(self._task, drift.verdict, drift.rows, found, drift.note),
            )
        elif before[0] in _ALARMS:
            log.warning("task %s: %s again", self._task, drift.verdict)


def _said(figure: DriftFigure) -> str:
    """A figure in a few words, for the log."""
    name = f"{figure.what} of {figure.tier}" if figure.tier else figure.what
    if figure.psi is not None:
        return f"{name} (PSI {figure.psi:.3f})"
    assert figure.share is not None
    assert figure.expected is not None
    return (
        f"{name} ({figure.share:.1%} of {figure.rows}, 95 % interval {figure.low:.1%} to "
        f"{figure.high:.1%}, at most {figure.expected:.1%})"
    )
