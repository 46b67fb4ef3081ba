"""Near duplicates: found where a plain comparison of all pairs finds them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.train.duplicates import GRAM, NEAR, near_duplicates
from sprat.train.split import text_key


def similarity(a: str, b: str) -> float:
    sets = []
    for text in (a, b):
        padded = f" {text_key(text)} ".ljust(GRAM)
        sets.append({padded[i : i + GRAM] for i in range(len(padded) - GRAM + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@given(
    texts=st.lists(st.text("ab c", min_size=1, max_size=24), max_size=25),
    share=st.floats(0, 1),
)
def test_duplicates_agree_with_all_pairs(texts: list[str], share: float) -> None:
    among = round(share * len(texts))
    found = near_duplicates(texts, among)
    for row, text in enumerate(texts):
        near = [
            other
            for other in range(min(row, among))
            if text_key(texts[other]) != text_key(text) and similarity(text, texts[other]) >= NEAR
        ]
        assert (row in found) == bool(near)
        if near:
            assert found[row].row < min(row, among)
            assert found[row].similarity == pytest.approx(similarity(text, texts[found[row].row]))


def test_duplicates_a_letter_apart_and_a_word_apart() -> None:
    texts = [
        "where is the parcel that I ordered last week?",
        "Where is the parcels that I  ordered last week",
        "where is the refund that I ordered last week?",
        "WHERE is the parcel that I ordered last week?",
    ]
    assert {row: match.row for row, match in near_duplicates(texts, 4).items()} == {1: 0, 3: 1}


def test_duplicates_long_texts_are_compared_by_their_beginning() -> None:
    rng = random.Random(0)
    begin = "".join(rng.choices("abcdefgh ", k=10_000))
    texts = [begin + "x" * 100_000, begin + "y" * 50_000, "z" + begin[::-1]]
    found = near_duplicates(texts, 3)
    assert list(found) == [1]
    assert found[1].similarity == 1


def test_duplicates_of_thousands_made_from_one_template_are_found_quickly() -> None:
    texts = [f"please cancel my order number {number} today" for number in range(5000)]
    found = near_duplicates(texts, len(texts))
    # One comparison for each, not five thousand: else this test runs into its time limit.
    assert len(found) > 4900


def test_duplicates_of_nothing() -> None:
    assert near_duplicates([], 0) == {}
    assert near_duplicates(["?", "!", ".."], 3) == {}
