"""The calibration error of whole answers, by hand and against simulations."""

from __future__ import annotations

import numpy as np
import pytest

from sprat.train.evaluate_whole import evaluate_whole


def test_evaluate_whole_of_confidences_that_hold_shows_noise_only() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 2000)
    right = rng.random(2000) < confidence
    report = evaluate_whole(confidence, right)
    assert report.ece.value < 2 * report.ece_noise < 0.06
    assert 0 <= report.ece.low <= report.ece.value <= report.ece.high
    assert report == evaluate_whole(confidence, right) != evaluate_whole(confidence, right, seed=1)


def test_evaluate_whole_of_confidences_that_boast_shows_by_how_much() -> None:
    right = np.arange(300) % 2 == 0
    report = evaluate_whole(np.full(300, 0.9), right)
    assert report.ece.value == pytest.approx(0.4)
    assert report.ece.low > 0.3
    gaps = [abs(each.accuracy - each.confidence) * each.n for each in report.reliability]
    assert sum(gaps) / 300 == pytest.approx(report.ece.value)


def test_evaluate_whole_of_one_row() -> None:
    report = evaluate_whole(np.array([0.8]), np.array([True]))
    assert report.ece.value == pytest.approx(0.2)
    assert sum(each.n for each in report.reliability) == 1
