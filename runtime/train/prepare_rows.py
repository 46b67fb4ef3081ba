"""Check and split the rows of an adapter before anything is trained."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError
from sprat.train.adapter_rows import Rows, hold_out
from sprat.train.checks import (
    Conflicts,
    DataReport,
    inspect,
    require_rows,
    resolve_conflicts,
    shown_lines,
)
from sprat.train.data import Dataset
from sprat.train.split import same_texts

VALIDATION = 0.1
"""Share of the training rows that says when to stop."""

LEAST_TEXTS = 4
"""Different texts that training needs: two to learn from, one that says when to stop, and one to
evaluate on."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRows:
    """Rows that an adapter can be trained and evaluated on.

    Attributes
    ----------
    train, validation, test : Rows
        To learn from; that say when to stop; to evaluate on: M rows.
    report : DataReport
        What was found in the rows; ``rows`` counts those of ``validation`` too.
    is_leaked_m : bool[M]
        Test rows that repeat one of the others, exactly or nearly.
    """

    train: Rows
    validation: Rows
    test: Rows
    report: DataReport
    is_leaked_m: npt.NDArray[np.bool_]


def prepare_rows(
    rows: Rows,
    *,
    kind: str,
    test: Rows | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    seed: int = 0,
) -> PreparedRows:
    """Check rows and split them.

    Parameters
    ----------
    kind : {"classify", "extract", "transform"}
        Labels need four or more different texts each; other rows four in all.
    test : Rows, optional
        To evaluate on; ``rows`` are then trained on as a whole.
    held_out : float
        Share of the rows to evaluate on where there is no ``test``, above 0 and below 1.
    conflicts : {"refuse", "drop", "keep"}
        What happens to texts with several answers; see `sprat.train.checks.resolve_conflicts`.
        Texts with other inputs are others.
    seed : int
        Of the splits, at least 0.

    Raises
    ------
    DataError
        When the rows do not suffice or contradict each other: their lines.
    InvalidInput
        When a number is out of range.
    """
    what = "labels" if kind == "classify" else "answers"
    _, dropped = resolve_conflicts(_hashed(rows), conflicts, what=what)
    if dropped:
        gone = set(dropped)
        rows = rows.take(row for row, line in enumerate(rows.lines) if line not in gone)
    if kind == "classify":
        require_rows(rows.dataset())
    elif (count := len(set(same_texts(rows.texts).tolist()))) < LEAST_TEXTS:
        raise DataError(
            rows.path,
            rows.lines[0] if rows.lines else 0,
            f"expected {LEAST_TEXTS} or more different texts, found {count}, in "
            f"{shown_lines(rows.lines)}",
        )
    kept, held = (
        (rows, test) if test is not None else hold_out(rows, held_out, kind=kind, seed=seed)
    )
    train, validation = hold_out(kept, VALIDATION, kind=kind, seed=seed)
    # Answers other than labels are texts, which have no place in a report.
    known = Rows.dataset if kind == "classify" else _hashed
    report, is_leaked_m = inspect(known(kept), known(held), dropped_lines=dropped)
    if kind != "classify":
        report = report.model_copy(update={"rows_of_label": {}})
    return PreparedRows(train, validation, held, report, is_leaked_m)


def _hashed(rows: Rows) -> Dataset:
    """The rows with a hash of each answer; other inputs belong to the text."""
    return Dataset(
        tuple(
            "\n".join((text, *inputs.values()))
            for text, inputs in zip(rows.texts, rows.inputs, strict=True)
        ),
        tuple(hashlib.sha256(answer.encode()).hexdigest() for answer in rows.answers),
        rows.lines,
        rows.path,
        rows.sha256,
    )
