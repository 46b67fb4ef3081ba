"""What rows look like to a cascade, or to a tier alone, kept in its bundle: see `sprat.drift`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import BundleManifest, Calibration
from sprat.calibration import confidences
from sprat.decisions import ALLOW
from sprat.train.calibrate import log_softmax
from sprat.train.thresholds import ABSTAINED, Answers, TierScores
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import FloatArray, IntArray

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
        What ``answer_n`` points to: see `answer_names`. Of kinds that answer otherwise nothing is
        counted of answers.
    """
    places = [place for place, accept_at in enumerate(thresholds) if accept_at is not None]
    reached_n = np.ones(len(answers.tier_n), np.bool_)
    counted = []
    for place in places:
        is_own_n = answers.tier_n == place
        passed_on = int((reached_n & ~is_own_n).sum())
        counted.append(_tier(tiers[place].name, tiers[place].confidence_n[reached_n], passed_on))
        reached_n = reached_n & ~is_own_n
    return Traffic(
        rows=len(answers.tier_n),
        tiers=tuple(counted),
        **_answers([tiers[place] for place in places], places, answers, labels),
    )


def traffic_of_tier(
    name: str, confidence_n: npt.NDArray[np.float64], answers: Iterable[str] = ()
) -> Traffic:
    """Count what a tier makes of the rows that it was evaluated on, when it answers all of them.

    Parameters
    ----------
    name : str
        Of the tier.
    confidence_n : float64[N]
        Of its answers, in [0, 1]; N from 1.
    answers : iterable of str
        The answers, where they are labels.
    """
    return Traffic(
        rows=len(confidence_n),
        tiers=(_tier(name, confidence_n, None),),
        labels=dict(Counter(answers)),
    )


def traffic_of_classifier(
    name: str, logits_nk: FloatArray, calibration: Calibration, labels: Sequence[str]
) -> Traffic:
    """As `traffic_of_tier`, of a tier whose best label is the answer.

    Parameters
    ----------
    logits_nk : float32[N, K]
    labels : sequence of str
        K labels.
    """
    log_p = log_softmax(logits_nk, calibration.temperature)
    confidence_n = confidences(np.exp(log_p.max(axis=1)), calibration)
    return traffic_of_tier(name, confidence_n, (labels[at] for at in log_p.argmax(axis=1)))


def answer_names(manifest: BundleManifest) -> tuple[str, ...]:
    """What the places of answers are called: see `sprat.train.thresholds.TierScores`."""
    return (*manifest.labels, ALLOW) if manifest.kind == "moderate" else manifest.labels


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


def _tier(name: str, confidence_n: npt.NDArray[np.float64], passed_on: int | None) -> TierTraffic:
    edges: IntArray | npt.NDArray[np.float64] = np.empty(0)
    if len(confidence_n):
        ranks = np.linspace(0, 1, BINS + 1)[1:-1]
        # At a confidence that was seen, so that equal ones stay together; none below the least.
        edges = np.unique(np.quantile(confidence_n, ranks, method="higher"))
        edges = edges[edges > confidence_n.min()]
    bins_n = np.searchsorted(edges, confidence_n, side="right")
    return TierTraffic(
        name=name,
        edges=tuple(edges.tolist()),
        counts=tuple(np.bincount(bins_n, minlength=len(edges) + 1).tolist()),
        passed_on=passed_on,
    )
