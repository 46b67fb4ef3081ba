"""Rows before training: checked, split, in folds; bad ones refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sprat.errors import DataError, InvalidInput
from sprat.train.data import Dataset
from sprat.train.prepare import prepare
from sprat.train.split import assign_folds, split


@pytest.fixture(scope="module")
def data(dataset: Callable[..., Dataset]) -> Dataset:
    return dataset(120)


def test_prepare_splits_where_there_are_no_test_rows(data: Dataset) -> None:
    prepared = prepare(data, held_out=0.3, seed=4)
    assert (prepared.train, prepared.test) == split(data, 0.3, seed=4)
    assert (prepared.folds_n == assign_folds(prepared.train, seed=4)).all()
    assert prepared.labels == ("billing", "delivery", "technical")
    assert [prepared.labels[t] for t in prepared.targets_n] == list(prepared.train.labels)
    assert [prepared.labels[t] for t in prepared.test_targets_m] == list(prepared.test.labels)
    assert prepared.texts == prepared.train.texts + prepared.test.texts
    assert (prepared.report.rows, prepared.report.test_rows) == (
        len(prepared.train),
        len(prepared.test),
    )
    assert prepared.seed == 4


def test_prepare_explicit_test_rows_leave_all_others_for_training(
    data: Dataset, dataset: Callable[..., Dataset]
) -> None:
    test = dataset(90, seed=5)
    prepared = prepare(data, test=test, held_out=-1)
    assert (prepared.train, prepared.test) == (data, test)
    assert len(prepared.is_leaked_m) == 90


def test_prepare_conflicts_are_refused_dropped_or_kept(data: Dataset) -> None:
    rows = Dataset(
        (*data.texts, data.texts[0].upper()),
        (*data.labels, "delivery"),
        (*data.lines, 121),
        data.path,
    )
    assert data.labels[0] != "delivery"
    with pytest.raises(DataError, match="the same text with other labels in line 121"):
        prepare(rows)
    dropped = prepare(rows, conflicts="drop")
    assert len(dropped.train) + len(dropped.test) == 119
    assert dropped.report.dropped_lines == (1, 121)
    kept = prepare(rows, conflicts="keep")
    assert len(kept.train) + len(kept.test) == 121
    assert kept.report.dropped_lines == ()


def test_prepare_names_labels_that_only_test_rows_have(data: Dataset) -> None:
    test = Dataset(("a", "b"), ("billing", "praise"), (1, 2), "test.csv")
    with pytest.raises(DataError) as caught:
        prepare(data, test=test)
    assert (caught.value.path, caught.value.line) == ("test.csv", 2)
    assert "known labels: 'billing', 'delivery', 'technical'" in caught.value.message


def test_prepare_refuses_labels_with_three_rows(data: Dataset) -> None:
    few = [row for row, label in enumerate(data.labels) if label == "billing"]
    rows = data.take(row for row in range(len(data)) if row not in few[3:])
    with pytest.raises(DataError, match=r"expected 4 or more .*\n  'billing': 3 in lines 1, 4, 7"):
        prepare(rows)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"held_out": 1.0}, "held_out"),
        ({"held_out": 0.0}, "held_out"),
        ({"conflicts": "guess"}, "conflicts"),
    ],
)
def test_prepare_refuses_arguments_out_of_range(
    data: Dataset, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        prepare(data, **arguments)
    assert caught.value.field == field
