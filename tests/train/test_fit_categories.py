"""Heads of single categories."""

from __future__ import annotations

import numpy as np
import pytest

from sprat.bundle_manifest import Thresholds
from sprat.head import sigmoid
from sprat.text.ngrams import with_ngrams
from sprat.train.fit_categories import (
    Examples,
    due_categories,
    fit_category,
    fit_platt,
    with_sparse_ngrams,
)


def test_fit_platt_finds_slope_and_offset() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 3, 20_000)
    truth = rng.random(20_000) < sigmoid(0.7 * scores - 1.2)
    platt = fit_platt(scores, truth)
    assert platt.slope == pytest.approx(0.7, abs=0.03)
    assert platt.offset == pytest.approx(-1.2, abs=0.06)


def test_fit_platt_never_becomes_certain_of_few_rows() -> None:
    scores = np.array([-9.0, -8.0, 8.0, 9.0])
    platt = fit_platt(scores, scores > 0)
    # Two of two count as three of four.
    np.testing.assert_allclose(platt.probabilities(scores)[[0, 3]], [0.25, 0.75], atol=0.03)


def test_fit_platt_makes_nothing_of_scores_that_say_the_opposite() -> None:
    scores = np.linspace(-3, 3, 50)
    platt = fit_platt(scores, scores < -1)
    assert platt.slope == 0
    assert platt.probabilities(scores).tolist() == [pytest.approx(17 / 50, abs=0.03)] * 50


def test_sparse_features_are_those_of_the_server() -> None:
    texts = ["A 1", "word", "FREE!!"]
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    sparse = with_sparse_ngrams(vectors, texts, 256)
    np.testing.assert_array_equal(sparse.toarray(), with_ngrams(vectors, texts, 256))
    assert with_sparse_ngrams(vectors, texts, 0) is vectors


def problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = rng.random(n) < sigmoid(8 * vectors[:, 0] - 4)
    return vectors, truth, (np.arange(n) % 5).astype(np.int32)


def test_fit_category_is_calibrated_on_rows_that_it_has_not_seen() -> None:
    vectors, truth, folds = problem(3000)
    head = fit_category(
        Examples(vectors, vectors, np.arange(3000)),
        truth,
        folds,
        name="x",
        class_weights="balanced",
    )
    assert head.out_of_fold.mean() == pytest.approx(truth.mean(), abs=0.01)
    assert head.chosen.nll == min(each.nll for each in head.candidates)
    made = sigmoid(vectors @ head.weight + head.bias)
    # The slope of the truth, though "balanced" moves what the head itself gives.
    assert np.abs(made - sigmoid(8 * vectors[:, 0] - 4)).mean() < 0.02


def test_fit_category_is_judged_by_the_highest_window() -> None:
    vectors, truth, folds = problem(400)
    # Each row has a second window that says nothing: lower than any other.
    nothing = np.tile(np.array([-1, 0, 0, 0, 0, 0], np.float32), (400, 1))
    windows = np.stack([vectors, nothing], axis=1).reshape(800, 6)
    alone = fit_category(Examples(vectors, vectors, np.arange(400)), truth, folds, name="x")
    padded = fit_category(Examples(vectors, windows, np.arange(0, 800, 2)), truth, folds, name="x")
    np.testing.assert_allclose(padded.out_of_fold, alone.out_of_fold, atol=0.05)
    # And where the second window is a copy of a positive row, that is what counts.
    loud = np.tile(vectors[truth][:1], (400, 1))
    windows = np.stack([vectors, loud], axis=1).reshape(800, 6)
    fooled = fit_category(Examples(vectors, windows, np.arange(0, 800, 2)), truth, folds, name="x")
    assert fooled.chosen.nll > alone.chosen.nll


def test_fit_categories_say_what_an_answer_is_due_to() -> None:
    """As the server says it: what blocks before what flags, then the more probable."""
    thresholds = (
        Thresholds(flag_at=0.5),
        Thresholds(flag_at=0.5, block_at=0.7),
        Thresholds(flag_at=0.2),
    )
    probability = np.array(
        [
            [0.99, 0.75, 0.1],  # The second one blocks.
            [0.6, 0.55, 0.1],
            [0.4, 0.4, 0.25],  # The last one is flagged, though less probable than the others.
            [0.4, 0.4, 0.1],
        ]
    )
    assert due_categories(probability, thresholds).tolist() == [1, 0, 2, 3]
