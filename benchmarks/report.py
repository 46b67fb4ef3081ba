"""Tables of the README, made from results: ``python -m sprat.benchmarks.report README.md``.

The table ``config`` is made from the configuration's own model, ``metrics`` from the families of
the server. A table stands between
``<!-- table:CASE -->`` and ``<!-- /table:CASE -->``, each on a line of its own; a table that is
named after no benchmark is left alone. With ``--check`` nothing is written, and the exit status
says whether all of them are up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sprat.benchmarks import harness
from sprat.benchmarks.harness import Cell, Figure, Result
from sprat.config import reference
from sprat.errors import SetupError, SpratError
from sprat.server.metrics import FAMILIES

DISTURBED = 0.03
"""Share of the machine that others may take without a word."""

CONFIG, METRICS = "config", "metrics"
"""Names of the tables of settings, and of what a server exports."""

MARKER = re.compile(r"<!-- (/?)table:([a-z0-9_-]+) -->")


def render(result: Result) -> str:
    """A result in Markdown: figures, table, and the conditions under which they hold."""
    parts = []
    if result.figures:
        parts.append(_figures(result.figures))
    if result.table is not None:
        parts.append(_markdown(result.table.columns, result.table.rows))
    parts.append(_conditions(result))
    return "\n\n".join(parts)


def _figures(figures: Sequence[Figure]) -> str:
    judged = any(each.met is not None for each in figures)
    columns = ["figure", "measured", *(["goal", "met"] if judged else [])]
    rows = []
    for each in figures:
        row = [each.title, f"{_number(each.value)} {each.unit}".strip()]
        if judged:
            row += [_goal(each), {True: "yes", False: "no", None: ""}[each.met]]
        rows.append(row)
    return _markdown(columns, rows)


def _goal(each: Figure) -> str:
    bounds = [("≥", each.at_least), ("≤", each.at_most)]
    return ", ".join(
        f"{sign} {_number(bound)} {each.unit}".strip()
        for sign, bound in bounds
        if bound is not None
    )


def _conditions(result: Result) -> str:
    machine = result.machine
    threads = machine["threads"]
    where = f"{machine['cpu']}, {threads} compute thread{'s' if threads != 1 else ''}"
    commit = f" at {result.commit}" if result.commit else ""
    caveats = ""
    if result.disturbance is not None and result.disturbance >= DISTURBED:
        caveats += f" Other processes took {result.disturbance:.0%} of the machine meanwhile."
    if result.quick:
        caveats += " A quick trial: these figures mean nothing."
    return f"{result.method} Measured on {result.date[:10]}{commit} on {where}.{caveats}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    """Three significant digits, but every digit before the point; no exponent."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def update(text: str, results: Path) -> str:
    """The text with every benchmark's table made anew.

    Parameters
    ----------
    text : str
        A Markdown document.
    results : Path
        Folder with the JSON files.

    Raises
    ------
    SetupError
        For a table that does not begin or end, and for figures of a quick trial.
    CorruptFile
        For a table whose result is missing or no result.
    """
    lines: list[str] = []
    inside: str | None = None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        marker = MARKER.fullmatch(line.strip())
        if marker is not None and marker[2] in (CONFIG, METRICS, *harness.CASES):
            closes, name = marker.groups()
            if (name if closes else None) != inside:
                expected = f"<!-- /table:{inside} -->" if inside else "the begin of a table"
                raise SetupError(f"line {number}: expected {expected}, found {marker[0]}")
            inside = None if closes else name
            lines.append(line)
            if inside is not None:
                lines.append(_table(inside, results) + "\n")
        elif inside is None:
            lines.append(line)
    if inside is not None:
        raise SetupError(f"<!-- /table:{inside} --> is missing")
    return "".join(lines)


def _table(name: str, results: Path) -> str:
    if name == CONFIG:
        rows = [
            (f"`{path}`", default and f"`{default}`", text) for path, default, text in reference()
        ]
        return _markdown(("setting", "default", "meaning"), rows)
    if name == METRICS:
        families = [(f"`{f.name}`", ", ".join(f.labels), f.meaning) for f in FAMILIES]
        return _markdown(("metric", "labels", "meaning"), families)
    result = harness.read(results / f"{name}.json")
    if result.quick:
        raise SetupError(f"{name}: the result is of a quick trial; run `make bench`")
    return render(result)


def main() -> int:
    """Update or check a document; 1 when it is out of date or cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m sprat.benchmarks.report")
    parser.add_argument("document", type=Path, help="Markdown file with the markers")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of the results; absent: benchmarks/results beside it",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; tell what is stale")
    given = parser.parse_args()
    results = given.results or given.document.resolve().parent / "benchmarks" / "results"
    try:
        before = given.document.read_text("utf-8")
        after = update(before, results)
    except SpratError as error:
        print(f"error: {given.document}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {given.document} cannot be read: {error.strerror}", file=sys.stderr)
        return 1
    if given.check and after != before:
        print(
            f"error: {given.document} is out of date: "
            f"run `python -m sprat.benchmarks.report {given.document}`",
            file=sys.stderr,
        )
        return 1
    if after != before:
        given.document.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
