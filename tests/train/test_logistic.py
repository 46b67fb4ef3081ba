"""Logistic regression for calibrations, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sprat.train.logistic import fit_logistic, platt_aims


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count, 3))
    chance = 1 / (1 + np.exp(-(features @ [2.0, -1.0, 0.0] + 0.5)))
    return features, rng.random(count) < chance


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_logistic_finds_what_scikit_learn_finds(ridge: float) -> None:
    features, truth = rows(300, 1)
    design = np.column_stack([features, np.ones(300)])
    penalty = np.array([ridge] * 3 + [0.0])
    *weights, bias = fit_logistic(design, truth.astype(float), np.zeros(4), penalty)
    other = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=1000).fit(features, truth)
    assert weights == pytest.approx(other.coef_[0].tolist(), abs=1e-4)
    assert bias == pytest.approx(other.intercept_[0], abs=1e-4)


def test_logistic_of_rows_that_can_be_parted_stays_finite() -> None:
    features = np.linspace(-1, 1, 20)[:, None]
    truth = features[:, 0] > 0
    design = np.column_stack([features, np.ones(20)])
    found = fit_logistic(design, platt_aims(truth), np.zeros(2), np.zeros(2))
    assert np.isfinite(found).all()
    assert found[0] > 0


@pytest.mark.parametrize("truth", [True, False])
def test_logistic_of_one_kind_is_a_constant(truth: bool) -> None:
    design = np.column_stack([np.linspace(-1, 1, 20), np.ones(20)])
    aims = platt_aims(np.full(20, truth))
    slope, bias = fit_logistic(design, aims, np.zeros(2), np.array([1.0, 0.0]))
    assert slope == pytest.approx(0, abs=1e-9)
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(21 / 22 if truth else 1 / 22)


def test_logistic_aims_are_never_certain() -> None:
    assert platt_aims(np.array([True, True, False])).tolist() == [0.75, 0.75, 1 / 3]
