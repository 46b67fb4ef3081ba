"""Temperature and curve: the best ones, found whatever the scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.train.calibrate import (
    ISOTONIC_ROWS,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    confidence_loss,
    fit_calibration,
    fit_isotonic,
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


# -- isotonic curves -------------------------------------------------------------------------


def overconfident_rows(n: int, seed: int) -> tuple[FloatArray, IntArray]:
    """Rows that no temperature calibrates: above 0.75 answers are right three times in four."""
    rng = np.random.default_rng(seed)
    best = rng.uniform(0.5, 0.999, n)
    logits = np.stack([np.log(best), np.log(1 - best)], axis=1).astype(np.float32)
    return logits, (rng.random(n) >= np.minimum(best, 0.75)).astype(np.int32)


def test_calibrate_takes_a_curve_where_no_temperature_fits() -> None:
    logits, targets = overconfident_rows(6000, seed=1)
    fit = fit_calibration(logits, targets)
    assert fit.calibration.isotonic
    assert fit.isotonic_loss is not None
    assert fit.temperature_loss is not None
    assert fit.isotonic_loss < fit.temperature_loss
    fresh, truth = overconfident_rows(20_000, seed=2)
    best = np.exp(log_softmax(fresh, fit.calibration.temperature).max(axis=1))
    right = log_softmax(fresh, 1.0).argmax(axis=1) == truth
    confidence = confidences(best, fit.calibration)
    for low, high in ((0.0, 0.65), (0.65, 0.72), (0.72, 1.0)):
        inside = (confidence >= low) & (confidence < high)
        if inside.sum() > 500:
            assert confidence[inside].mean() == pytest.approx(right[inside].mean(), abs=0.03)
    plain = fit.calibration.model_copy(update={"isotonic": ()})
    assert (
        confidence_loss(fresh, truth, fit.calibration).mean()
        < confidence_loss(fresh, truth, plain).mean()
    )


@pytest.mark.parametrize("seed", range(5))
def test_calibrate_keeps_to_the_temperature_where_it_fits(seed: int) -> None:
    fit = fit_calibration(*honest_rows(2000, 4, 1.5, seed))
    assert fit.calibration.isotonic == ()
    assert fit.calibration.temperature == pytest.approx(1.5, rel=0.15)
    assert fit.rows == 2000


def test_calibrate_few_rows_get_no_curve() -> None:
    fit = fit_calibration(*overconfident_rows(ISOTONIC_ROWS - 1, seed=3))
    assert (fit.calibration.isotonic, fit.isotonic_loss, fit.temperature_loss) == ((), None, None)


@pytest.mark.parametrize("n", [4, 40, 1200])
def test_calibrate_no_number_of_rows_vouches_for_certainty(n: int) -> None:
    targets = (np.arange(n) % 4).astype(np.int32)
    # One row in four is so far out that its probability rounds to 1.
    scale = np.where(np.arange(n) % 4 == 0, 1_000_000, 1)
    logits = (np.eye(4)[targets] * scale[:, None]).astype(np.float32)
    fit = fit_calibration(logits, targets)
    best = np.exp(log_softmax(logits, fit.calibration.temperature).max(axis=1))
    assert best.max() == 1
    assert confidences(best, fit.calibration).max() == pytest.approx((n + 1) / (n + 2))


@given(st.integers(1, 300), st.integers(0, 10_000), st.booleans())
def test_calibrate_curves_ascend_inside_of_zero_and_one(n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    best = rng.uniform(0, 1, n).round(1 if ties else 9)
    curve = fit_isotonic(best, rng.random(n) < best)
    at, heights = map(np.array, zip(*curve, strict=True))
    assert (np.diff(at) > 0).all()
    assert (np.diff(heights) >= 0).all()
    assert 0 < heights.min() <= heights.max() < 1
    Calibration(temperature=1.0, isotonic=curve)


def test_calibrate_curve_by_hand() -> None:
    best = np.array([0.2, 0.4, 0.6, 0.8])
    # Blocks: 0.2 and 0.4 with one of two right, 0.6 and 0.8 with both.
    curve = fit_isotonic(best, np.array([True, False, True, True]))
    assert curve == ((pytest.approx(0.3), 0.5), (pytest.approx(0.7), 0.75))


def test_calibrate_is_the_same_every_time() -> None:
    rows = overconfident_rows(3000, seed=4)
    assert fit_calibration(*rows) == fit_calibration(*rows)
