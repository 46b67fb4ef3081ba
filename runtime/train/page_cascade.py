"""The page of a cascade: what it answers, what each tier does in it, and what each does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sprat.manifest import Interval
from sprat.train import plots
from sprat.train.evaluate_cascade import METRICS, SCOPE_METRICS, CascadeReport, TierShare
from sprat.train.page_labels import RELIABILITY, by_label
from sprat.train.page_parts import Plot, figures, pictures, section, table, wide

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

_ALONE = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "ece": "ECE",
    "wrong_above": "sure and wrong",
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
    alone = {name: each.summary().metrics for name, each in report.tiers.items()}
    chosen = report.summary().metrics
    shown = [cost_plot(report.shares, report.best_tier, alone, chosen, "accuracy")]
    if report.reliability:
        shown.insert(0, ("Reliability", RELIABILITY, plots.reliability(report.reliability)))
    return [
        figures(report.n, rows),
        tiers_section(report.shares, alone, _ALONE),
        pictures(shown),
        *by_label(report),
    ]


def tiers_section(
    shares: Sequence[TierShare],
    alone: Mapping[str, Mapping[str, Interval]],
    shown: Mapping[str, str],
) -> str:
    """What each tier does in a cascade, and what it does by itself.

    Parameters
    ----------
    alone : mapping of str to mapping of str to Interval
        Figures of each tier by itself.
    shown : mapping of str to str
        Which of them are shown, as columns of these names.
    """
    rows = [
        (
            share.name,
            "left out" if share.accept_at is None else f"{share.accept_at:.4f}",
            f"{share.cost_ms:.3g}",
            *(f"{each:.1%}" for each in (share.asked, share.answers, share.accuracy)),
            *(f"{own[name].value:.4f}" if name in own else "" for name in shown),
        )
        for share in shares
        for own in [alone[share.name]]
    ]
    columns = ("tier", "answers from", "CPU ms a text", "asked", "answers", "right")
    body = table((*columns, *shown.values()), rows, right=range(1, len(columns) + len(shown)))
    return section("Tiers", TIERS, wide(body))


def cost_plot(
    shares: Sequence[TierShare],
    best_tier: str,
    alone: Mapping[str, Mapping[str, Interval]],
    chosen: Mapping[str, Interval],
    quality: str,
) -> Plot:
    """What a cascade costs and gives, beside its tiers by themselves.

    Parameters
    ----------
    alone, chosen : mapping of str to Interval
        Figures of each tier by itself, and of the cascade.
    quality : str
        Which of them says how good the answers are.
    """
    best_ms = next(each.cost_ms for each in shares if each.name == best_tier)
    curve = plots.cost_curve(
        [],
        (chosen["cost_ratio"].value, chosen[quality].value),
        [(each.name, each.cost_ms / best_ms, alone[each.name][quality].value) for each in shares],
        chosen_name="cascade",
    )
    return ("Cost and quality", COST, curve)
