"""Plots of an evaluation as inline SVG: no library, no script, colours by the page's style sheet.

Marks carry CSS classes instead of colours, so that one plot suits light and dark pages; what the
pointer rests on says its figures (``<title>``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from sprat.train.report import (
    Confusion,
    LabelReport,
    ReliabilityBin,
    RiskPoint,
    ThresholdPoint,
)

_LEFT, _TOP, _RIGHT, _BOTTOM = 52.0, 12.0, 22.0, 40.0
_DOTS = 20
"""Points of a curve of thresholds that say their figures."""
Alone = tuple[str, float, float]
"""A tier by itself: its name, cost and accuracy."""

_MOST_NAMED = 40
"""Characters of a label beside a confusion matrix; the rest is in the hover text."""


@dataclass(frozen=True, slots=True)
class _Axes:
    """A square plot: maps data to pixels and draws its frame."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    width: float = 420.0
    height: float = 320.0

    def x(self, value: float) -> float:
        share = (value - self.low_x) / (self.high_x - self.low_x)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low_y) / (self.high_y - self.low_y)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def draw(self, marks: Iterable[str], *, x: str, y: str, percent_x: bool = True) -> str:
        """The whole picture: grid, tick labels, axis titles, marks."""
        parts = []
        for value in _ticks(self.low_x, self.high_x):
            at = self.x(value)
            text = _percent(value) if percent_x else f"{value:,.0f}"
            parts.append(_line("grid", at, self.y(self.low_y), at, self.y(self.high_y)))
            parts.append(_text(at, self.height - _BOTTOM + 16, text, "middle"))
        for value in _ticks(self.low_y, self.high_y):
            at = self.y(value)
            parts.append(_line("grid", self.x(self.low_x), at, self.x(self.high_x), at))
            parts.append(_text(_LEFT - 6, at + 4, _percent(value), "end"))
        middle_x = (_LEFT + self.width - _RIGHT) / 2
        middle_y = (_TOP + self.height - _BOTTOM) / 2
        parts.append(_text(middle_x, self.height - 6, x, "middle", "axis"))
        parts.append(
            f'<g transform="translate(13 {middle_y:.1f}) rotate(-90)">'
            f"{_text(0, 0, y, 'middle', 'axis')}</g>"
        )
        return _svg(self.width, self.height, [*parts, *marks], f"{y} by {x}")


def reliability(
    bins: Sequence[ReliabilityBin], *, x: str = "confidence", y: str = "accuracy"
) -> str:
    """Accuracy by confidence, one point a bin; calibrated ones lie on the diagonal.

    The bars hold 95 % of what a perfect confidence would show on so many rows (normal
    approximation).

    Parameters
    ----------
    x, y : str
        What confidence and accuracy are called here.
    """
    axes = _Axes(0, 1, 0, 1)
    marks = [_line("ideal", axes.x(0), axes.y(0), axes.x(1), axes.y(1))]
    for each in bins:
        spread = 1.96 * math.sqrt(each.confidence * (1 - each.confidence) / each.n)
        low, high = max(0.0, each.confidence - spread), min(1.0, each.confidence + spread)
        at = axes.x(each.confidence)
        marks.append(_line("spread", at, axes.y(low), at, axes.y(high)))
    marks.append(_path("line", [(axes.x(b.confidence), axes.y(b.accuracy)) for b in bins]))
    for each in bins:
        title = (
            f"{each.n} rows, {x} {each.lowest:.3f} to {each.highest:.3f}, "
            f"mean {each.confidence:.3f}, {y} {each.accuracy:.3f}"
        )
        marks.append(_dot(axes.x(each.confidence), axes.y(each.accuracy), title))
    return axes.draw(marks, x=x, y=y)


def risk_coverage(curve: Sequence[RiskPoint], marked: Sequence[RiskPoint]) -> str:
    """Share of wrong answers by share of answered rows, as the threshold goes down."""
    top = max(0.01, *(point.risk for point in curve))
    axes = _Axes(0, 1, 0, top * 1.05)
    marks = [_path("line", [(axes.x(p.coverage), axes.y(p.risk)) for p in curve])]
    marks += [
        _dot(
            axes.x(p.coverage),
            axes.y(p.risk),
            f"accept at {p.accept_at:.3f}: answers {p.coverage:.1%}, {p.risk:.2%} of them wrong",
        )
        for p in marked
    ]
    return axes.draw(marks, x="answered rows", y="wrong among them")


