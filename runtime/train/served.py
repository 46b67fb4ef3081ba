"""What a cascade makes of rows, whatever kind of answers its tiers give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.manifest import Interval
from sprat.train import metrics
from sprat.train.metrics import Floats, Picks
from sprat.train.thresholds import ABSTAINED, Answers, TierScores


def served_figures(
    served: Answers, best_ms: float | None, rng: np.random.Generator
) -> dict[str, Interval]:
    """Figures that need no confidence.

    Parameters
    ----------
    best_ms : float or None
        CPU time of a row by the best tier of a cascade; None of a tier alone.

    Returns
    -------
    dict of str to Interval
        ``right``: share of all rows that are answered rightly. Of a cascade ``coverage``, share
        that is answered at all; ``wrong``, share of the answers that is wrong, 0 without any;
        ``cost_ratio``, CPU time of all tiers against that of the best one alone.
    """
    is_answered_n = served.tier_n != ABSTAINED

    def statistics(picks_rn: Picks) -> dict[str, Floats]:
        right_r = served.is_right_n[picks_rn].mean(axis=1)
        covered_r = is_answered_n[picks_rn].mean(axis=1)
        if best_ms is None:
            return {"right": right_r}
        return {
            "right": right_r,
            "coverage": covered_r,
            "wrong": np.where(covered_r > 0, 1 - right_r / np.maximum(covered_r, 1e-12), 0.0),
            "cost_ratio": served.cost_n[picks_rn].mean(axis=1) / best_ms,
        }

    return metrics.intervals(statistics, (len(served.tier_n),), rng)


def served_confidences(scores: Sequence[TierScores], served: Answers) -> Floats:
    """Of each row's answer, 0 where there is none: float64[N]."""
    confidence_n = np.zeros(len(served.tier_n))
    for at, tier in enumerate(scores):
        is_own_n = served.tier_n == at
        confidence_n[is_own_n] = tier.confidence_n[is_own_n]
    return confidence_n
