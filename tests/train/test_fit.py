"""Heads: the regression that scikit-learn would fit, chosen and calibrated on unseen scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from sprat.errors import SetupError
from sprat.train.calibrate import fit_temperature, log_softmax, nll
from sprat.train.data import Dataset
from sprat.train.fit import REGULARIZATION, TOLERANCE, Head, fit_head
from sprat.train.split import assign_folds
from sprat.values import FloatArray, IntArray

Embed = Callable[[Sequence[str]], FloatArray]
Rows = tuple[FloatArray, IntArray, IntArray]


@pytest.fixture(scope="module")
def rows(embed: Embed, dataset: Callable[..., Dataset]) -> Rows:
    return vectors_of(dataset(240), embed)


def vectors_of(data: Dataset, embed: Embed) -> Rows:
    targets = data.targets(sorted(set(data.labels)))
    return embed(data.texts), targets, assign_folds(data, seed=0)


@pytest.fixture(scope="module")
def head(rows: Rows) -> Head:
    return fit_head(*rows)


def test_fit_head_is_the_regression_on_all_rows(rows: Rows, head: Head) -> None:
    vectors, targets, _ = rows
    c = head.chosen.regularization
    oracle = LogisticRegression(C=c, tol=TOLERANCE, max_iter=1000).fit(vectors, targets)
    np.testing.assert_allclose(
        np.exp(log_softmax(vectors @ head.weight.T + head.bias, 1.0)),
        oracle.predict_proba(vectors),
        atol=1e-5,
    )
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.weight.shape == (3, vectors.shape[1])
    assert head.bias.shape == (3,)


def test_fit_head_of_two_labels_has_two_rows(embed: Embed, dataset: Callable[..., Dataset]) -> None:
    vectors, targets, folds = vectors_of(dataset(120, topics=("billing", "delivery")), embed)
    head = fit_head(vectors, targets, folds)
    c = head.chosen.regularization
    oracle = LogisticRegression(C=c, tol=TOLERANCE, max_iter=1000).fit(vectors, targets)
    assert head.weight.shape == (2, vectors.shape[1])
    np.testing.assert_allclose(
        np.exp(log_softmax(vectors @ head.weight.T + head.bias, 1.0)),
        oracle.predict_proba(vectors),
        atol=1e-5,
    )


def test_fit_chooses_by_scores_of_heads_that_have_not_seen_the_rows(rows: Rows, head: Head) -> None:
    vectors, targets, folds = rows
    logits = np.empty((len(targets), 3), np.float32)
    for fold in range(5):
        out = folds == fold
        model = LogisticRegression(C=head.chosen.regularization, tol=TOLERANCE, max_iter=1000)
        logits[out] = model.fit(vectors[~out], targets[~out]).decision_function(vectors[out])
    assert head.chosen.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-3)
    assert head.chosen.nll == pytest.approx(nll(logits, targets, head.chosen.temperature), rel=1e-3)
    # Scores of rows that a head has seen would have asked for a surer temperature.
    seen = vectors @ head.weight.T + head.bias
    assert head.chosen.temperature > fit_temperature(seen, targets)


@pytest.mark.parametrize("noise", [0.0, 0.5, 3.0])
def test_fit_searches_to_both_sides_until_it_gets_worse(rows: Rows, noise: float) -> None:
    vectors, targets, folds = rows
    rng = np.random.default_rng(0)
    vectors = vectors + noise * rng.standard_normal(vectors.shape, np.float32)
    head = fit_head(vectors, targets, folds)
    tried = [c.regularization for c in head.candidates]
    first = REGULARIZATION.index(tried[0])
    assert tried == list(REGULARIZATION[first : first + len(tried)])
    assert 16.0 in tried
    best = head.candidates.index(head.chosen)
    assert head.chosen.nll == min(c.nll for c in head.candidates)
    # The neighbours of the chosen one were tried, where there are any.
    assert best > 0 or tried[0] == REGULARIZATION[0]
    assert best < len(tried) - 1 or tried[-1] == REGULARIZATION[-1]


def test_fit_the_same_input_gives_the_same_head(rows: Rows, head: Head) -> None:
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
    assert watch.phases[0] == "try C=4 on 5 folds"
    assert len(watch.phases) == len(head.candidates) + 1
    assert watch.phases[-1] == f"fit the head on 240 rows with C={head.chosen.regularization:g}"


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
