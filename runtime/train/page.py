"""An evaluation as one HTML file: figures, plots, tables; nothing in it is loaded from elsewhere.

It holds labels and line numbers, but no text of any row.
"""

from __future__ import annotations

from collections.abc import Mapping

from sprat.train import page_answers, page_findings, plots
from sprat.train.curve import LearningCurve
from sprat.train.evaluate_categories import ModerationReport
from sprat.train.evaluate_extract import ExtractReport
from sprat.train.evaluate_spans import SpanReport
from sprat.train.evaluate_transform import TransformReport
from sprat.train.page_parts import (
    document,
    figures,
    learning_plot,
    pictures,
    section,
    table,
    wide,
)
from sprat.train.report import METRICS, SCOPE_METRICS, Report

BundleReport = Report | ModerationReport | SpanReport
"""What an evaluation of a bundle says, by its kind."""

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

_RELIABILITY = (
    "How many answers of some confidence are right. Grey bars: where 95 % of perfectly calibrated "
    "bins would lie."
)
_RISK = "How many answers are wrong when only the most confident ones are given."
_CONFUSION = (
    "A line holds the rows of one label, a column the answers. Right answers are blue, wrong ones "
    "orange, the stronger the larger their share of the label's rows. Rest the pointer on a cell "
    "for its count."
)


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
    elif isinstance(report, ExtractReport | TransformReport):
        sections = page_answers.of_answers(report)
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
        f'<div class="pair">{_confused(report)}{_worst(report)}</div>',
        _labels(report),
        section(
            "Confusion matrix",
            _CONFUSION,
            wide(plots.confusion(report.labels, report.confusions)),
        ),
    ]


def _plots(report: Report, learning: LearningCurve | None) -> str:
    thresholds = " ".join(
        f"From {p.accept_at:.3f} on {p.coverage:.1%} of the rows are answered, {p.risk:.2%} wrong."
        for p in report.risk_points
    )
    return pictures(
        [
            ("Reliability", _RELIABILITY, plots.reliability(report.reliability)),
            (
                "Risk and coverage",
                f"{_RISK} {thresholds}",
                plots.risk_coverage(report.risk_coverage, report.risk_points),
            ),
            *learning_plot(learning),
        ]
    )


def _labels(report: Report) -> str:
    rows = [
        (
            each.label,
            *(f"{value:.3f}" for value in (each.precision, each.recall, each.f1)),
            "{:.3f} to {:.3f}".format(*each.f1_interval),
            str(each.support),
            str(each.predicted),
        )
        for each in report.labels
    ]
    columns = ("label", "precision", "recall", "F1", "95 % interval", "rows", "answers")
    about = "Click on a column to sort by it."
    return section("Labels", about, wide(table(columns, rows, right=range(1, 7), sortable=True)))


def _confused(report: Report) -> str:
    rows = [(c.label, c.predicted, str(c.count)) for c in report.confusions[:20]]
    about = "The most frequent mistakes." if rows else "No answer is wrong."
    return section(
        "Confused labels", about, table(("rows of", "answered as", "how many"), rows, right=(2,))
    )


def _worst(report: Report) -> str:
    rows = [(str(w.line), w.label, w.predicted, f"{w.confidence:.3f}") for w in report.worst]
    about = (
        "Hard cases, or wrong labels in the data: look these lines up in the data file."
        if rows
        else f"No answer with a confidence of {report.threshold:g} or more is wrong."
    )
    columns = ("line", "label", "answered as", "confidence")
    return section("Sure and wrong", about, table(columns, rows, right=(0, 3)))
