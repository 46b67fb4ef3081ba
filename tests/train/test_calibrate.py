"""Temperature: the best one, found whatever the scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.train.calibrate import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_temperature,
    log_softmax,
    nll,
)
from sprat.values import FloatArray, IntArray


def honest_rows(n: int, k: int, temperature: float, seed: int) -> tuple[FloatArray, IntArray]:
    """Logits whose softmax at ``temperature`` is exactly the chance of each label."""
    rng = np.random.default_rng(seed)
    log_p = rng.normal(0, 2, (n, k))
    p = np.exp(log_softmax(log_p.astype(np.float32), 1))
    targets = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return (log_p * temperature).astype(np.float32), np.minimum(targets, k - 1).astype(np.int32)


def objective(logits: FloatArray, targets: IntArray, temperature: float) -> float:
    """The smoothed likelihood as `fit_temperature` documents it, written down directly."""
    n, k = logits.shape
    log_p = log_softmax(logits, temperature)
    right = log_p[np.arange(n), targets]
    doubt = 1 / (n + 2)
    others = (log_p.sum(axis=1) - right) / (k - 1)
    return float(-((1 - doubt) * right + doubt * others).mean())


@pytest.mark.parametrize("true", [0.1, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("k", [2, 10])
def test_calibrate_recovers_the_temperature_that_made_the_labels(true: float, k: int) -> None:
    fitted = fit_temperature(*honest_rows(20_000, k, true, seed=k))
    assert math.isclose(fitted, true, rel_tol=0.05)


@given(st.integers(1, 60), st.integers(2, 6), st.floats(0.05, 20), st.integers(0, 10_000))
def test_calibrate_no_other_temperature_is_better(n: int, k: int, true: float, seed: int) -> None:
    logits, targets = honest_rows(n, k, true, seed)
    fitted = fit_temperature(logits, targets)
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    least = objective(logits, targets, fitted)
    for other in np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 60):
        assert least <= objective(logits, targets, other) + 1e-9


@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(-50, 50))
def test_calibrate_follows_scale_and_ignores_offset(seed: int, scale: float, offset: float) -> None:
    logits, targets = honest_rows(50, 4, 1.0, seed)
    fitted = fit_temperature(logits, targets)
    other = fit_temperature(((logits + offset) * scale).astype(np.float32), targets)
    if MIN_TEMPERATURE * 1.01 < other < MAX_TEMPERATURE * 0.99 and fitted < MAX_TEMPERATURE:
        assert math.isclose(other, fitted * scale, rel_tol=1e-2)


@pytest.mark.parametrize("n", [4, 40, 400, 4000])
def test_calibrate_rows_without_an_error_do_not_make_certainty(n: int) -> None:
    targets = (np.arange(n) % 4).astype(np.int32)
    logits = np.eye(4, dtype=np.float32)[targets]
    confidence = np.exp(log_softmax(logits, fit_temperature(logits, targets))).max(axis=1)
    np.testing.assert_allclose(confidence, (n + 1) / (n + 2), rtol=1e-5)


def test_calibrate_degenerate_scores_hit_the_bounds() -> None:
    targets = np.array([0, 1, 0], np.int32)
    assert fit_temperature(np.zeros((3, 2), np.float32), targets) == MAX_TEMPERATURE
    wrong = np.array([[0, 9], [9, 0], [0, 9]], np.float32)
    assert fit_temperature(wrong, targets) == MAX_TEMPERATURE
    assert fit_temperature(-wrong * np.float32(1e-6), targets) == MIN_TEMPERATURE
    huge = fit_temperature(-wrong * np.float32(1e30), targets)
    assert huge == MAX_TEMPERATURE


def test_calibrate_nll_is_finite_where_a_probability_rounds_to_zero() -> None:
    logits = np.array([[0.0, 5000.0]], np.float32)
    assert nll(logits, np.array([0], np.int32), 1.0) == pytest.approx(5000)
    assert nll(logits, np.array([1], np.int32), 1.0) == 0