def thresholds(points: Sequence[ThresholdPoint], flag_at: float) -> str:
    """Precision and recall of a category by the threshold from which on texts are flagged."""
    axes = _Axes(0, 1, 0, 1)
    at = axes.x(flag_at)
    marks = [_line("ideal", at, axes.y(0), at, axes.y(1))]
    for kind, values in (
        ("line", [point.precision for point in points]),
        ("line other", [point.recall for point in points]),
    ):
        pixels = [
            (axes.x(point.at), axes.y(value)) for point, value in zip(points, values, strict=True)
        ]
        marks.append(_path(kind, pixels))
    for point in points[:: max(1, len(points) // _DOTS)]:
        title = (
            f"flag at {point.at:.3f}: {point.flagged} rows, precision {point.precision:.3f}, "
            f"recall {point.recall:.3f}"
        )
        marks.append(_dot(axes.x(point.at), axes.y(point.precision), title))
    return axes.draw(marks, x="flagged from", y="precision and recall")


def learning_curve(sizes: Sequence[int], values: Sequence[float], what: str = "accuracy") -> str:
    """A figure, ``what``, by the number of training rows."""
    low = math.floor(min(values) * 10 - 0.5) / 10
    axes = _Axes(0, sizes[-1] * 1.05, max(0.0, low), 1)
    pixels = [(axes.x(n), axes.y(value)) for n, value in zip(sizes, values, strict=True)]
    marks = [_path("line", pixels)]
    marks += [
        _dot(x, y, f"{n:,} rows: {value:.3f}")
        for (x, y), n, value in zip(pixels, sizes, values, strict=True)
    ]
    return axes.draw(marks, x="training rows", y=what, percent_x=False)


def cost_curve(
    points: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    alone: Sequence[Alone],
    *,
    chosen_name: str = "chosen",
) -> str:
    """Accuracy by cost of a cascade, with other thresholds too.

    Parameters
    ----------
    points : sequence of (float, float)
        Cost against that of the best tier, and accuracy; the cheapest first.
    chosen : (float, float)
        The same of what was chosen.
    alone : sequence of Alone
        Each tier by itself.
    chosen_name : str
        What to call what was chosen.
    """
    every = [*points, chosen, *((cost, accuracy) for _, cost, accuracy in alone)]
    low = math.floor(min(y for _, y in every) * 20 - 0.5) / 20
    axes = _Axes(0, 1.05 * max(x for x, _ in every), max(0.0, low), 1)
    marks = [_path("line", [(axes.x(x), axes.y(y)) for x, y in points])] if points else []
    for name, x, y in alone:
        marks.append(_dot(axes.x(x), axes.y(y), f"{name} alone: cost {x:.1%}, accuracy {y:.3f}"))
        marks.append(_text(axes.x(x) - 7, axes.y(y) - 7, name, "end"))
    x, y = chosen
    marks.append(_dot(axes.x(x), axes.y(y), f"{chosen_name}: cost {x:.1%}, accuracy {y:.3f}"))
    marks.append(_text(axes.x(x) + 7, axes.y(y) + 14, chosen_name, "start"))
    return axes.draw(marks, x="cost, share of the best tier alone", y="accuracy")


def confusion(labels: Sequence[LabelReport], confusions: Sequence[Confusion]) -> str:
    """Answers by right label: a row a label, shaded by the share of the label's rows.

    Hits on the diagonal and errors have colours of their own, and cells without rows stay empty.
    """
    index = {label.label: i for i, label in enumerate(labels)}
    wrong = {(index[c.label], index[c.predicted]): c.count for c in confusions}
    # What is neither right nor confused was not answered.
    hits = [round(label.recall * label.support) for label in labels]
    cells = wrong | {(i, i): count for i, count in enumerate(hits) if count}
    cell = 14.0 if len(labels) > 20 else 22.0
    longest = max(len(_short(label.label)) for label in labels)
    margin = 14 + 6.2 * longest
    side = cell * len(labels)
    parts = [
        f'<rect class="frame" x="{margin:.1f}" y="{margin:.1f}" width="{side}" height="{side}"/>'
    ]
    for i, label in enumerate(labels):
        at = margin + (i + 0.5) * cell
        name, full = _short(label.label), escape(label.label)
        parts.append(f"<g><title>{full}</title>{_text(margin - 5, at + 3.5, name, 'end')}</g>")
        parts.append(
            f'<g transform="translate({at + 3.5:.1f} {margin - 5:.1f}) rotate(-90)">'
            f"<title>{full}</title>{_text(0, 0, name, 'start')}</g>"
        )
        if i and i % 5 == 0:
            edge = margin + i * cell
            parts.append(_line("grid", margin, edge, margin + side, edge))
            parts.append(_line("grid", edge, margin, edge, margin + side))
    for (i, j), count in sorted(cells.items()):
        share = count / labels[i].support
        title = f"{labels[i].label} answered as {labels[j].label}: {count} of {labels[i].support}"
        parts.append(
            f'<rect class="{"hit" if i == j else "miss"}" x="{margin + j * cell:.1f}" '
            f'y="{margin + i * cell:.1f}" width="{cell - 1:g}" height="{cell - 1:g}" '
            # The root lifts single errors out of the background.
            f'fill-opacity="{math.sqrt(share):.2f}"><title>{escape(title)}</title></rect>'
        )
        if cell > 20:
            shown = _text(
                margin + (j + 0.5) * cell,
                margin + (i + 0.5) * cell + 3.5,
                str(count),
                "middle",
                "count",
            )
            parts.append(shown)
    return _svg(margin + side + 4, margin + side + 4, parts, "confusion matrix", fixed=True)


def _short(label: str) -> str:
    return label if len(label) <= _MOST_NAMED else label[: _MOST_NAMED - 1] + "…"


def _percent(value: float) -> str:
    return f"{value * 100:.4g}%"


def _ticks(low: float, high: float) -> list[float]:
    """Some five round values within a range."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _path(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _dot(x: float, y: float, title: str) -> str:
    inner = f"<title>{escape(title)}</title>"
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4">{inner}</circle>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(
    width: float, height: float, parts: Iterable[str], title: str, *, fixed: bool = False
) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" ' if fixed else ""
    return (
        f'<svg {size}viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
