"""The page of a cascade of an extract task: what it finds, and what each of its tiers does."""

from __future__ import annotations

from sprat.train import page_findings
from sprat.train.evaluate_extract_cascade import ExtractCascadeReport
from sprat.train.evaluate_whole import WHOLE_ECE
from sprat.train.page_answers import TITLES as ANSWERS
from sprat.train.page_answers import fields_section, wrong_lines_section
from sprat.train.page_cascade import TITLES as CASCADE
from sprat.train.page_cascade import cost_plot, tiers_section
from sprat.train.page_parts import figures, pictures

TITLES = {**CASCADE, **ANSWERS}
"""What people read for each metric."""

_NOTES = {
    "recall": "Nothing is found in a row without an answer.",
    "exact_match": "Of all rows; one without an answer is not right.",
    "coverage": "Of all rows.",
    "wrong": "Not right as a whole, share of the answers.",
    "cost_ratio": "CPU time, share of {report.best_tier} alone.",
}

_ALONE = {
    "micro_f1": "micro-F1",
    "precision": "precision",
    "recall": "recall",
    "exact_match": "as wanted",
    WHOLE_ECE: "ECE",
}

_COUNTS = {
    "spans": "A field is right at exactly the right place.",
    "strings": "A field is right with the right string, wherever it stands.",
}


def of_extract_cascade(report: ExtractCascadeReport) -> list[str]:
    """Its sections."""
    rows = [
        (
            TITLES[name],
            each,
            _NOTES.get(name, "").format(report=report)
            or page_findings.whole_note(name, report.whole),
        )
        for name, each in report.metrics.items()
    ]
    alone = {name: each.metrics for name, each in report.tiers.items()}
    cost = cost_plot(report.shares, report.best_tier, alone, report.metrics, "exact_match")
    return [
        figures(report.n, rows),
        tiers_section(report.shares, alone, _ALONE),
        pictures([*page_findings.whole_plot(report.whole), cost]),
        fields_section(report.fields, _COUNTS[report.by]),
        wrong_lines_section(report.wrong_lines, "Not all of it, something else, or no answer."),
    ]
