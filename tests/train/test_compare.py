"""Two classifiers side by side: the exact test, and an interval that holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sprat.train.compare import Comparison, compare, mcnemar


@given(st.integers(0, 400), st.integers(0, 400))
def test_compare_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_compare_mcnemar_of_many_rows_is_finite() -> None:
    assert mcnemar(50_000, 50_000) == 1
    assert 0 <= mcnemar(20_000, 60_000) < 1e-100


def answers(pattern: str) -> Comparison:
    """Rows: b both right, f only the first, s only the second, w both wrong, d wrong apart."""
    first = ["right" if p in "bf" else "wrong" for p in pattern]
    second = ["right" if p in "bs" else "other" if p == "d" else "wrong" for p in pattern]
    lines = range(11, 11 + len(pattern))
    return compare(["right"] * len(pattern), first, second, lines=lines)


def test_compare_counts_rows_by_who_is_right() -> None:
    result = answers("bbbffswd")
    assert (result.n, result.both_right, result.both_wrong) == (8, 3, 2)
    assert (result.only_first, result.only_second) == (2, 1)
    assert result.difference.value == 1 / 8
    assert result.difference.low <= 1 / 8 <= result.difference.high
    assert result.p_value == mcnemar(2, 1)
    shown = [(d.line, d.first, d.second) for d in result.disagreements]
    assert shown == [
        (14, "right", "wrong"),
        (15, "right", "wrong"),
        (16, "wrong", "right"),
        (18, "wrong", "other"),
    ]


def test_compare_equal_classifiers_do_not_differ() -> None:
    result = answers("bbbbwww")
    assert result.p_value == 1
    assert (result.difference.low, result.difference.high) == (0, 0)
    assert result.disagreements == ()
    assert result.message() == "No significant difference (p = 1)."


def test_compare_names_the_better_one() -> None:
    assert "The first one is significantly" in answers("b" * 50 + "f" * 12).message()
    assert "The second one is significantly" in answers("b" * 50 + "s" * 12).message()


def test_compare_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        # Truth: 0.80 - 0.75.
        pattern = "".join(rng.choice(list("bfsw"), 300, p=[0.7, 0.1, 0.05, 0.15]))
        difference = answers(pattern).difference
        covered += difference.low <= 0.05 <= difference.high
    assert covered >= 178
