"""Check and split rows that may have several categories, before a moderator is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError, InvalidInput
from sprat.train.categories import CategoryData
from sprat.train.checks import (
    Conflicts,
    DataReport,
    inspect,
    resolve_conflicts,
    shown_lines,
)
from sprat.train.split import same_texts
from sprat.train.stratify import stratify
from sprat.values import IntArray

FOLDS = 5
LEAST_TEXTS = 4
"""Different texts that a category needs, and that must be without it."""

WINDOW_SHARE = 0.99
LEAST_WINDOW = 64
MOST_WINDOW = 1024
"""A window is as long as nearly all of the texts that were learned from, within these bounds: a
head reads best what is as long as what it knows. In characters."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCategories:
    """Checked and split rows.

    Attributes
    ----------
    train, test : CategoryData
    names : tuple of str
        Categories, sorted.
    folds_n : int32[N]
        Fold of each training row.
    report : DataReport
    is_leaked_m : bool[M]
        The test rows that repeat a training row.
    seed : int
    """

    train: CategoryData
    test: CategoryData
    names: tuple[str, ...]
    folds_n: IntArray
    report: DataReport
    is_leaked_m: npt.NDArray[np.bool_]
    seed: int

    @property
    def window(self) -> tuple[int, int]:
        """Characters of a window, and how many of them neighbours share at most."""
        lengths = [len(text) for text in self.train.texts]
        usual = int(np.ceil(np.quantile(lengths, WINDOW_SHARE)))
        room = min(MOST_WINDOW, max(LEAST_WINDOW, usual))
        return room, room // 4


def prepare_categories(
    data: CategoryData,
    *,
    test: CategoryData | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    seed: int = 0,
) -> PreparedCategories:
    """Check rows and split them.

    Parameters
    ----------
    test : CategoryData, optional
        Rows to evaluate on; absent: a share of ``data`` is held out.
    held_out : float
        That share, above 0 and below 1; of no effect with ``test``.
    conflicts : {"refuse", "drop", "keep"}
        See `sprat.train.checks.resolve_conflicts`.
    seed : int
        Of all splits, at least 0.

    Raises
    ------
    DataError
        When the rows do not suffice, contradict each other, or ``test`` has other categories.
    InvalidInput
        When a number is out of range.
    """
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    _, dropped = resolve_conflicts(data.as_dataset(), conflicts)
    if dropped:
        gone = set(dropped)
        data = data.take(row for row, line in enumerate(data.lines) if line not in gone)
    names = data.names()
    require_rows(data, names)
    groups_n = same_texts(data.texts)
    train = data
    if test is None:
        train, test = split_categories(data, held_out, seed=seed)
        groups_n = same_texts(train.texts)
    truth_nk = train.truth(names)
    test.truth(names)
    folds = min(FOLDS, *(_texts_of(truth_nk[:, i], groups_n) for i in range(len(names))))
    if folds < 2:
        raise DataError(data.path, 0, "too few different texts of a category are left to train on")
    folds_n = stratify(truth_nk, groups_n, (1 / folds,) * folds, seed=seed)
    report, is_leaked_m = inspect(train.as_dataset(), test.as_dataset(), dropped_lines=dropped)
    return PreparedCategories(train, test, names, folds_n, report, is_leaked_m, seed)


def split_categories(
    data: CategoryData, held_out: float, *, seed: int
) -> tuple[CategoryData, CategoryData]:
    """Rows to fit on and held-out rows without a text in common, each category in both.

    Raises
    ------
    InvalidInput
        ``held_out`` is out of range.
    """
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    groups_n = same_texts(data.texts)
    part_n = stratify(data.truth(data.names()), groups_n, (1 - held_out, held_out), seed=seed)
    fitted, held = (data.take(np.flatnonzero(part_n == part).tolist()) for part in (0, 1))
    return fitted, held


def _texts_of(has_n: npt.NDArray[np.bool_], groups_n: IntArray) -> int:
    """Different texts among the rows that a category has."""
    return len(np.unique(groups_n[has_n]))


def require_rows(data: CategoryData, names: Sequence[str]) -> None:
    """Refuse rows from which some category cannot be learned.

    Raises
    ------
    DataError
        There are no categories, or one has too few texts, or nearly all.
    """
    if not names:
        raise DataError(
            data.path,
            data.lines[0],
            f"expected categories, found none in {len(data)} rows: {shown_lines(data.lines)}",
        )
    groups_n = same_texts(data.texts)
    truth_nk = data.truth(names)
    for i, name in enumerate(names):
        has_n = truth_nk[:, i]
        for rows_n, what in ((has_n, "of"), (~has_n, "without")):
            if (count := _texts_of(rows_n, groups_n)) < LEAST_TEXTS:
                lines = [data.lines[row] for row in np.flatnonzero(rows_n)]
                where = f" in {shown_lines(lines)}" if lines else ""
                hint = "" if has_n is rows_n else "; rows of clean texts have no labels"
                raise DataError(
                    data.path,
                    lines[0] if lines else data.lines[0],
                    f"expected {LEAST_TEXTS} or more different texts {what} category {name!r}, "
                    f"found {count}{where}{hint}",
                )
