"""What pages of evaluations are made of: the document, sections, tables, plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from sprat.manifest import Interval
from sprat.train import plots
from sprat.train.curve import LearningCurve

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

RESAMPLED = (
    "Intervals come from 1,000 resamples of these rows: they say how far the figures would move on "
    "other rows of the same kind."
)

Plot = tuple[str, str, str]
"""Title, what it says, and the picture as SVG."""


def document(sections: Iterable[str], *, title: str, facts: Mapping[str, str]) -> str:
    """A page as HTML that loads nothing.

    Parameters
    ----------
    facts : mapping of str to str
        Where the figures come from; above everything else.
    """
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


def section(title: str, about: str, body: str) -> str:
    """A part of the page under a title, with a sentence on what it says."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{body}</section>"


def wide(body: str) -> str:
    """What is scrolled where the page is too narrow for it."""
    return f'<div class="wide">{body}</div>'


def figures(n: int, rows: Iterable[tuple[str, Interval, str]]) -> str:
    """The section of the figures.

    Parameters
    ----------
    n : int
        Rows that they were measured on.
    rows : iterable of (str, Interval, str)
        Name, figure and a note of each.
    """
    cells = [
        (name, f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}", note)
        for name, each, note in rows
    ]
    body = table(("metric", "value", "95 % interval", ""), cells, right=(1, 2))
    return section("Figures", f"On {n:,} rows that were not trained on. {RESAMPLED}", body)


def pictures(shown: Iterable[Plot]) -> str:
    """The section of the plots."""
    parts = "".join(
        f"<figure><h2>{escape(name)}</h2>{svg}<figcaption>{escape(about)}</figcaption></figure>"
        for name, about, svg in shown
    )
    return f'<section class="plots">{parts}</section>'


def learning_plot(curve: LearningCurve | None) -> list[Plot]:
    """The plot of a learning curve; none without one."""
    if curve is None:
        return []
    about = (
        f"{curve.title} on the same test rows with fewer training rows: while it still rises, more "
        "examples help."
    )
    sizes = [point.rows for point in curve.points]
    values = [point.value for point in curve.points]
    return [("Learning curve", about, plots.learning_curve(sizes, values, curve.title.lower()))]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    sortable: bool = False,
) -> str:
    """A table; nothing without rows.

    Parameters
    ----------
    right : sequence of int
        Columns that are aligned to the right, and sorted as numbers.
    """
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
