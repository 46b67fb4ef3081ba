"""How good the answers of a cascade are, as a server gives them, beside its tiers by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.train import metrics
from sprat.train.calibrate import log_softmax
from sprat.train.evaluate import SURE, confusions, evaluate, per_label, worst
from sprat.train.metrics import Answered, Floats, Picks
from sprat.train.report import (
    Confusion,
    Figures,
    LabelReport,
    ReliabilityBin,
    Report,
    WrongAnswer,
)
from sprat.train.thresholds import ABSTAINED, Answers, TierScores, best_tier, cascade
from sprat.values import FloatArray, IntArray

METRICS = (
    "accuracy",
    "macro_f1",
    "coverage",
    "wrong",
    "ece",
    "above",
    "wrong_above",
    "cost_ratio",
)
SCOPE_METRICS = ("out_of_scope_answered", "out_of_scope_above")
"""Further ones where there are rows of none of the labels."""


class TierShare(BaseModel):
    """What a tier does in a cascade.

    Attributes
    ----------
    accept_at : float or None
        Its threshold; None of one that takes no part.
    cost_ms : float
        CPU milliseconds of a row that it reads, on this machine.
    asked, answers : float
        Shares of all rows: that reach it; that it answers.
    accuracy : float
        Share of its answers that are right; 0 without any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    accept_at: float | None
    cost_ms: float
    asked: float
    answers: float
    accuracy: float


class CascadeReport(Figures):
    """An evaluation, without any text of the rows.

    Attributes
    ----------
    n : int
        Rows of the task's labels.
    accuracy : float
        Share of the rows that are answered rightly; a row without an answer is not.
    macro_f1 : float
        Mean over labels that occur among the rows or the answers. A row without an answer is
        missed by its label, and counts for no other.
    coverage : float
        Share of the rows that get an answer.
    wrong : float
        Share of the answers that are wrong; 0 without any.
    ece : float
        Expected calibration error of the confidences of the answers, whichever tiers they come
        from; 0 without any. See `sprat.train.metrics.calibration_error`.
    ece_noise : float
        What ``ece`` would be, on average, if these confidences were perfect.
    threshold : float
        The confidence from which on an answer counts as sure.
    above, wrong_above : float
        Shares of all rows: answered at or above ``threshold``; answered so, and wrong.
    cost_ratio : float
        CPU time of all tiers against that of ``best_tier`` alone.
    best_tier : str
        The tier with the highest accuracy by itself; of equals the cheapest.
    out_of_scope_rows : int
        Rows of none of the labels.
    out_of_scope_answered, out_of_scope_above : float or None
        Shares of these that are answered, always wrongly; that are answered at or above
        ``threshold``. None without such rows.
    intervals : dict of str to (float, float)
        95 % bootstrap interval of each of `METRICS`, and of `SCOPE_METRICS` where they are there.
    shares : tuple of TierShare
        In the order of the bundle.
    worst : tuple of WrongAnswer
        The most confident wrong answers at or above ``threshold``, at most 20.
    labels : tuple of LabelReport
        In the order of the bundle.
    confusions : tuple of Confusion
        Every pair of labels that was confused, the most frequent first.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least confident answers to the most.
    tiers : dict of str to Report
        Each tier by itself, where it answers everything.
    """

    accuracy: float
    macro_f1: float
    coverage: float
    wrong: float
    ece: float
    ece_noise: float
    threshold: float
    above: float
    wrong_above: float
    cost_ratio: float
    best_tier: str
    out_of_scope_rows: int = 0
    out_of_scope_answered: float | None = None
    out_of_scope_above: float | None = None
    shares: tuple[TierShare, ...]
    worst: tuple[WrongAnswer, ...]
    labels: tuple[LabelReport, ...]
    confusions: tuple[Confusion, ...]
    reliability: tuple[ReliabilityBin, ...]
    tiers: dict[str, Report]


@dataclass(frozen=True, slots=True, eq=False)
class TierOutput:
    """What a tier says of N rows of the task's labels, and of M of none of them.

    Attributes
    ----------
    name, engine : str
        Of the tier, and of its model.
    accept_at : float or None
        Least confidence of an answer, in [0, 1]; None of a tier that takes no part. 0 of the last
        one: it always answers.
    calibration : Calibration
    logits_nk : float32[N, K]
    outside_mk : float32[M, K]
    cost_ms : float
        CPU time of a row, above 0.
    """

    name: str
    engine: str
    accept_at: float | None
    calibration: Calibration
    logits_nk: FloatArray
    outside_mk: FloatArray
    cost_ms: float


