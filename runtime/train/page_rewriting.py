"""The page of a transform task: what it answers, and what each of its tiers does."""

from __future__ import annotations

from sprat.train import plots
from sprat.train.evaluate_rewriting import RewritingReport
from sprat.train.page_answers import TITLES as ANSWERS
from sprat.train.page_answers import not_as_wanted
from sprat.train.page_cascade import COST, TIERS
from sprat.train.page_cascade import TITLES as CASCADE
from sprat.train.page_labels import RELIABILITY
from sprat.train.page_parts import figures, pictures, section, table, wide

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
    best_ms = next(each.cost_ms for each in report.shares if each.name == report.best_tier)
    right = {name: each.metrics["right"].value for name, each in report.tiers.items()}
    cost = plots.cost_curve(
        [],
        (report.metrics["cost_ratio"].value, report.metrics["right"].value),
        [(each.name, each.cost_ms / best_ms, right[each.name]) for each in report.shares],
        chosen_name="cascade",
    )
    shown.append(("Cost and quality", COST, cost))
    parts = [figures(report.n, rows), _tiers(report), pictures(shown)]
    return [*parts, not_as_wanted(report)]


def _tiers(report: RewritingReport) -> str:
    alone = ("right", "exact_match", "edit_similarity", "ece", "auroc")
    rows = []
    for share in report.shares:
        own = report.tiers[share.name].metrics
        rows.append(
            (
                share.name,
                "left out" if share.accept_at is None else f"{share.accept_at:.4f}",
                f"{share.cost_ms:.3g}",
                *(f"{each:.1%}" for each in (share.asked, share.answers, share.accuracy)),
                *(f"{own[name].value:.4f}" if name in own else "" for name in alone),
            )
        )
    columns = (
        *("tier", "answers from", "CPU ms a text", "asked", "answers", "right"),
        *("right alone", "as wanted", "similarity", "ECE", "AUROC"),
    )
    return section("Tiers", TIERS, wide(table(columns, rows, right=range(1, 11))))
