"""Suspected label errors and confusing pairs, from probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from sprat.train.categories import CategoryData
from sprat.train.data import Dataset
from sprat.train.suspects import (
    category_suspects,
    confusing_pairs,
    find_suspects,
    rank_rows,
)

LABELS = ("a", "b", "c")
PROBABILITIES = np.array(
    [
        [0.9, 0.05, 0.05],  # right
        [0.1, 0.8, 0.1],  # an a that looks like a b, surely
        [0.4, 0.5, 0.1],  # an a that looks a little like a b: less than a b usually does
        [0.1, 0.85, 0.05],
        [0.3, 0.4, 0.3],
        [0.0, 0.0, 1.0],
        [0.95, 0.02, 0.03],  # a c that is an a
    ]
)
TARGETS = np.array([0, 0, 0, 1, 1, 2, 2], np.int32)
DATA = Dataset(
    tuple(f"text {i}" for i in range(7)),
    tuple(LABELS[t] for t in TARGETS),
    tuple(range(10, 17)),
    "rows.csv",
)


def test_suspects_are_rows_with_a_confident_other_label_the_worst_first() -> None:
    found = find_suspects(DATA, PROBABILITIES, TARGETS, LABELS)
    assert [(s.line, s.label, s.suggested) for s in found] == [(16, "c", "a"), (11, "a", "b")]
    assert found[0].confidence == pytest.approx(0.03)
    assert found[0].suggested_confidence == pytest.approx(0.95)
    assert found[0].text == "text 6"


def test_suspects_ranking_holds_every_row_by_its_margin() -> None:
    assert rank_rows(PROBABILITIES, TARGETS).tolist() == [6, 1, 2, 4, 3, 0, 5]


def test_suspects_of_good_labels_are_none() -> None:
    good = np.eye(3)[TARGETS] * 0.8 + 0.2 / 3
    assert find_suspects(DATA, good, TARGETS, LABELS) == ()
    assert confusing_pairs(good, TARGETS, LABELS) == ()


def test_suspects_confusing_pairs_count_both_ways() -> None:
    first, second = confusing_pairs(PROBABILITIES, TARGETS, LABELS)
    assert (first.a, first.b, first.a_as_b, first.b_as_a) == ("a", "b", 2, 0)
    assert first.share == pytest.approx(2 / 5)
    assert (second.a, second.b, second.a_as_b, second.b_as_a) == ("a", "c", 0, 1)
    assert second.share == pytest.approx(1 / 5)


def test_category_suspects_ask_about_each_category_alone() -> None:
    data = CategoryData(
        tuple(f"text {i}" for i in range(6)),
        (("a",), ("a", "b"), (), ("b",), (), ()),
        tuple(range(1, 7)),
        "rows.jsonl",
    )
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.9], [0.95, 0.1], [0.1, 0.02], [0.1, 0.1], [0.2, 0.2]]
    )
    found = category_suspects(data, probabilities, ("a", "b"))
    shown = {
        name: [(each.line, each.label, each.suggested) for each in rows]
        for name, rows in found.items()
    }
    # Line 3 misses an a; line 4 has a b that nothing speaks for.
    assert shown == {"a": [(3, "not a", "a")], "b": [(4, "b", "not b")]}
    (missing,) = found["a"]
    assert (missing.suggested_confidence, missing.text) == (0.95, "text 2")
