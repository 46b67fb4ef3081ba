"""How good a classifier is on rows that it has not seen: figures, intervals, where it errs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.train import metrics
from sprat.train.calibrate import log_softmax
from sprat.train.metrics import Answered, Floats, Picks, Rows
from sprat.train.report import (
    METRICS,
    Confusion,
    LabelReport,
    Report,
    RiskPoint,
    WrongAnswer,
)
from sprat.values import FloatArray, IntArray

SURE = 0.9
"""Default confidence from which on an answer counts as sure."""
MOST_LISTED = 20
"""Wrong answers in a report; the figures cover all."""


def evaluate(
    logits_nk: FloatArray,
    targets_n: IntArray,
    *,
    labels: Sequence[str],
    lines: Sequence[int],
    calibration: Calibration,
    out_of_scope: FloatArray | None = None,
    threshold: float = SURE,
    seed: int = 0,
) -> Report:
    """Evaluate answers against the truth.

    The calibration error is biased upwards when rows are few. How far is simulated: 1,000 times
    each answer is right with a chance of exactly its confidence, and the mean error that shows is
    ``ece_noise``. Only what ``ece`` has beyond it speaks against the confidences.

    Intervals run from the 2.5th to the 97.5th percentile over 1,000 resamples of the rows with
    replacement (Efron, 1979). Resamples repeat rows, which moves their calibration errors up once
    more; these are shifted so that their mean is the figure, and cut off at 0.

    Parameters
    ----------
    logits_nk : float32[N, K]
        N from 1.
    targets_n : int32[N]
        Right labels as indices into ``labels``.
    labels : sequence of str
        K labels.
    lines : sequence of int
        Line of each row in its file.
    calibration : Calibration
        What makes confidences of the logits.
    out_of_scope : float32[M, K], optional
        Logits of rows of none of the labels; M from 1.
    threshold : float
        Confidence from which on an answer counts as sure, in (0, 1].
    seed : int
        Of the resampling; at least 0.
    """
    rng = np.random.default_rng(seed)
    rows = judge(logits_nk, targets_n, lines, calibration, rng)
    whole = np.arange(len(targets_n))[None, :]
    figures = metrics.figures(rows, whole, threshold)
    values = {name: float(figures[name][0]) for name in METRICS}
    samples = metrics.bootstrap(
        lambda picks_rn: metrics.figures(rows, picks_rn, threshold), (len(targets_n),), rng
    )
    samples["ece"] = np.maximum(samples["ece"] + values["ece"] - samples["ece"].mean(), 0)
    intervals = {name: metrics.bounds(samples[name]) for name in METRICS}
    ece_noise = metrics.calibration_noise(rows.confidence, rng)
    if out_of_scope is not None:
        outside = _scope(rows.confidence, out_of_scope, calibration, threshold, rng)
        values |= {name: value for name, (value, _) in outside.items()}
        intervals |= {name: interval for name, (_, interval) in outside.items()}
    curve = _risk_coverage(rows)
    return Report(
        n=len(targets_n),
        **values,
        ece_noise=ece_noise,
        threshold=threshold,
        out_of_scope_rows=0 if out_of_scope is None else len(out_of_scope),
        intervals=intervals,
        risk_points=_risk_points(curve),
        worst=worst(rows, labels, threshold),
        labels=per_label(rows, labels, samples["label_f1"]),
        confusions=confusions(rows, labels),
        reliability=metrics.reliability(rows.confidence, rows.right),
        risk_coverage=_thinned(curve),
    )


def judge(
    logits_nk: FloatArray,
    targets_n: IntArray,
    lines: Sequence[int],
    calibration: Calibration,
    rng: np.random.Generator,
) -> Rows:
    """What `sprat.train.metrics` needs to know of each row; see `evaluate` for the parameters."""
    log_p = log_softmax(logits_nk, calibration.temperature)
    p = np.exp(log_p)
    every = np.arange(len(targets_n))
    answers = log_p.argmax(axis=1).astype(np.int32)
    confidence = confidences(p[every, answers], calibration)
    truth = np.zeros_like(p)
    truth[every, targets_n] = 1
    order = metrics.ascending(confidence, rng)
    return Rows(
        targets_n[order],
        answers[order],
        confidence[order],
        np.asarray(lines, np.int64)[order],
        logits_nk.shape[1],
        -log_p[every, targets_n][order],
        np.square(p - truth).sum(axis=1)[order],
    )


def _scope(
    inside_n: Floats,
    logits_mk: FloatArray,
    calibration: Calibration,
    threshold: float,
    rng: np.random.Generator,
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Figures of rows out of scope, each with its interval; both kinds of rows are resampled."""
    p = np.exp(log_softmax(logits_mk, calibration.temperature)).max(axis=1)
    outside_m = np.sort(confidences(p, calibration))
    n, m = len(inside_n), len(outside_m)

    def statistics(inside_rn: Picks, outside_rm: Picks) -> dict[str, Floats]:
        above_r = (outside_m[outside_rm] >= threshold).mean(axis=1)
        figures = metrics.scope_figures(inside_n, outside_m, inside_rn, outside_rm)
        return {**figures, "out_of_scope_above": above_r}

    whole = statistics(np.arange(n)[None, :], np.arange(m)[None, :])
    samples = metrics.bootstrap(statistics, (n, m), rng)
    return {name: (float(whole[name][0]), metrics.bounds(samples[name])) for name in whole}


