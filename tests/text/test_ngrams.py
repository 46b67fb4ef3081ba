"""Runs of characters as features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.text.ngrams import ngram_features, with_ngrams

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from([2, 64, 4096]))
def test_ngrams_are_unit_rows_of_equal_values(given_texts: list[str], buckets: int) -> None:
    features = ngram_features(given_texts, buckets)
    assert features.shape == (len(given_texts), buckets)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    for row in features:
        assert len(np.unique(row[row > 0])) == 1


def test_ngrams_count_the_runs_of_a_text() -> None:
    # " ab ": 3 different characters, 3 pairs, 2 triples.
    assert np.count_nonzero(ngram_features(["ab"], 1 << 20)) == 8


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("call 0800", "call 9131", True),  # digits are one
        ("two  words", "two\n\twords ", True),  # so is white space
        ("FREE", "free", False),  # case is not
        ("ab", "ba", False),
        ("naïve", "naive", False),
        ("٣", "3", False),  # only 0 to 9 are
    ],
)
def test_ngrams_see_what_vectors_do_not(one: str, other: str, same: bool) -> None:
    features = ngram_features([one, other], 4096)
    assert np.array_equal(features[0], features[1]) == same


def test_ngrams_are_the_same_everywhere() -> None:
    # A bundle carries weights for these very buckets: another hash would make them noise.
    assert np.flatnonzero(ngram_features(["a1"], 4096)).tolist() == [
        94,
        339,
        913,
        954,
        967,
        1110,
        2573,
        2648,
    ]


def test_with_ngrams_puts_them_behind_the_vectors() -> None:
    vectors = np.ones((2, 3), np.float32)
    made = with_ngrams(vectors, ["a", "b"], 8)
    np.testing.assert_array_equal(made[:, :3], vectors)
    np.testing.assert_array_equal(made[:, 3:], ngram_features(["a", "b"], 8))
    assert with_ngrams(vectors, ["a", "b"], 0) is vectors