def evaluate_cascade(
    tiers: Sequence[TierOutput],
    targets_n: IntArray,
    *,
    labels: Sequence[str],
    lines: Sequence[int],
    threshold: float = SURE,
    seed: int = 0,
) -> tuple[CascadeReport, IntArray]:
    """Evaluate what a cascade answers, and each of its tiers.

    Intervals are as those of `sprat.train.evaluate.evaluate`; that of ``ece`` comes from resamples
    of the answers.

    Parameters
    ----------
    tiers : sequence of TierOutput
        The cheapest first; the last one takes part.
    targets_n : int32[N]
        Right labels as indices into ``labels``; N from 1.
    labels : sequence of str
        K labels.
    lines : sequence of int
        Line of each row in its file.
    threshold : float
        Confidence from which on an answer counts as sure, in (0, 1].
    seed : int
        Of the resampling; at least 0.

    Returns
    -------
    CascadeReport
    int32[N]
        The label that each row gets, `ABSTAINED` where it gets none.
    """
    rng = np.random.default_rng(seed)
    n, k = len(targets_n), len(labels)
    served = _serve(tiers, [tier.logits_nk for tier in tiers], targets_n)
    best = best_tier(served.scores)
    order = metrics.ascending(served.confidence_n, rng)
    given_n = np.where(served.label_n == ABSTAINED, k, served.label_n).astype(np.int32)[order]
    lines_n = np.asarray(lines, np.int64)[order]
    # Rows without an answer have a label of their own, behind the others.
    rows = Answered(targets_n[order], given_n, served.confidence_n[order], lines_n, k + 1)
    is_answered_n = given_n < k
    is_sure_n = is_answered_n & (rows.confidence >= threshold)
    cost_n = served.answers.cost_n[order] / tiers[best].cost_ms

    def statistics(picks_rn: Picks) -> dict[str, Floats]:
        right_r = rows.right[picks_rn].mean(axis=1)
        covered_r = is_answered_n[picks_rn].mean(axis=1)
        f1_rk, occurs_rk = (each[:, :k] for each in metrics.label_f1(rows, picks_rn))
        return {
            "accuracy": right_r,
            "label_f1": f1_rk,
            "macro_f1": f1_rk.sum(axis=1) / occurs_rk.sum(axis=1),
            "coverage": covered_r,
            "wrong": np.where(covered_r > 0, 1 - right_r / np.maximum(covered_r, 1e-12), 0.0),
            "above": is_sure_n[picks_rn].mean(axis=1),
            "wrong_above": (is_sure_n & ~rows.right)[picks_rn].mean(axis=1),
            "cost_ratio": cost_n[picks_rn].mean(axis=1),
        }

    point = statistics(np.arange(n)[None])
    samples = metrics.bootstrap(statistics, (n,), rng)
    answered = _only(rows, is_answered_n)
    ece, ece_noise, samples["ece"] = _calibration_error(answered, rng)
    values = {name: ece if name == "ece" else float(point[name][0]) for name in METRICS}
    intervals = {name: metrics.bounds(samples[name]) for name in METRICS}
    outside = len(tiers[0].outside_mk)
    if outside:
        for name, is_so_m in _out_of_scope(tiers, threshold).items():
            values[name] = float(is_so_m.mean())
            intervals[name] = metrics.bounds(_means(is_so_m, rng))
    report = CascadeReport(
        n=n,
        **values,
        ece_noise=ece_noise,
        threshold=threshold,
        best_tier=tiers[best].name,
        out_of_scope_rows=outside,
        intervals=intervals,
        shares=tier_shares(tiers, served.answers),
        worst=worst(answered, labels, threshold),
        labels=per_label(rows, labels, samples["label_f1"]),
        confusions=confusions(answered, labels),
        reliability=metrics.reliability(answered.confidence, answered.right),
        tiers={
            tier.name: evaluate(
                tier.logits_nk,
                targets_n,
                labels=labels,
                lines=lines,
                calibration=tier.calibration,
                out_of_scope=tier.outside_mk if outside else None,
                threshold=threshold,
                seed=seed,
            )
            for tier in tiers
        },
    )
    return report, served.label_n


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """What a cascade does with N rows.

    Attributes
    ----------
    scores : tuple of TierScores
        Of all tiers, on all rows.
    answers : Answers
    label_n : int32[N]
        `ABSTAINED` where there is no answer.
    confidence_n : float64[N]
        0 where there is no answer.
    """

    scores: tuple[TierScores, ...]
    answers: Answers
    label_n: IntArray
    confidence_n: Floats


