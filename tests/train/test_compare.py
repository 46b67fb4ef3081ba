"""Two classifiers side by side: the exact test, and an interval that holds what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sprat.train.compare import Comparison, Findings, compare, compare_findings, mcnemar


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


def findings(rows: list[tuple[str, ...]], wanted: list[tuple[str, ...]], names: str) -> Findings:
    """Sets of one-letter names that were found in texts, and that there are to find."""
    counts = [
        [(name in found and name in gold, name in found, name in gold) for name in names]
        for found, gold in zip(rows, wanted, strict=True)
    ]
    return Findings(tuple(names), tuple(map("+".join, rows)), np.array(counts, np.int64))


def test_compare_findings_are_wholes_and_parts() -> None:
    wanted: list[tuple[str, ...]] = [("a",), ("a", "b"), (), ("b",), ("a",)]
    # The first one misses a b, the second finds everything but one a, and a c that only it knows.
    first = findings([("a",), ("a",), (), ("b",), ("a",)], wanted, "ab")
    second = findings([("a",), ("a", "b"), ("c",), ("b",), ()], wanted, "bca")
    result = compare_findings(["+".join(each) for each in wanted], first, second, lines=range(1, 6))
    assert (result.rows.both_right, result.rows.only_first, result.rows.only_second) == (2, 2, 1)
    assert [each.line for each in result.rows.disagreements] == [2, 3, 5]
    assert [each.name for each in result.parts] == ["a", "b"]
    a, b = result.parts
    assert (a.first, a.second) == (1.0, 2 * 2 / (2 + 3))
    assert (b.first, b.second) == (2 * 1 / (1 + 2), 1.0)
    whole = result.micro_f1
    assert (whole.first, whole.second) == (2 * 4 / (4 + 5), 2 * 4 / (5 + 5))
    for each in (a, b, whole):
        assert each.difference.value == pytest.approx(each.first - each.second)
        assert each.difference.low <= each.difference.value <= each.difference.high
    assert result.message() == "No significant difference in micro-F1: its interval holds 0."


def test_compare_findings_tells_the_better_one_from_the_luckier_one() -> None:
    rng = np.random.default_rng(0)
    wanted = [("a",) if each else () for each in rng.random(400) < 0.5]
    good, bad = (
        findings(
            [gold if hit else () for gold, hit in zip(wanted, rng.random(400) < p, strict=True)],
            wanted,
            "a",
        )
        for p in (0.9, 0.6)
    )
    labels = list(map("+".join, wanted))
    better = compare_findings(labels, good, bad, lines=range(400))
    assert better.message().startswith("The first one has the significantly higher micro-F1")
    worse = compare_findings(labels, bad, good, lines=range(400))
    assert worse.message().startswith("The second one has the significantly higher micro-F1")
    assert worse.micro_f1.difference.high == pytest.approx(-better.micro_f1.difference.low)
    same = compare_findings(labels, good, good, lines=range(400))
    assert (same.micro_f1.difference.low, same.micro_f1.difference.high) == (0, 0)
    assert same.rows.p_value == 1
