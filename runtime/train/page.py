"""An evaluation as one HTML file: figures, plots, tables; nothing in it is loaded from elsewhere.

It holds labels and line numbers, but no text of any row.
"""

from __future__ import annotations

from collections.abc import Mapping

from sprat.train import (
    page_answers,
    page_cascade,
    page_extract_cascade,
    page_findings,
    page_rewriting,
    plots,
)
from sprat.train.curve import LearningCurve
from sprat.train.evaluate_cascade import CascadeReport
from sprat.train.evaluate_categories import ModerationReport
from sprat.train.evaluate_extract import ExtractReport
from sprat.train.evaluate_extract_cascade import ExtractCascadeReport
from sprat.train.evaluate_rewriting import RewritingReport
from sprat.train.evaluate_spans import SpanReport
from sprat.train.evaluate_transform import TransformReport
from sprat.train.page_labels import RELIABILITY, by_label
from sprat.train.page_parts import document, figures, learning_plot, pictures
from sprat.train.report import METRICS, SCOPE_METRICS, Report

BundleReport = (
    Report | CascadeReport | ModerationReport | SpanReport | ExtractCascadeReport | RewritingReport
)
"""What an evaluation of a bundle says, by its kind; of a cascade, and of a tier by itself."""

AnyReport = BundleReport | ExtractReport | TransformReport
"""What there are pages of: those, and what an evaluation of an adapter says."""

TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "ece": "Calibration error (ECE)",
    "nll": "Negative log-likelihood",
    "brier": "Brier score",
    "aurc": "Area under risk-coverage (AURC)",
    "e_aurc": "Excess over the least possible (E-AURC)",
    "coverage_at_risk_1": "Answered at 1 % wrong",
    "coverage_at_risk_5": "Answered at 5 % wrong",
    "above": "Sure answers",
    "wrong_above": "Sure and wrong",
    "out_of_scope_auroc": "Out of scope: AUROC",
    "out_of_scope_fpr95": "Out of scope: FPR at 95 % TPR",
    "out_of_scope_above": "Out of scope: answered as sure",
}
"""What people read for each metric of a report."""

_NOTES = {
    "ece": "Perfect confidences would show {report.ece_noise:.3f} on so many rows.",
    "above": "Confidence {report.threshold:g} or more, of all rows.",
    "wrong_above": "Of all rows.",
    "coverage_at_risk_1": "The largest share that a threshold answers with so few errors.",
    "out_of_scope_auroc": "{report.out_of_scope_rows} rows of none of the labels.",
}

_RISK = "How many answers are wrong when only the most confident ones are given."


def page(
    report: AnyReport,
    *,
    title: str,
    facts: Mapping[str, str],
    learning: LearningCurve | None = None,
) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Such as the bundle's name.
    facts : mapping of str to str
        Where the figures come from: bundle, model, data.
    learning : LearningCurve, optional
    """
    if isinstance(report, ModerationReport):
        sections = page_findings.of_moderator(report, learning)
    elif isinstance(report, SpanReport):
        sections = page_findings.of_tagger(report)
    elif isinstance(report, ExtractCascadeReport):
        sections = page_extract_cascade.of_extract_cascade(report)
    elif isinstance(report, RewritingReport):
        sections = page_rewriting.of_rewriting(report)
    elif isinstance(report, ExtractReport | TransformReport):
        sections = page_answers.of_answers(report)
    elif isinstance(report, CascadeReport):
        sections = page_cascade.of_cascade(report)
    else:
        sections = _of_classifier(report, learning)
    return document(sections, title=title, facts=facts)


def _of_classifier(report: Report, learning: LearningCurve | None) -> list[str]:
    rows = [
        (TITLES[name], report.interval(name), _NOTES.get(name, "").format(report=report))
        for name in (*METRICS, *SCOPE_METRICS)
        if name in report.intervals
    ]
    return [
        figures(report.n, rows),
        _plots(report, learning),
        *by_label(report),
    ]


def _plots(report: Report, learning: LearningCurve | None) -> str:
    thresholds = " ".join(
        f"From {p.accept_at:.3f} on {p.coverage:.1%} of the rows are answered, {p.risk:.2%} wrong."
        for p in report.risk_points
    )
    return pictures(
        [
            ("Reliability", RELIABILITY, plots.reliability(report.reliability)),
            (
                "Risk and coverage",
                f"{_RISK} {thresholds}",
                plots.risk_coverage(report.risk_coverage, report.risk_points),
            ),
            *learning_plot(learning),
        ]
    )
