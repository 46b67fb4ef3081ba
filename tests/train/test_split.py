"""Splits and folds: no text on both sides, every label on both, the same every time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import DataError, InvalidInput
from sprat.train.data import Dataset
from sprat.train.split import assign_folds, fold_texts, same_texts, split, split_texts


def make(rows: list[tuple[str, str]]) -> Dataset:
    texts, labels = zip(*rows, strict=True)
    return Dataset(texts, labels, tuple(range(1, len(rows) + 1)), "rows.csv")


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Two to four labels of three or more texts, many rows twice, some under two labels."""
    labels = "abcd"[: draw(st.integers(2, 4))]
    rows = []
    for label in labels:
        for number in range(draw(st.integers(3, 12))):
            copies = draw(st.sampled_from([1, 1, 1, 2, 5]))
            rows += [(f"text {label} {number}", label)] * copies
    stray = draw(st.lists(st.tuples(st.sampled_from(rows), st.sampled_from(labels)), max_size=3))
    shuffled = draw(st.permutations(rows))
    return make([*shuffled, *((text, label) for (text, _), label in stray)])


seeds = st.integers(0, 2**32 - 1)


@given(datasets(), st.floats(0.01, 0.99), seeds)
def test_split_never_leaks_a_text_and_loses_no_row(data: Dataset, share: float, seed: int) -> None:
    train, held = split(data, share, seed=seed)
    assert not set(train.texts) & set(held.texts)
    assert Counter(train.lines + held.lines) == Counter(data.lines)
    assert list(train.lines) == sorted(train.lines)
    assert list(held.lines) == sorted(held.lines)
    assert set(train.labels) == set(data.labels)
    by_line = dict(zip(data.lines, zip(data.texts, data.labels, strict=True), strict=True))
    for part in (train, held):
        for line, text, label in zip(part.lines, part.texts, part.labels, strict=True):
            assert by_line[line] == (text, label)
    # What was cut can be cut into folds.
    assign_folds(train, seed=seed)


@given(datasets(), seeds)
def test_split_folds_never_share_a_text_and_know_every_label(data: Dataset, seed: int) -> None:
    folds = assign_folds(data, seed=seed)
    count = folds.max() + 1
    assert 2 <= count <= 5
    assert len({(t, f) for t, f in zip(data.texts, folds.tolist(), strict=True)}) == len(
        set(data.texts)
    )
    targets = data.targets(sorted(set(data.labels)))
    for fold in range(count):
        assert (folds == fold).any()
        assert set(targets[folds != fold]) == set(targets)


def test_split_is_stratified_and_near_the_share() -> None:
    data = make([(f"t{i}", "common" if i % 10 else "rare") for i in range(500)])
    train, held = split(data, 0.2, seed=3)
    assert Counter(held.labels) == {"common": 90, "rare": 10}
    assert Counter(train.labels) == {"common": 360, "rare": 40}


def test_split_holds_out_one_text_of_the_rarest_label() -> None:
    data = make([(f"t{i}", "common") for i in range(97)] + [(f"r{i}", "rare") for i in range(3)])
    train, held = split(data, 0.05, seed=0)
    assert Counter(held.labels)["rare"] == 1
    train, held = split(data, 0.99, seed=0)
    assert Counter(train.labels) == {"common": 2, "rare": 2}


def test_split_keeps_a_text_of_many_rows_together() -> None:
    data = make(
        [("same", "a")] * 50
        + [(f"a{i}", "a") for i in range(50)]
        + [(f"b{i}", "b") for i in range(20)]
    )
    for seed in range(10):
        train, held = split(data, 0.2, seed=seed)
        # All 50 would overshoot the goal of 20 by more than their half.
        assert "same" in train.texts
        assert Counter(held.labels) == {"a": 20, "b": 4}


