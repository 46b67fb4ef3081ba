"""Heads: the regression that scikit-learn would fit, chosen and calibrated on unseen scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from sprat.errors import SetupError
from sprat.train import fit
from sprat.train.calibrate import fit_temperature, log_softmax, nll
from sprat.train.data import Dataset
from sprat.train.fit import REGULARIZATION, TOLERANCE, WHITENING, FittedHead, fit_head
from sprat.train.split import assign_folds
from sprat.values import FloatArray, IntArray

Embed = Callable[[Sequence[str]], FloatArray]
Rows = tuple[FloatArray, IntArray, IntArray]
Oracle = Callable[[FloatArray], FloatArray]


def oracle(head: FittedHead, vectors: FloatArray, targets: IntArray, **options: Any) -> Oracle:
    """Fits what was chosen from its definition; returns logits of vectors."""
    covariance = np.cov(vectors.T)
    values, axes = np.linalg.eigh(covariance)
    values = values.clip(0) + 1e-3 * values.mean()
    scales = values**-head.chosen.whitening
    scales *= np.sqrt(values.sum() / (values * scales**2).sum())
    stretch = ((axes * scales) @ axes.T).astype(np.float32)
    model = LogisticRegression(
        C=head.chosen.regularization, tol=TOLERANCE, max_iter=1000, **options
    ).fit(vectors @ stretch, targets)

    def logits(others: FloatArray) -> FloatArray:
        scores = model.decision_function(others @ stretch)
        if scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1) / 2
        return scores.astype(np.float32)

    return logits


@pytest.fixture(scope="module")
def rows(embed: Embed, dataset: Callable[..., Dataset]) -> Rows:
    return vectors_of(dataset(240), embed)


def vectors_of(data: Dataset, embed: Embed) -> Rows:
    targets = data.targets(sorted(set(data.labels)))
    return embed(data.texts), targets, assign_folds(data, seed=0)


@pytest.fixture(scope="module")
def head(rows: Rows) -> FittedHead:
    return fit_head(*rows)


def test_fit_head_is_the_regression_on_all_rows(rows: Rows, head: FittedHead) -> None:
    vectors, targets, _ = rows
    expected = oracle(head, vectors, targets)(vectors)
    np.testing.assert_allclose(
        np.exp(log_softmax(vectors @ head.weight.T + head.bias, 1.0)),
        np.exp(log_softmax(expected, 1.0)),
        atol=0.01,
    )
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.weight.shape == (3, vectors.shape[1])
    assert head.bias.shape == (3,)


def test_fit_head_of_two_labels_has_two_rows(embed: Embed, dataset: Callable[..., Dataset]) -> None:
    vectors, targets, folds = vectors_of(dataset(120, topics=("billing", "delivery")), embed)
    head = fit_head(vectors, targets, folds)
    expected = oracle(head, vectors, targets)(vectors)
    assert head.weight.shape == (2, vectors.shape[1])
    np.testing.assert_allclose(
        np.exp(log_softmax(vectors @ head.weight.T + head.bias, 1.0)),
        np.exp(log_softmax(expected, 1.0)),
        atol=0.01,
    )


def test_fit_chooses_by_scores_of_heads_that_have_not_seen_the_rows(
    rows: Rows, head: FittedHead
) -> None:
    vectors, targets, folds = rows
    logits = np.empty((len(targets), 3), np.float32)
    for fold in range(5):
        out = folds == fold
        logits[out] = oracle(head, vectors[~out], targets[~out])(vectors[out])
    assert head.chosen.temperature == pytest.approx(fit_temperature(logits, targets), rel=0.02)
    assert head.chosen.nll == pytest.approx(nll(logits, targets, head.chosen.temperature), rel=0.02)
    assert head.out_of_fold.dtype == np.float32
    np.testing.assert_allclose(head.out_of_fold, logits, atol=0.1)
    # Scores of rows that a head has seen would have promised more.
    seen = vectors @ head.weight.T + head.bias
    assert nll(seen, targets, fit_temperature(seen, targets)) < head.chosen.nll - 0.05


def test_fit_balanced_class_weights_find_more_of_a_rare_label(
    embed: Embed, dataset: Callable[..., Dataset]
) -> None:
    data = dataset(600)
    rare = [i for i, label in enumerate(data.labels) if label == "billing"]
    data = data.take(sorted({*range(600)} - {*rare[20:]}))
    vectors, targets, folds = vectors_of(data, embed)
    assert np.bincount(targets)[0] == 20
    found = {}
    for weights in ("none", "balanced"):
        head = fit_head(vectors, targets, folds, class_weights=weights)
        answers = head.out_of_fold.argmax(axis=1)
        found[weights] = int((answers[targets == 0] == 0).sum())
        options = {"class_weight": "balanced"} if weights == "balanced" else {}
        expected = oracle(head, vectors, targets, **options)(vectors)
        logits = vectors @ head.weight.T + head.bias
        np.testing.assert_allclose(
            np.exp(log_softmax(logits, 1.0)), np.exp(log_softmax(expected, 1.0)), atol=0.01
        )
    assert found["balanced"] > found["none"]


@pytest.mark.parametrize("noise", [0.0, 0.5, 3.0])
def test_fit_searches_on_until_it_gets_worse(rows: Rows, noise: float) -> None:
    vectors, targets, folds = rows
    rng = np.random.default_rng(0)
    vectors = vectors + noise * rng.standard_normal(vectors.shape, np.float32)
    head = fit_head(vectors, targets, folds)
    found = {(c.regularization, c.whitening): c.nll for c in head.candidates}
    assert len(found) == len(head.candidates)
    chosen = head.chosen
    assert chosen.nll == min(found.values())
    # Strength and whitening around the chosen one were tried, where there are any.
    at = REGULARIZATION.index(chosen.regularization)
    for neighbour in REGULARIZATION[max(0, at - 1) : at + 2]:
        assert found[neighbour, chosen.whitening] >= chosen.nll
    power = WHITENING.index(chosen.whitening)
    for neighbour in WHITENING[: power + 2]:
        assert found[16.0, neighbour] >= found[16.0, chosen.whitening]


def test_fit_whitening_helps_where_long_directions_say_nothing() -> None:
    rng = np.random.default_rng(0)
    targets = (np.arange(400) % 2).astype(np.int32)
    # The label is in a short direction; a hundred times the variance is noise.
    vectors = rng.normal(0, 1, (400, 20)).astype(np.float32)
    vectors[:, 0] = 0.1 * (2 * targets - 1 + rng.normal(0, 0.7, 400))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    head = fit_head(vectors, targets, (np.arange(400) // 2 % 5).astype(np.int32))
    assert head.chosen.whitening > 0
    plain = next(c for c in head.candidates if c.whitening == 0)
    assert head.chosen.nll < plain.nll


def test_fit_searches_large_data_on_some_folds_and_calibrates_on_all(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, targets, folds = rows
    monkeypatch.setattr(fit, "SEARCH_ROWS", 90)
    watch = Watch()
    head = fit_head(vectors, targets, folds, progress=watch)
    assert "on 2 of 5 folds" in watch.phases[0]
    assert head.calibration.rows == len(targets)
    assert np.isfinite(head.out_of_fold).all()
    logits = np.empty((len(targets), 3), np.float32)
    for fold in range(5):
        out = folds == fold
        logits[out] = oracle(head, vectors[~out], targets[~out])(vectors[out])
    np.testing.assert_allclose(head.out_of_fold, logits, atol=0.1)
    few = folds < 2
    assert head.chosen.temperature == pytest.approx(
        fit_temperature(logits[few], targets[few]), rel=0.02
    )


def test_fit_the_same_input_gives_the_same_head(rows: Rows, head: FittedHead) -> None:
    again = fit_head(*rows)
    assert again.candidates == head.candidates
    assert again.weight.tobytes() == head.weight.tobytes()
    assert again.bias.tobytes() == head.bias.tobytes()


class Watch:
    """A progress that notes what it is told, and how many threads the libraries may use."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.threads: set[int] = set()

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append(text)
        self.threads |= {library["num_threads"] for library in threadpool_info()}

    def advance(self, size: int) -> None:
        raise AssertionError("nothing to count")


def test_fit_keeps_to_its_threads_and_tells_what_it_does(rows: Rows) -> None:
    watch = Watch()
    head = fit_head(*rows, progress=watch)
    assert watch.threads == {1}
    assert watch.phases[0] == "try C=16, whitening 0.15 on 5 of 5 folds"
    assert len(watch.phases) == len(head.candidates) + 2
    assert watch.phases[-1].startswith(
        f"fit the head on 240 rows with C={head.chosen.regularization:g}"
    )


def test_fit_says_what_to_install(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(SetupError, match=r"pip install 'sprat\[train\]'"):
        fit_head(*rows)


def test_fit_takes_vectors_that_say_nothing() -> None:
    vectors = np.ones((20, 4), np.float32) / 2
    targets = np.array([0, 1] * 10, np.int32)
    folds = np.repeat(np.arange(5, dtype=np.int32), 4)
    head = fit_head(vectors, targets, folds)
    logits = vectors @ head.weight.T + head.bias
    probabilities = np.exp(log_softmax(logits, head.chosen.temperature))
    np.testing.assert_allclose(probabilities, 0.5, atol=0.01)
