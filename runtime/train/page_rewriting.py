"""The page of a transform task: what it answers, and what each of its tiers does."""

from __future__ import annotations

from sprat.train import plots
from sprat.train.evaluate_rewriting import RewritingReport
from sprat.train.page_answers import TITLES as ANSWERS
from sprat.train.page_answers import not_as_wanted
from sprat.train.page_cascade import TITLES as CASCADE
from sprat.train.page_cascade import cost_plot, tiers_section
from sprat.train.page_labels import RELIABILITY
from sprat.train.page_parts import figures, pictures

TITLES = {**ANSWERS, **CASCADE, "right": "Right answers", "auroc": "AUROC of the confidence"}
"""What people read for each metric."""

_NOTES = {
    "exact_match": "Of all rows; one without an answer is not right.",
    "right": "Edit similarity of {report.right_at:g} or more, of all rows.",
    "coverage": "Of all rows.",
    "wrong": "Share of the answers.",
    "above": "Confidence {report.threshold:g} or more, of all rows.",
    "wrong_above": "Of all rows.",
    "ece": "Perfect confidences would show {report.whole.ece_noise:.3f} on so many rows.",
    "cost_ratio": "CPU time, share of {report.best_tier} alone.",
}

_ALONE = {
    "right": "right alone",
    "exact_match": "as wanted",
    "edit_similarity": "similarity",
    "ece": "ECE",
    "auroc": "AUROC",
}


def of_rewriting(report: RewritingReport) -> list[str]:
    """Its sections."""
    rows = [
        (TITLES[name], each, _NOTES.get(name, "").format(report=report))
        for name, each in report.metrics.items()
    ]
    shown = []
    if report.whole is not None:
        curve = plots.reliability(report.whole.reliability)
        shown.append(("Reliability", RELIABILITY, curve))
    if not report.tiers:
        return [figures(report.n, rows), pictures(shown), not_as_wanted(report)]
    alone = {name: each.metrics for name, each in report.tiers.items()}
    shown.append(cost_plot(report.shares, report.best_tier, alone, report.metrics, "right"))
    tiers = tiers_section(report.shares, alone, _ALONE)
    return [figures(report.n, rows), tiers, pictures(shown), not_as_wanted(report)]
