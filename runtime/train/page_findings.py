"""Pages of what finds several things in a text, or nothing: moderators and taggers."""

from __future__ import annotations

from sprat.manifest import Interval
from sprat.train import plots
from sprat.train.curve import LearningCurve
from sprat.train.evaluate_categories import CategoryReport, ModerationReport
from sprat.train.evaluate_spans import SpanReport
from sprat.train.evaluate_whole import WHOLE_ECE, WholeReport
from sprat.train.page_parts import Plot, figures, learning_plot, pictures, section, table, wide

TITLES = {
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "mean_average_precision": "Mean average precision",
    "ece": "Calibration error (ECE)",
    "exact": "Rows with all of their categories",
    "precision": "Precision",
    "recall": "Recall",
    "whole_rows": "Rows with all of their spans",
    WHOLE_ECE: "Calibration error (ECE) of whole answers",
}
"""What people read for each metric of the two reports."""

SHOWN_THRESHOLDS = 11
"""Of each category in the table; the plot has all of the report's."""

_OF_A_CATEGORY = ("precision", "recall", "f1", "average_precision", "ece")
_SORT = "Click on a column to sort by it."


def of_moderator(report: ModerationReport, learning: LearningCurve | None) -> list[str]:
    """Sections of a moderator's page."""
    return [
        figures(
            report.n,
            [
                (TITLES[name], each, whole_note(name, report.whole))
                for name, each in report.summary().metrics.items()
            ],
        ),
        pictures(
            [
                *whole_plot(report.whole),
                *(plot for each in report.categories for plot in _category_plots(each)),
                *learning_plot(learning),
            ]
        ),
        _categories(report),
        _thresholds(report),
    ]


def of_tagger(report: SpanReport) -> list[str]:
    """Sections of a tagger's page."""
    noise = f"Perfect confidences would show {report.ece_noise:.3f} on so few spans."
    wrong = report.predicted - report.right
    found = (
        f"{report.predicted:,} spans were found, {wrong:,} of them wrong: {report.misplaced:,} "
        f"overlap one of their field, {report.misnamed:,} are of another field. {_SORT}"
    )
    rows = [
        (
            each.label,
            *(f"{value:.3f}" for value in (each.precision, each.recall, each.f1)),
            str(each.support),
            str(each.predicted),
        )
        for each in report.fields
    ]
    columns = ("field", "precision", "recall", "F1", "spans", "found")
    about = (
        "How many found spans of some confidence are right. Grey bars: where 95 % of perfectly "
        "calibrated bins would lie."
    )
    plot = ("Reliability: spans", about, plots.reliability(report.reliability))
    return [
        figures(
            report.n,
            [
                (TITLES[name], each, noise if name == "ece" else whole_note(name, report.whole))
                for name, each in report.summary().metrics.items()
            ],
        ),
        pictures([*([plot] if report.reliability else []), *whole_plot(report.whole)]),
        section("Fields", found, wide(table(columns, rows, right=range(1, 6), sortable=True))),
    ]


def whole_note(name: str, whole: WholeReport | None) -> str:
    """What stands below a figure: that of whole answers says what perfect ones would show."""
    if whole is None or name != WHOLE_ECE:
        return ""
    return f"Perfect confidences would show {whole.ece_noise:.3f} on so few rows."


def whole_plot(whole: WholeReport | None) -> list[Plot]:
    """How often whole answers of some confidence are right; nothing where there is none."""
    if whole is None:
        return []
    about = (
        "How many answers of some confidence are right as a whole: with all that is there, and "
        "nothing else. Grey bars: where 95 % of perfectly calibrated bins would lie."
    )
    return [("Reliability: whole answers", about, plots.reliability(whole.reliability))]


def _category_plots(each: CategoryReport) -> list[Plot]:
    reliable = (
        f"How many texts of some probability are {each.category}. Grey bars: where 95 % of "
        "perfectly calibrated bins would lie. Perfect probabilities would show an ECE of "
        f"{each.ece_noise:.3f} on so few rows; these show {each.ece.value:.3f}."
    )
    traded = (
        f"Blue: the share of flagged texts that are {each.category} (precision). Orange: the share "
        f"of such texts that is flagged (recall). Broken line: flagged from {each.flag_at:.3f} on."
    )
    reliability = plots.reliability(each.reliability, x="probability", y="share of the category")
    thresholds = plots.thresholds(each.by_threshold, each.flag_at)
    return [
        (f"Reliability: {each.category}", reliable, reliability),
        (f"Thresholds: {each.category}", traded, thresholds),
    ]


def _categories(report: ModerationReport) -> str:
    rows = [
        (
            each.category,
            f"{each.flag_at:.3f}",
            *(_with_interval(getattr(each, name)) for name in _OF_A_CATEGORY),
            str(each.support),
            str(each.flagged),
        )
        for each in report.categories
    ]
    columns = ("category", "flag at", "precision", "recall", "F1", "average precision", "ECE")
    body = table((*columns, "rows", "flagged"), rows, right=range(1, 9), sortable=True)
    about = f"{report.clean:,} of {report.n:,} rows are of none. {_SORT}"
    return section("Categories", about, wide(body))


def _thresholds(report: ModerationReport) -> str:
    rows = []
    for each in report.categories:
        points = each.by_threshold
        step = max(1, -(-len(points) // SHOWN_THRESHOLDS))
        rows += [
            (
                each.category,
                f"{point.at:.4f}",
                str(point.flagged),
                f"{point.precision:.3f}",
                f"{point.recall:.3f}",
            )
            for point in points[::step]
        ]
    columns = ("category", "flagged from", "rows flagged", "precision", "recall")
    about = "What other thresholds would have done with these rows."
    return section(
        "Precision and recall by threshold",
        about,
        wide(table(columns, rows, right=range(1, 5), sortable=True)),
    )


def _with_interval(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