def _risk_coverage(rows: Rows) -> list[RiskPoint]:
    """The whole curve, from the highest threshold to the lowest: one point a confidence."""
    risk_n = metrics.risks(rows.right[None, :])[0]
    confidence_n = rows.confidence[::-1]
    n = len(confidence_n)
    last = np.append(np.flatnonzero(np.diff(confidence_n)), n - 1)
    return [
        RiskPoint(accept_at=float(confidence_n[i]), coverage=(i + 1) / n, risk=float(risk_n[i]))
        for i in last.tolist()
    ]


def _risk_points(curve: Sequence[RiskPoint]) -> tuple[RiskPoint, ...]:
    reached = [[p for p in curve if p.risk <= limit + 1e-12] for limit in metrics.RISKS]
    return tuple(points[-1] for points in reached if points)


def _thinned(curve: Sequence[RiskPoint]) -> tuple[RiskPoint, ...]:
    return tuple(curve[i] for i in metrics.thinned(len(curve)))


def worst(rows: Answered, labels: Sequence[str], threshold: float) -> tuple[WrongAnswer, ...]:
    """The most confident wrong answers at or above a threshold, at most `MOST_LISTED`."""
    wrong = np.flatnonzero((rows.confidence >= threshold) & ~rows.right)[::-1]
    return tuple(
        WrongAnswer(
            line=int(rows.lines[i]),
            label=labels[rows.targets[i]],
            predicted=labels[rows.answers[i]],
            confidence=float(rows.confidence[i]),
        )
        for i in wrong[:MOST_LISTED]
    )


def per_label(rows: Answered, labels: Sequence[str], f1_rk: Floats) -> tuple[LabelReport, ...]:
    """How each label fares; ``f1_rk`` is its F1 in R resamples of the rows."""
    support = np.bincount(rows.targets, minlength=rows.labels)
    predicted = np.bincount(rows.answers, minlength=rows.labels)
    hits = np.bincount(rows.targets[rows.right], minlength=rows.labels)
    return tuple(
        LabelReport(
            label=label,
            precision=float(hits[i] / max(1, predicted[i])),
            recall=float(hits[i] / max(1, support[i])),
            f1=float(2 * hits[i] / max(1, support[i] + predicted[i])),
            f1_interval=metrics.bounds(f1_rk[:, i]),
            support=int(support[i]),
            predicted=int(predicted[i]),
        )
        for i, label in enumerate(labels)
    )


def confusions(rows: Answered, labels: Sequence[str]) -> tuple[Confusion, ...]:
    """Every pair of labels that was confused, the most frequent first."""
    wrong = ~rows.right
    pairs = rows.targets[wrong].astype(np.int64) * rows.labels + rows.answers[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    ranked = np.argsort(-counts, kind="stable").tolist()
    return tuple(
        Confusion(
            label=labels[found[i] // rows.labels],
            predicted=labels[found[i] % rows.labels],
            count=int(counts[i]),
        )
        for i in ranked
    )
