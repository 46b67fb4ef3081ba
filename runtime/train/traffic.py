"""What rows look like to a cascade, kept with its thresholds: see `sprat.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.train.thresholds import ABSTAINED, Answers, TierScores
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import IntArray

BINS = 10
"""Bins of a tier's confidences, of about equally many rows; fewer where many are the same."""


def traffic_of(
    tiers: Sequence[TierScores],
    thresholds: Sequence[float | None],
    answers: Answers,
    labels: Sequence[str],
) -> Traffic:
    """Count what tiers with these thresholds make of rows.

    Parameters
    ----------
    tiers : sequence of TierScores
        All that were tried, on these rows.
    thresholds : sequence of float or None
        As in `sprat.train.thresholds.Chosen`.
    answers : Answers
        What `sprat.train.thresholds.cascade` makes of both.
    labels : sequence of str
        What ``answer_n`` points to. Of kinds that answer otherwise nothing is counted of answers.
    """
    places = [place for place, accept_at in enumerate(thresholds) if accept_at is not None]
    reached_n = np.ones(len(answers.tier_n), np.bool_)
    counted = []
    for place in places:
        is_own_n = answers.tier_n == place
        counted.append(_tier(tiers[place], reached_n, int((reached_n & ~is_own_n).sum())))
        reached_n = reached_n & ~is_own_n
    return Traffic(
        rows=len(answers.tier_n),
        tiers=tuple(counted),
        **_answers([tiers[place] for place in places], places, answers, labels),
    )


def _answers(
    tiers: Sequence[TierScores], places: Sequence[int], answers: Answers, labels: Sequence[str]
) -> dict[str, Any]:
    """Answers by label, those of tiers before the last, and those that are the last one's, too."""
    said = [tier.answer_n for tier in tiers if tier.answer_n is not None]
    if len(said) < len(tiers):
        return {"labels": {}}
    is_own_tn = [answers.tier_n == place for place in places]
    answer_n = np.select(is_own_tn, said, ABSTAINED)
    names = dict(enumerate(labels)) | {ABSTAINED: ""}
    given, counts = np.unique(answer_n, return_counts=True)
    is_early_n = ~is_own_tn[-1] & (answers.tier_n != ABSTAINED)
    return {
        "labels": {names[at]: n for at, n in zip(given.tolist(), counts.tolist(), strict=True)},
        "early": int(is_early_n.sum()),
        "agreed": int((is_early_n & (answer_n == said[-1])).sum()),
    }


def _tier(tier: TierScores, reached_n: npt.NDArray[np.bool_], passed_on: int) -> TierTraffic:
    confidence_n = tier.confidence_n[reached_n]
    edges: IntArray | npt.NDArray[np.float64] = np.empty(0)
    if len(confidence_n):
        ranks = np.linspace(0, 1, BINS + 1)[1:-1]
        # At a confidence that was seen, so that equal ones stay together; none below the least.
        edges = np.unique(np.quantile(confidence_n, ranks, method="higher"))
        edges = edges[edges > confidence_n.min()]
    bins_n = np.searchsorted(edges, confidence_n, side="right")
    return TierTraffic(
        name=tier.name,
        edges=tuple(edges.tolist()),
        counts=tuple(np.bincount(bins_n, minlength=len(edges) + 1).tolist()),
        passed_on=passed_on,
    )