def test_split_depends_on_the_seed_alone() -> None:
    data = make([(f"t{i}", "ab"[i % 2]) for i in range(60)])
    assert split(data, 0.3, seed=1) == split(data, 0.3, seed=1)
    assert split(data, 0.3, seed=1) != split(data, 0.3, seed=2)
    assert (assign_folds(data, seed=1) == assign_folds(data, seed=1)).all()
    assert (assign_folds(data, seed=1) != assign_folds(data, seed=2)).any()


def test_split_folds_are_balanced() -> None:
    data = make([(f"t{i}", "abcdefg"[i % 7]) for i in range(7 * 6)])
    folds = assign_folds(data, seed=0)
    assert np.ptp(np.bincount(folds)) <= 1
    few = make([(f"t{i}", "ab"[i >= 3]) for i in range(30)])
    assert assign_folds(few, seed=0).max() + 1 == 3


def test_split_texts_that_differ_in_case_and_space_are_the_same() -> None:
    texts = [
        "Where is it?",
        " where  IS\nit? ",
        "where is it",
        "\N{FULLWIDTH LATIN SMALL LETTER W}here is it?",
        "Straße",
        "STRASSE",
    ]
    assert same_texts(texts).tolist() == [0, 0, 1, 0, 2, 2]


def test_split_names_labels_with_too_few_texts() -> None:
    rows = [(f"t{i}", "plenty") for i in range(9)] + [("one", "twice")] * 5 + [("b", "once")]
    with pytest.raises(DataError) as caught:
        split(make(rows), 0.2, seed=0)
    assert caught.value.message == (
        "rows.csv: expected 3 or more different texts of each label, found fewer of "
        "'once' (1), 'twice' (1)"
    )
    with pytest.raises(DataError, match=r"expected 2 or more different .* 'once' \(1\)"):
        assign_folds(make(rows), seed=0)
    many = [(f"t{i}", f"label{i:02}") for i in range(25)]
    with pytest.raises(DataError, match=r"'label09' \(1\) and 15 more$"):
        assign_folds(make(many), seed=0)
    with pytest.raises(DataError, match="expected 2 or more labels, found 1"):
        assign_folds(make(rows[:9]), seed=0)


def test_split_counts_a_text_of_two_labels_for_the_first() -> None:
    rows = [(f"t{i}", "a") for i in range(6)] + [("t0", "b"), ("t1", "b"), ("own", "b")]
    with pytest.raises(DataError, match=r"'b' \(1\)"):
        assign_folds(make(rows), seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_split_refuses_a_share_out_of_range(share: float) -> None:
    with pytest.raises(InvalidInput, match="held_out: expected above 0 and below 1"):
        split(make([("a", "a"), ("b", "b")]), share, seed=0)


def test_split_of_texts_without_labels_keeps_the_same_together() -> None:
    texts = [f"text {n % 20}" for n in range(60)]
    kept, held = split_texts(texts, 0.25, seed=1, path="rows.jsonl")
    assert sorted([*kept, *held]) == list(range(60))
    assert len({texts[row] for row in held}) == 5
    assert not {texts[row] for row in kept} & {texts[row] for row in held}
    assert split_texts(texts, 0.25, seed=1, path="rows.jsonl") == (kept, held)
    with pytest.raises(DataError, match="expected 2 or more different texts, found 1"):
        split_texts(["a", "A "], 0.5, seed=0, path="rows.jsonl")


@pytest.mark.parametrize("seed", range(5))
def test_split_deals_kinds_of_texts_evenly_over_folds(seed: int) -> None:
    texts = [f"text {n % 40}" for n in range(80)]
    kinds = np.array([n % 40 < 10 for n in range(80)], np.int32)
    folds = fold_texts(texts, seed=seed, kinds_n=kinds)
    assert (folds[:40] == folds[40:]).all()
    assert [int(kinds[folds == fold].sum()) for fold in range(5)] == [4] * 5
    assert np.bincount(folds).tolist() == [16] * 5
