"""The page of a cascade: what it answers, what each tier does in it, and what each does alone."""

from __future__ import annotations

from sprat.train import plots
from sprat.train.evaluate_cascade import METRICS, SCOPE_METRICS, CascadeReport
from sprat.train.page_labels import RELIABILITY, by_label
from sprat.train.page_parts import figures, pictures, section, table, wide

TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "coverage": "Answered",
    "wrong": "Wrong answers",
    "ece": "Calibration error (ECE)",
    "above": "Sure answers",
    "wrong_above": "Sure and wrong",
    "cost_ratio": "Cost",
    "out_of_scope_answered": "Out of scope: answered",
    "out_of_scope_above": "Out of scope: answered as sure",
}
"""What people read for each metric."""

_NOTES = {
    "accuracy": "Of all rows; one without an answer is not right.",
    "coverage": "Of all rows.",
    "wrong": "Share of the answers.",
    "ece": "Perfect confidences would show {report.ece_noise:.3f} on so many rows.",
    "above": "Confidence {report.threshold:g} or more, of all rows.",
    "wrong_above": "Of all rows.",
    "cost_ratio": "CPU time, share of {report.best_tier} alone.",
    "out_of_scope_answered": "Of {report.out_of_scope_rows} rows of none of the labels.",
}

TIERS = (
    "Asked: rows that reach the tier. Right: share of its answers. Behind that, the tier by "
    "itself, where it answers everything."
)
COST = "The cascade beside its tiers by themselves. CPU time is that of this machine."


def of_cascade(report: CascadeReport) -> list[str]:
    """Its sections."""
    rows = [
        (TITLES[name], report.interval(name), _NOTES.get(name, "").format(report=report))
        for name in (*METRICS, *SCOPE_METRICS)
        if name in report.intervals
    ]
    best_ms = next(each.cost_ms for each in report.shares if each.name == report.best_tier)
    cost = plots.cost_curve(
        [],
        (report.cost_ratio, report.accuracy),
        [(s.name, s.cost_ms / best_ms, report.tiers[s.name].accuracy) for s in report.shares],
        chosen_name="cascade",
    )
    shown = [("Cost and quality", COST, cost)]
    if report.reliability:
        shown.insert(0, ("Reliability", RELIABILITY, plots.reliability(report.reliability)))
    return [figures(report.n, rows), _tiers(report), pictures(shown), *by_label(report)]


def _tiers(report: CascadeReport) -> str:
    rows = []
    for share in report.shares:
        alone = report.tiers[share.name]
        rows.append(
            (
                share.name,
                "left out" if share.accept_at is None else f"{share.accept_at:.4f}",
                f"{share.cost_ms:.3g}",
                *(f"{each:.1%}" for each in (share.asked, share.answers, share.accuracy)),
                *(f"{each:.4f}" for each in (alone.accuracy, alone.macro_f1, alone.ece)),
                f"{alone.wrong_above:.2%}",
            )
        )
    columns = (
        *("tier", "answers from", "CPU ms a text", "asked", "answers", "right"),
        *("accuracy", "macro-F1", "ECE", "sure and wrong"),
    )
    return section("Tiers", TIERS, wide(table(columns, rows, right=range(1, 10))))
