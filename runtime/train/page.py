"""An evaluation as one HTML file: figures, plots, tables; nothing in it is loaded from elsewhere.

It holds labels and line numbers, but no text of any row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from sprat.train import plots
from sprat.train.report import METRICS, SCOPE_METRICS, Report

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
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    report: Report,
    *,
    title: str,
    facts: Mapping[str, str],
    learning: tuple[Sequence[int], Sequence[float]] | None = None,
) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Such as the bundle's name.
    facts : mapping of str to str
        Where the figures come from: bundle, model, data.
    learning : (sequence of int, sequence of float), optional
        Training rows and accuracies of the learning curve, ascending.
    """
    sections = [
        _figures(report),
        _plots(report, learning),
        f'<div class="pair">{_confused(report)}{_worst(report)}</div>',
        _labels(report),
        _section(
            "Confusion matrix",
            _CONFUSION,
            _wide(plots.confusion(report.labels, report.confusions)),
        ),
    ]
    style, script = (
        (files("sprat.train") / name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    shown = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1><dl>{shown}</dl></header>\n"
        + "\n".join(sections)
        + f"\n<script>{script}</script></body></html>\n"
    )


_RELIABILITY = (
    "How many answers of some confidence are right. Grey bars: where 95 % of perfectly calibrated "
    "bins would lie."
)
_RISK = "How many answers are wrong when only the most confident ones are given."
_LEARNING = (
    "Accuracy on the same test rows with fewer training rows: while it still rises, more examples "
    "help."
)
_CONFUSION = (
    "A line holds the rows of one label, a column the answers. Right answers are blue, wrong ones "
    "orange, the stronger the larger their share of the label's rows. Rest the pointer on a cell "
    "for its count."
)


def _figures(report: Report) -> str:
    rows = []
    for name in (*METRICS, *SCOPE_METRICS):
        if name not in report.intervals:
            continue
        each = report.interval(name)
        note = _NOTES.get(name, "").format(report=report)
        rows.append((TITLES[name], f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}", note))
    table = _table(("metric", "value", "95 % interval", ""), rows, right=(1, 2))
    about = (
        f"On {report.n:,} rows that were not trained on. Intervals come from "
        "1,000 resamples of these rows: they say how far the figures would move on other rows of "
        "the same kind."
    )
    return _section("Figures", about, table)


def _plots(report: Report, learning: tuple[Sequence[int], Sequence[float]] | None) -> str:
    thresholds = " ".join(
        f"From {p.accept_at:.3f} on {p.coverage:.1%} of the rows are answered, {p.risk:.2%} wrong."
        for p in report.risk_points
    )
    shown = [
        ("Reliability", _RELIABILITY, plots.reliability(report.reliability)),
        (
            "Risk and coverage",
            f"{_RISK} {thresholds}",
            plots.risk_coverage(report.risk_coverage, report.risk_points),
        ),
    ]
    if learning is not None:
        shown.append(("Learning curve", _LEARNING, plots.learning_curve(*learning)))
    figures = "".join(
        f"<figure><h2>{escape(name)}</h2>{svg}<figcaption>{escape(about)}</figcaption></figure>"
        for name, about, svg in shown
    )
    return f'<section class="plots">{figures}</section>'


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
    return _section("Labels", about, _wide(_table(columns, rows, right=range(1, 7), sortable=True)))


def _confused(report: Report) -> str:
    rows = [(c.label, c.predicted, str(c.count)) for c in report.confusions[:20]]
    about = "The most frequent mistakes." if rows else "No answer is wrong."
    return _section(
        "Confused labels", about, _table(("rows of", "answered as", "how many"), rows, right=(2,))
    )


def _worst(report: Report) -> str:
    rows = [(str(w.line), w.label, w.predicted, f"{w.confidence:.3f}") for w in report.worst]
    about = (
        "Hard cases, or wrong labels in the data: look these lines up in the data file."
        if rows
        else f"No answer with a confidence of {report.threshold:g} or more is wrong."
    )
    columns = ("line", "label", "answered as", "confidence")
    return _section("Sure and wrong", about, _table(columns, rows, right=(0, 3)))


def _section(title: str, about: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{body}</section>"


def _wide(body: str) -> str:
    return f'<div class="wide">{body}</div>'


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    sortable: bool = False,
) -> str:
    if not rows:
        return ""

    def cell(tag: str, index: int, text: str) -> str:
        kind = ' class="right"' if index in right else ""
        inner = f"<button>{escape(text)}</button>" if tag == "th" and sortable else escape(text)
        return f"<{tag}{kind}>{inner}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    kind = ' class="sortable"' if sortable else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