def _serve(
    tiers: Sequence[TierOutput], logits: Sequence[FloatArray], targets_n: IntArray
) -> _Served:
    """Answer rows of which each tier has these logits."""
    label_n = np.full(len(targets_n), ABSTAINED, np.int32)
    confidence_n = np.zeros(len(targets_n))
    scores, labels = [], []
    for tier, logits_nk in zip(tiers, logits, strict=True):
        log_p = log_softmax(logits_nk, tier.calibration.temperature)
        labels.append(log_p.argmax(axis=1).astype(np.int32))
        confidence = confidences(np.exp(log_p.max(axis=1)), tier.calibration)
        is_right_n = labels[-1] == targets_n
        scores.append(
            TierScores(tier.name, confidence, labels[-1], is_right_n, tier.cost_ms, tier.engine)
        )
    answers = cascade(scores, [tier.accept_at for tier in tiers])
    for at, tier_scores in enumerate(scores):
        rows = np.flatnonzero(answers.tier_n == at)
        label_n[rows], confidence_n[rows] = labels[at][rows], tier_scores.confidence_n[rows]
    return _Served(tuple(scores), answers, label_n, confidence_n)


class InCascade(Protocol):
    """A tier with its place in a cascade."""

    @property
    def name(self) -> str:
        """Of the tier."""

    @property
    def accept_at(self) -> float | None:
        """Least confidence of an answer, in [0, 1]; None of a tier that takes no part."""

    @property
    def cost_ms(self) -> float:
        """CPU time of a row, above 0."""


def tier_shares(tiers: Sequence[InCascade], answers: Answers) -> tuple[TierShare, ...]:
    """What each tier does, by what `sprat.train.thresholds.cascade` makes of their scores."""
    tier_n, is_right_n = answers.tier_n, answers.is_right_n
    made = []
    for at, tier in enumerate(tiers):
        is_asked_n = (tier_n >= at) | (tier_n == ABSTAINED)
        is_own_n = tier_n == at
        made.append(
            TierShare(
                name=tier.name,
                accept_at=tier.accept_at,
                cost_ms=tier.cost_ms,
                asked=0.0 if tier.accept_at is None else float(is_asked_n.mean()),
                answers=float(is_own_n.mean()),
                accuracy=float(is_right_n[is_own_n].mean()) if is_own_n.any() else 0.0,
            )
        )
    return tuple(made)


def _only(rows: Answered, which_n: npt.NDArray[np.bool_]) -> Answered:
    return Answered(
        rows.targets[which_n],
        rows.answers[which_n],
        rows.confidence[which_n],
        rows.lines[which_n],
        rows.labels,
    )


def _calibration_error(rows: Answered, rng: np.random.Generator) -> tuple[float, float, Floats]:
    """The figure, what perfect confidences would show, and the figure of 1,000 resamples."""
    if not len(rows.targets):
        return 0.0, 0.0, np.zeros(metrics.RESAMPLES)
    return metrics.calibration_figures(rows.confidence, rows.right, rng)


def _out_of_scope(
    tiers: Sequence[TierOutput], threshold: float
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows of none of the labels are answered, and which with confidence: bool[M]."""
    logits = [tier.outside_mk for tier in tiers]
    served = _serve(tiers, logits, np.full(len(logits[0]), ABSTAINED, np.int32))
    is_answered_m = served.label_n != ABSTAINED
    is_sure_m = is_answered_m & (served.confidence_n >= threshold)
    return dict(zip(SCOPE_METRICS, (is_answered_m, is_sure_m), strict=True))


def _means(is_so_m: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Its mean in 1,000 resamples."""
    return metrics.bootstrap(
        lambda picks_rm: {"mean": is_so_m[picks_rm].mean(axis=1)}, (len(is_so_m),), rng
    )["mean"]
