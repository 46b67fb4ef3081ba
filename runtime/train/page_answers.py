"""Pages of what a generative model writes: values of a schema, and rewritten texts."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.train import page_findings
from sprat.train.evaluate_extract import ExtractReport, FieldReport
from sprat.train.evaluate_transform import TransformReport
from sprat.train.evaluate_whole import WHOLE_ECE
from sprat.train.page_parts import figures, pictures, section, table, wide

TITLES = {
    "micro_f1": "Micro-F1 of fields",
    "precision": "Precision of fields",
    "recall": "Recall of fields",
    "exact_match": "Answers as wanted",
    "edit_similarity": "Edit similarity",
    "schema_valid": "Answers that fit the schema",
    WHOLE_ECE: page_findings.TITLES[WHOLE_ECE],
}
"""What people read for each metric of the two reports."""


def of_answers(report: ExtractReport | TransformReport) -> list[str]:
    """Sections of the page."""
    whole = report.whole if isinstance(report, ExtractReport) else None
    rows = [
        (TITLES[name], each, page_findings.whole_note(name, whole))
        for name, each in report.metrics.items()
    ]
    shown = [figures(report.n, rows)]
    if isinstance(report, ExtractReport):
        if whole is not None:
            shown.append(pictures(page_findings.whole_plot(whole)))
        about = (
            f"{report.grounded:,} of {report.strings:,} strings stand in their text; "
            f"{report.abstained:,} values were withheld."
        )
        shown.append(fields_section(report.fields, about))
    return [*shown, not_as_wanted(report)]


def not_as_wanted(report: ExtractReport | TransformReport) -> str:
    """The section of the lines that were answered otherwise."""
    ended = f"{report.incomplete:,} answers did not end by themselves."
    return wrong_lines_section(report.wrong_lines, ended)


def wrong_lines_section(lines: Sequence[int], about: str) -> str:
    """Lines that were answered otherwise, or not at all."""
    rows = [(str(line),) for line in lines]
    about = (
        f"{about} Look these lines up in the data file."
        if rows
        else "No answer is other than wanted."
    )
    return section("Not as wanted", about, table(("line",), rows, right=(0,)))


def fields_section(fields: Sequence[FieldReport], about: str) -> str:
    """How each field fares."""
    rows = [
        (
            each.field,
            *(f"{value:.3f}" for value in (each.precision, each.recall, each.f1)),
            str(each.support),
            str(each.predicted),
        )
        for each in fields
    ]
    columns = ("field", "precision", "recall", "F1", "there", "found")
    about = f"{about} Click on a column to sort by it."
    return section("Fields", about, wide(table(columns, rows, right=range(1, 6), sortable=True)))
