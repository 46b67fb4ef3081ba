"""How good rewritten texts are as a bundle's tiers answer them: together, and each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sprat.manifest import Interval
from sprat.train import metrics
from sprat.train.evaluate import SURE
from sprat.train.evaluate_cascade import TierShare, tier_shares
from sprat.train.evaluate_transform import (
    Rewritten,
    TransformReport,
    evaluate_transform,
    right_answers,
)
from sprat.train.evaluate_whole import WholeReport, evaluate_whole
from sprat.train.metrics import Floats, Picks
from sprat.train.served import served_confidences, served_figures
from sprat.train.thresholds import ABSTAINED, Answers, TierScores, best_tier, cascade
from sprat.train.wanted import Wanted

NOTHING = Rewritten("", complete=True)
"""What a row gets that no tier is sure enough of."""


class RewritingReport(TransformReport):
    """An evaluation of what is served, without any text of the rows.

    Attributes
    ----------
    incomplete : int
        Answers that did not end by themselves, or do not fit the grammar.
    metrics : dict of str to Interval
        Those of `TransformReport`, where a row without an answer is as if it was empty.
        ``right``: share of the rows that are answered rightly, by ``right_at``. Of confidences:
        ``above``, ``wrong_above``, shares of all rows: answered at or above
        ``threshold``; answered so, and wrong; ``ece``, their calibration error; ``auroc``, the
        chance that a right answer has a higher one than a wrong answer, where there are both. Of a
        cascade ``coverage``, share of the rows that are answered at all; ``wrong``, share of the
        answers that is wrong, 0 without any; ``cost_ratio``, CPU time of all tiers against that of
        ``best_tier`` alone.
    right_at : float
        Least edit similarity of a right answer.
    threshold : float
        The confidence from which on an answer counts as sure.
    whole : WholeReport or None
        Of the confidences of the answers, where there are any.
    best_tier : str
        The tier that is right most often by itself; of equals the cheapest.
    shares : tuple of TierShare
        Of a cascade, in the order of the bundle.
    tiers : dict of str to RewritingReport
        Of a cascade, each tier by itself, where it answers everything.
    """

    right_at: float
    threshold: float
    whole: WholeReport | None
    best_tier: str
    shares: tuple[TierShare, ...]
    tiers: dict[str, RewritingReport]


@dataclass(frozen=True, slots=True, eq=False)
class TierRewritings:
    """What a tier says of N rows.

    Attributes
    ----------
    name, engine : str
        Of the tier, and of its model.
    accept_at : float or None
        Least confidence of an answer, in [0, 1]; None of a tier that takes no part. 0 of the last
        one: it always answers.
    answers : tuple of Rewritten
        Those that do not fit the grammar are not complete.
    confidence_n : float64[N] or None
        None without a calibration.
    cost_ms : float
        CPU time of a row, above 0.
    """

    name: str
    engine: str
    accept_at: float | None
    answers: tuple[Rewritten, ...]
    confidence_n: Floats | None
    cost_ms: float


def evaluate_rewriting(
    tiers: Sequence[TierRewritings],
    wanted: Wanted,
    *,
    schema: str | None = None,
    right_at: float = 1.0,
    threshold: float = SURE,
    seed: int = 0,
) -> tuple[RewritingReport, tuple[Rewritten, ...]]:
    """Evaluate what tiers answer together, by the rule of the server, and each by itself.

    Parameters
    ----------
    tiers : sequence of TierRewritings
        The cheapest first; the last one takes part.
    schema : str, optional
        JSON Schema, as JSON, that answers have to fit.
    right_at : float
        See `sprat.train.evaluate_transform.right_answers`.
    threshold : float
        Confidence from which on an answer counts as sure, in (0, 1].
    seed : int
        Of the resampling; at least 0.

    Returns
    -------
    RewritingReport
    tuple of Rewritten
        What each row gets; `NOTHING` where no tier is sure enough.
    """
    scores = tuple(_scores(tier, wanted, schema, right_at) for tier in tiers)
    served = cascade(scores, [tier.accept_at for tier in tiers])
    answers = tuple(
        NOTHING if at == ABSTAINED else tiers[at].answers[row]
        for row, at in enumerate(served.tier_n.tolist())
    )
    best = best_tier(scores)
    rng = np.random.default_rng(seed)
    base = evaluate_transform(answers, wanted, schema=schema, seed=seed)
    is_cascade = len(tiers) > 1
    found = served_figures(served, scores[best].cost_ms if is_cascade else None, rng)
    whole = None
    if all(tier.confidence_n is not None for tier in tiers):
        confidence_n = served_confidences(scores, served)
        found |= _sure(confidence_n, served, threshold, rng)
        is_answered_n = served.tier_n != ABSTAINED
        if is_answered_n.any():
            whole = evaluate_whole(
                confidence_n[is_answered_n], served.is_right_n[is_answered_n], seed=seed
            )
            found["ece"] = whole.ece
    report = RewritingReport(
        **{**base.model_dump(), "metrics": {**base.metrics, **found}},
        right_at=right_at,
        threshold=threshold,
        whole=whole,
        best_tier=tiers[best].name,
        shares=tier_shares(tiers, served) if is_cascade else (),
        tiers={
            tier.name: evaluate_rewriting(
                [replace(tier, accept_at=0.0)],
                wanted,
                schema=schema,
                right_at=right_at,
                threshold=threshold,
                seed=seed,
            )[0]
            for tier in (tiers if is_cascade else ())
        },
    )
    return report, answers


def _scores(
    tier: TierRewritings, wanted: Wanted, schema: str | None, right_at: float
) -> TierScores:
    right_n = right_answers(tier.answers, wanted, schema=schema, right_at=right_at)
    confidence_n = np.ones(len(wanted)) if tier.confidence_n is None else tier.confidence_n
    return TierScores(tier.name, confidence_n, None, right_n, tier.cost_ms, tier.engine)


def _sure(
    confidence_n: Floats, served: Answers, threshold: float, rng: np.random.Generator
) -> dict[str, Interval]:
    """Figures of the confidences, but for their calibration."""
    is_answered_n = served.tier_n != ABSTAINED
    is_sure_n = is_answered_n & (confidence_n >= threshold)

    def statistics(picks_rn: Picks) -> dict[str, Floats]:
        return {
            "above": is_sure_n[picks_rn].mean(axis=1),
            "wrong_above": (is_sure_n & ~served.is_right_n)[picks_rn].mean(axis=1),
        }

    found = metrics.intervals(statistics, (len(confidence_n),), rng)
    right = np.sort(confidence_n[served.is_right_n])
    wrong = np.sort(confidence_n[is_answered_n & ~served.is_right_n])
    if len(right) and len(wrong):

        def area(right_rn: Picks, wrong_rm: Picks) -> dict[str, Floats]:
            return {"auroc": metrics.auroc(right, wrong, right_rn, wrong_rm)}

        found |= metrics.intervals(area, (len(right), len(wrong)), rng)
    return found
