"""What every trainer of a classifier starts with: labelled rows, checked, split, in folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.errors import InvalidInput
from sprat.train.checks import Conflicts, DataReport, inspect, require_rows, resolve_conflicts
from sprat.train.data import Dataset
from sprat.train.split import assign_folds, split
from sprat.values import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Rows to train on and rows to evaluate on.

    Attributes
    ----------
    train, test : Dataset
        N and M rows.
    labels : tuple of str
        K labels of ``train``, sorted.
    targets_n, test_targets_m : int32[N], int32[M]
        Labels of the rows as indices into ``labels``.
    folds_n : int32[N]
        See `sprat.train.split.assign_folds`.
    is_leaked_m : bool[M]
        Test rows that repeat a training row, exactly or nearly.
    report : DataReport
        What was found in the rows.
    seed : int
        Of split and folds, and for whatever else is random.
    """

    train: Dataset
    test: Dataset
    labels: tuple[str, ...]
    targets_n: IntArray
    test_targets_m: IntArray
    folds_n: IntArray
    is_leaked_m: npt.NDArray[np.bool_]
    report: DataReport
    seed: int

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of the training rows, then those of the test rows."""
        return (*self.train.texts, *self.test.texts)


def prepare(
    data: Dataset,
    *,
    test: Dataset | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    seed: int = 0,
) -> Prepared:
    """Check labelled rows, and split them where there are none to test with.

    Parameters
    ----------
    data : Dataset
        Two or more labels, four or more different texts of each.
    test : Dataset, optional
        Rows to evaluate on; ``data`` is then trained on as a whole.
    held_out : float
        Share of ``data`` to evaluate on, above 0 and below 1; of no effect with ``test``.
    conflicts : {"refuse", "drop", "keep"}
        See `sprat.train.checks.resolve_conflicts`.
    seed : int
        At least 0; the same rows and seed give the same parts.

    Raises
    ------
    DataError
        When the rows do not suffice or contradict each other, or ``test`` has labels that ``data``
        does not have; with line numbers.
    InvalidInput
        When ``held_out``, ``conflicts`` or ``seed`` is out of range.
    """
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")
    usable, dropped_lines = resolve_conflicts(data, conflicts)
    require_rows(usable)
    train, rows = split(usable, held_out, seed=seed) if test is None else (usable, test)
    labels = tuple(sorted(set(train.labels)))
    test_targets_m = rows.targets(labels)
    report, is_leaked_m = inspect(train, rows, dropped_lines=dropped_lines)
    return Prepared(
        train,
        rows,
        labels,
        train.targets(labels),
        test_targets_m,
        assign_folds(train, seed=seed),
        is_leaked_m,
        report,
        seed,
    )
