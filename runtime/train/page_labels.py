"""What pages of classifiers say label by label, of a tier and of a cascade."""

from __future__ import annotations

from sprat.train import plots
from sprat.train.evaluate_cascade import CascadeReport
from sprat.train.page_parts import section, table, wide
from sprat.train.report import Report

RELIABILITY = (
    "How many answers of some confidence are right. Grey bars: where 95 % of perfectly calibrated "
    "bins would lie."
)
_CONFUSION = (
    "A line holds the rows of one label, a column the answers. Right answers are blue, wrong ones "
    "orange, the stronger the larger their share of the label's rows. Rest the pointer on a cell "
    "for its count."
)


def by_label(report: Report | CascadeReport) -> list[str]:
    """What is confused, which answers are sure and wrong, each label, and the confusion matrix."""
    return [
        f'<div class="pair">{_confused(report)}{_worst(report)}</div>',
        _labels(report),
        section(
            "Confusion matrix", _CONFUSION, wide(plots.confusion(report.labels, report.confusions))
        ),
    ]


def _labels(report: Report | CascadeReport) -> str:
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


def _confused(report: Report | CascadeReport) -> str:
    rows = [(c.label, c.predicted, str(c.count)) for c in report.confusions[:20]]
    about = "The most frequent mistakes." if rows else "No answer is wrong."
    return section(
        "Confused labels", about, table(("rows of", "answered as", "how many"), rows, right=(2,))
    )


def _worst(report: Report | CascadeReport) -> str:
    rows = [(str(w.line), w.label, w.predicted, f"{w.confidence:.3f}") for w in report.worst]
    about = (
        "Hard cases, or wrong labels in the data: look these lines up in the data file."
        if rows
        else f"No answer with a confidence of {report.threshold:g} or more is wrong."
    )
    columns = ("line", "label", "answered as", "confidence")
    return section("Sure and wrong", about, table(columns, rows, right=(0, 3)))
