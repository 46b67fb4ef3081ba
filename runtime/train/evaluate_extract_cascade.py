"""How good what a cascade finds is, as a server gives it, beside its tiers by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.manifest import Interval
from sprat.train.compare import Findings
from sprat.train.evaluate_cascade import TierShare, tier_shares
from sprat.train.evaluate_extract import (
    FieldReport,
    extract_figures,
    field_reports,
    wrong_lines,
)
from sprat.train.evaluate_whole import WHOLE_ECE, WholeReport, evaluate_whole
from sprat.train.metrics import Floats
from sprat.train.served import served_confidences, served_figures
from sprat.train.thresholds import ABSTAINED, TierScores, best_tier, cascade

FoundT = TypeVar("FoundT")

Find = Callable[[Sequence[FoundT | None]], Findings]
"""Compares answers with what there is to find; None is nothing found."""


class ExtractCascadeReport(BaseModel):
    """An evaluation of what is served, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows.
    by : {"spans", "strings"}
        What has to be right: the places of a cascade of taggers, the strings where a tier asks.
    metrics : dict of str to Interval
        With 95 % bootstrap intervals over the rows, in which nothing is found in a row without an
        answer. ``micro_f1``, ``precision`` and ``recall`` over all fields; ``exact_match``, share
        of all rows whose answer has all that is there, and nothing else; ``coverage``, share of
        the rows that are answered at all; ``wrong``, share of the answers that is not right as a
        whole, 0 without any; ``cost_ratio``, CPU time of all tiers against that of ``best_tier``
        alone; ``whole_ece``, where answers have a confidence, its calibration error.
    best_tier : str
        The tier that is right most often by itself; of equals the cheapest.
    fields : tuple of FieldReport
        Those of the bundle; by strings as in `sprat.train.evaluate_extract.ExtractReport`.
    wrong_lines : tuple of int
        Rows without an answer that is right, at most 20.
    whole : WholeReport or None
        Of the confidences of the answers, where there are any.
    shares : tuple of TierShare
        In the order of the bundle.
    tiers : dict of str to ReportSummary
        Each tier by itself, where it answers everything: the same figures, but for those of a
        cascade.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    by: Literal["spans", "strings"]
    metrics: dict[str, Interval]
    best_tier: str
    fields: tuple[FieldReport, ...]
    wrong_lines: tuple[int, ...]
    whole: WholeReport | None
    shares: tuple[TierShare, ...]
    tiers: dict[str, ReportSummary]

    def summary(self) -> ReportSummary:
        """The figures with their intervals."""
        return ReportSummary(n=self.n, metrics=self.metrics)


@dataclass(frozen=True, slots=True, eq=False)
class TierFound(Generic[FoundT]):
    """What a tier finds in N rows.

    Attributes
    ----------
    name, engine : str
        Of the tier, and of its model.
    accept_at : float or None
        Least confidence of an answer, in [0, 1]; None of a tier that takes no part.
    found : tuple of object or None
        Its answers; None where it has none that is sound, which is never served.
    confidence_n : float64[N] or None
        In whole answers; None without a calibration.
    cost_ms : float
        CPU time of a row, above 0.
    """

    name: str
    engine: str
    accept_at: float | None
    found: tuple[FoundT | None, ...]
    confidence_n: Floats | None
    cost_ms: float


def evaluate_extract_cascade(
    tiers: Sequence[TierFound[FoundT]],
    find: Find[FoundT],
    *,
    by: Literal["spans", "strings"],
    lines: Sequence[int],
    seed: int = 0,
) -> tuple[ExtractCascadeReport, tuple[FoundT | None, ...]]:
    """Evaluate what tiers find together, by the rule of the server, and each by itself.

    Parameters
    ----------
    tiers : sequence of TierFound
        The cheapest first; the last one takes part.
    find : callable
        See `Find`.
    by : {"spans", "strings"}
        What ``find`` compares.
    lines : sequence of int
        Line of each row in its file.
    seed : int
        Of the resampling; at least 0.

    Returns
    -------
    ExtractCascadeReport
    tuple of object or None
        What each row gets; None where no tier is sure enough of a sound answer.
    """
    alone = [find(tier.found) for tier in tiers]
    scores = tuple(_scores(*each) for each in zip(tiers, alone, strict=True))
    served = cascade(scores, [tier.accept_at for tier in tiers])
    found = tuple(
        None if at == ABSTAINED else tiers[at].found[row]
        for row, at in enumerate(served.tier_n.tolist())
    )
    # Whatever its threshold, a tier does not answer with what is not sound.
    is_answered_n = np.array([each is not None for each in found], np.bool_)
    served = replace(served, tier_n=np.where(is_answered_n, served.tier_n, np.int32(ABSTAINED)))
    findings = find(found)
    best = best_tier(scores)
    shares = served_figures(served, scores[best].cost_ms, np.random.default_rng(seed))
    del shares["right"]  # That is exact_match.
    figures = {**extract_figures(findings, served.is_right_n, seed=seed), **shares}
    whole = None
    taking_part = [tier for tier in tiers if tier.accept_at is not None]
    if is_answered_n.any() and all(tier.confidence_n is not None for tier in taking_part):
        sure_n = served_confidences(scores, served)[is_answered_n]
        whole = evaluate_whole(sure_n, served.is_right_n[is_answered_n], seed=seed)
        figures[WHOLE_ECE] = whole.ece
    report = ExtractCascadeReport(
        n=len(found),
        by=by,
        metrics=figures,
        best_tier=tiers[best].name,
        fields=field_reports(findings),
        wrong_lines=wrong_lines(served.is_right_n, lines),
        whole=whole,
        shares=tier_shares(tiers, served),
        tiers={
            tier.name: _alone(tier, own, each.is_right_n, seed=seed)
            for tier, own, each in zip(tiers, alone, scores, strict=True)
        },
    )
    return report, found


def _scores(tier: TierFound[FoundT], findings: Findings) -> TierScores:
    hits_nk, found_nk, wanted_nk = np.moveaxis(findings.counts, 2, 0)
    is_right_n = ((hits_nk == found_nk) & (hits_nk == wanted_nk)).all(axis=1)
    is_right_n &= np.array([each is not None for each in tier.found], np.bool_)
    sure_n = np.ones(len(tier.found)) if tier.confidence_n is None else tier.confidence_n
    return TierScores(tier.name, sure_n, None, is_right_n, tier.cost_ms, tier.engine)


def _alone(
    tier: TierFound[FoundT], findings: Findings, right_n: npt.NDArray[np.bool_], *, seed: int
) -> ReportSummary:
    """Figures of a tier that answers everything."""
    figures = extract_figures(findings, right_n, seed=seed)
    if tier.confidence_n is not None:
        figures[WHOLE_ECE] = evaluate_whole(tier.confidence_n, right_n, seed=seed).ece
    return ReportSummary(n=len(right_n), metrics=figures)
