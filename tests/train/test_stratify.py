"""Rows with several labels, dealt over parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.train.stratify import stratify


def test_stratify_gives_every_part_its_share_of_every_label() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((1000, 4)) < np.array([0.02, 0.1, 0.3, 0.5])
    part = stratify(truth, np.arange(1000, dtype=np.int32), (0.8, 0.2), seed=1)
    for column in range(4):
        there = truth[:, column].sum()
        assert truth[part == 1, column].sum() == pytest.approx(0.2 * there, abs=1.01)
    assert (part == 1).sum() == pytest.approx(200, abs=4)


def test_stratify_deals_few_rows_one_to_a_part() -> None:
    truth = np.zeros((50, 1), np.bool_)
    truth[[3, 14, 15, 26, 35]] = True
    part = stratify(truth, np.arange(50, dtype=np.int32), (0.2,) * 5, seed=0)
    assert sorted(part[truth[:, 0]].tolist()) == [0, 1, 2, 3, 4]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=6, max_size=40),
    st.integers(0, 3),
)
def test_stratify_keeps_groups_together(rows: list[tuple[bool, bool, int]], seed: int) -> None:
    groups = np.unique([row[2] for row in rows], return_inverse=True)[1].astype(np.int32)
    truth = np.array([row[:2] for row in rows])
    part = stratify(truth, groups, (0.5, 0.5), seed=seed)
    assert set(part.tolist()) <= {0, 1}
    for group in range(groups.max() + 1):
        assert len(set(part[groups == group].tolist())) == 1
    np.testing.assert_array_equal(part, stratify(truth, groups, (0.5, 0.5), seed=seed))
