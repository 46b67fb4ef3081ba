"""How sure a tier is of rewritten texts: chances that are fitted, and confidences that hold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from sprat.bundle_manifest import Sureness
from sprat.calibration import chance_of_rewriting, confidences
from sprat.train.sureness import CANDIDATES, SurenessFit, fit_sureness

Answers = tuple[list[list[float]], npt.NDArray[np.bool_], list[str]]


def answers(count: int, seed: int, *, sure: Sureness) -> Answers:
    """Answers of 1 to 20 tokens that are right with the chance that ``sure`` says."""
    rng = np.random.default_rng(seed)
    logprobs = [
        (-rng.exponential(rng.choice([0.1, 0.5, 2.0]), rng.integers(1, 20))).tolist()
        for _ in range(count)
    ]
    chance_n = [chance_of_rewriting(each, sure, is_sound=True) for each in logprobs]
    return logprobs, rng.random(count) < chance_n, [f"text {n}" for n in range(count)]


def chances(logprobs: list[list[float]], sure: Sureness) -> npt.NDArray[np.float64]:
    return np.array([chance_of_rewriting(each, sure, is_sound=True) for each in logprobs])


LEAST = Sureness(quantiles=(0.0,), weights=(1.5,), bias=3.0)
BOTH = Sureness(quantiles=(0.0, 0.5), weights=(0.5, 4.0), bias=3.0)


@pytest.mark.parametrize("truth", [LEAST, BOTH])
def test_sureness_finds_the_chances_that_answers_have(truth: Sureness) -> None:
    fit = fit_sureness(*answers(4000, 1, sure=truth))
    assert fit.sureness.quantiles == truth.quantiles
    others = answers(500, 2, sure=truth)[0]
    assert np.abs(chances(others, fit.sureness) - chances(others, truth)).max() < 0.08


def test_sureness_takes_more_quantiles_where_they_are_clearly_better() -> None:
    fit = fit_sureness(*answers(2000, 3, sure=BOTH))
    assert [each.quantiles for each in fit.tried] == list(CANDIDATES)
    assert fit.tried[1].loss < fit.tried[0].loss
    assert fit.sureness.quantiles == CANDIDATES[1]
    few = fit_sureness(*answers(60, 3, sure=LEAST))
    assert few.sureness.quantiles == CANDIDATES[0]


@pytest.mark.parametrize(("count", "most"), [(60, 0.09), (400, 0.04)])
def test_sureness_confidences_hold_on_other_rows(count: int, most: float) -> None:
    logprobs, right_n, _ = answers(4000, 50, sure=LEAST)
    gaps = []
    for seed in range(8):
        fit = fit_sureness(*answers(count, seed, sure=LEAST))
        assert fit.calibration.ceiling == pytest.approx((count + 1) / (count + 2))
        confidence_n = confidences(chances(logprobs, fit.sureness), fit.calibration)
        quarters = np.argsort(confidence_n).reshape(4, -1)
        gaps += [abs(confidence_n[rows].mean() - right_n[rows].mean()) for rows in quarters]
    assert np.mean(gaps) < most


def test_sureness_is_reproducible_and_keeps_the_same_texts_together() -> None:
    logprobs, right_n, _ = answers(100, 6, sure=LEAST)
    same = [f"text {n % 20}" for n in range(100)]
    assert fit_sureness(logprobs, right_n, same) == fit_sureness(logprobs, right_n, same)
    assert fit_sureness(logprobs, right_n, same) != fit_sureness(logprobs, right_n, same, seed=1)


@pytest.mark.parametrize("right", [True, False])
def test_sureness_of_answers_that_are_all_alike_is_the_same(right: bool) -> None:
    logprobs, _, texts = answers(50, 7, sure=LEAST)
    fit = fit_sureness(logprobs, np.full(50, right), texts)
    confidence_n = confidences(chances(logprobs, fit.sureness), fit.calibration)
    assert confidence_n.min() == pytest.approx(confidence_n.max())
    assert confidence_n[0] == pytest.approx(51 / 52 if right else 1 / 52, abs=0.01)
    assert (fit.rows, fit.right) == (50, 50 * right)


def test_sureness_of_answers_without_a_choice_is_the_share_that_is_right() -> None:
    right_n = np.arange(100) % 4 > 0
    fit = fit_sureness([[]] * 100, right_n, [f"text {n}" for n in range(100)])
    confidence = confidences(chances([[]], fit.sureness), fit.calibration)[0]
    assert confidence == pytest.approx(0.75, abs=0.01)


def test_sureness_takes_any_log_probability() -> None:
    logprobs = [[-math.inf], [-9999.0, -0.1], [-0.1]] * 20
    fit = fit_sureness(logprobs, np.array([False, False, True] * 20), [str(n) for n in range(60)])
    assert np.isfinite([*fit.sureness.weights, fit.sureness.bias]).all()
    assert isinstance(fit, SurenessFit)
