"""Confidences: the curve, the ceiling, and nothing where neither is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from sprat.bundle_manifest import Calibration, Sureness, Thresholds
from sprat.calibration import (
    DEAD_BAND,
    LANGUAGE_DEAD_BAND,
    LEAST_LOGPROB,
    chance_of_actions,
    chance_of_rewriting,
    confidences,
    least_confidence,
    log_scores,
    logprob_quantiles,
    spread,
    tempered,
)
from sprat.train.calibrate import log_softmax

BEST = np.array([0.0, 0.3, 0.5, 0.7, 0.9, 1.0], np.float32)


def test_calibration_by_temperature_alone_leaves_probabilities_as_they_are() -> None:
    confidence = confidences(BEST, Calibration(temperature=2.0))
    assert confidence.dtype == np.float64
    assert confidence.tolist() == BEST.tolist()


def test_calibration_follows_the_curve_and_is_level_outside() -> None:
    curve = Calibration(temperature=1.0, isotonic=((0.5, 0.4), (0.9, 0.8)))
    np.testing.assert_allclose(confidences(BEST, curve), [0.4, 0.4, 0.4, 0.6, 0.8, 0.8], rtol=1e-6)
    level = Calibration(temperature=1.0, isotonic=((0.5, 0.25),))
    assert confidences(BEST, level).tolist() == [0.25] * 6


def test_calibration_never_exceeds_the_ceiling() -> None:
    assert confidences(BEST, Calibration(temperature=1.0, ceiling=0.75)).max() == 0.75
    assert confidences(BEST[:0], Calibration(temperature=1.0, ceiling=0.75)).shape == (0,)


GIVEN = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], np.float32)


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.0, 50.0])
def test_calibration_tempers_probabilities_as_the_fit_saw_them(temperature: float) -> None:
    shares = tempered(GIVEN, temperature)
    np.testing.assert_allclose(shares, np.exp(log_softmax(log_scores(GIVEN), temperature)))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[:, 0] >= shares[:, 1]).all()
    powers = GIVEN[0].astype(np.float64) ** (1 / temperature)
    np.testing.assert_allclose(shares[0], powers / powers.sum(), rtol=1e-5)


def test_calibration_leaves_no_numbers_as_they_are() -> None:
    given = np.array([[np.nan, 0.5], [0.5, 0.5]], np.float32)
    shares = tempered(given, 2.0)
    assert np.isnan(shares[0]).all()
    assert shares[1].tolist() == [0.5, 0.5]
    assert tempered(given[:0], 2.0).shape == (0, 2)


@pytest.mark.parametrize("count", [2, 3, 77])
@pytest.mark.parametrize("confidence", [0.0, 0.001, 0.4, 0.9, 1.0])
def test_calibration_spread_keeps_the_named_label_first(count: int, confidence: float) -> None:
    shares = spread(1, confidence, count)
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(min(max(confidence, 1.01 / count), 1), abs=1e-5)
    others = np.delete(shares, 1)
    assert others.max() - others.min() == 0
    assert 0 < others.max() < shares[1]


def test_calibration_spread_knows_nothing_without_a_label() -> None:
    assert spread(None, 0.9, 4).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        (((0.5, 1.5),), "expected probabilities"),
        (((-0.1, 0.5),), "expected probabilities"),
        (((0.5, float("nan")),), "expected probabilities"),
        (((0.5, 0.5), (0.5, 0.6)), "expected ascending"),
        (((0.5, 0.5), (0.6, 0.4)), "expected ascending"),
    ],
)
def test_calibration_refuses_a_curve_that_is_none(
    knots: tuple[tuple[float, float], ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Calibration(temperature=1.0, isotonic=knots)


@pytest.mark.parametrize("ceiling", [0.0, 1.1, -1.0])
def test_calibration_refuses_a_ceiling_out_of_range(ceiling: float) -> None:
    with pytest.raises(ValidationError, match="ceiling"):
        Calibration(temperature=1.0, ceiling=ceiling)


def test_calibration_quantiles_of_log_probabilities_lie_between_tokens() -> None:
    logprobs = [-4.0, -1.0, -3.0, -2.0]
    assert logprob_quantiles(logprobs, (0.0, 0.5, 1.0)).tolist() == [-4.0, -2.5, -1.0]
    assert logprob_quantiles([], (0.0, 0.5)).tolist() == [0.0, 0.0]
    assert logprob_quantiles([-math.inf, -9999.0], (0.0, 1.0)).tolist() == [LEAST_LOGPROB] * 2


def test_calibration_chance_of_a_rewriting_is_logistic_in_quantiles() -> None:
    sure = Sureness(quantiles=(0.0, 0.25, 1.0), weights=(1.0, 2.0, 3.0), bias=0.5)
    logprobs = [-4.0, -1.0, -3.0, -2.0, -0.5]
    odds = 0.5 - 4.0 - 2 * 3.0 - 3 * 0.5
    chance = chance_of_rewriting(logprobs, sure, is_sound=True)
    assert chance == pytest.approx(1 / (1 + math.exp(-odds)))
    assert chance_of_rewriting(sorted(logprobs), sure, is_sound=True) == chance


def test_calibration_chance_of_a_rewriting_without_a_choice_is_that_of_certain_tokens() -> None:
    sure = Sureness(quantiles=(0.0,), weights=(5.0,), bias=2.0)
    without = chance_of_rewriting([], sure, is_sound=True)
    assert without == chance_of_rewriting([0.0], sure, is_sound=True)
    assert without == pytest.approx(1 / (1 + math.exp(-2.0)))


@pytest.mark.parametrize("logprobs", [[], [-0.1], [math.nan]])
def test_calibration_chance_of_an_unsound_rewriting_is_none(logprobs: list[float]) -> None:
    sure = Sureness(quantiles=(0.5,), weights=(1.0,), bias=100.0)
    assert chance_of_rewriting(logprobs, sure, is_sound=False) == 0.0


@pytest.mark.parametrize("least", [-math.inf, -9999.0])
@pytest.mark.parametrize("weight", [1e300, -1e300, 1.0])
def test_calibration_chance_of_a_rewriting_stays_a_probability(least: float, weight: float) -> None:
    sure = Sureness(quantiles=(0.0, 1.0), weights=(weight, weight), bias=0.0)
    assert 0 <= chance_of_rewriting([least, -1.0], sure, is_sound=True) <= 1
    assert math.isnan(chance_of_rewriting([math.nan, -1.0], sure, is_sound=True))


@pytest.mark.parametrize(("engine", "band"), [("ct2", DEAD_BAND), ("llama", LANGUAGE_DEAD_BAND)])
@pytest.mark.parametrize("accept_at", [0.01, 0.5, 0.9, 0.999])
def test_calibration_threshold_of_an_earlier_tier_keeps_the_dead_band_clear(
    accept_at: float, engine: str, band: float
) -> None:
    least = least_confidence(accept_at, engine)
    assert accept_at < least < 1
    odds = least / (1 - least) / (accept_at / (1 - accept_at))
    assert np.log(odds) == pytest.approx(band)


def test_calibration_threshold_at_the_ends_and_of_a_static_model_is_exact() -> None:
    for engine in ("ct2", "llama"):
        assert [least_confidence(at, engine) for at in (0.0, 1.0)] == [0.0, 1.0]
    assert least_confidence(0.7, "static") == 0.7


def test_calibration_chance_of_actions_is_that_all_categories_are_on_their_side() -> None:
    limits = [Thresholds(flag_at=0.5), Thresholds(flag_at=0.2), Thresholds(flag_at=1.0)]
    probability = np.array([[0.9, 0.1, 0.3], [0.4, 0.2, 1.0], [0.5, 0.9, 0.0]])
    expected = [0.9 * 0.9 * 0.7, 0.6 * 0.2 * 1.0, 0.5 * 0.9 * 1.0]
    np.testing.assert_allclose(chance_of_actions(probability, limits), expected)
    assert np.isnan(chance_of_actions(np.array([[0.9, np.nan, 0.3]]), limits)).all()
    assert chance_of_actions(np.zeros((0, 3)), limits).shape == (0,)
