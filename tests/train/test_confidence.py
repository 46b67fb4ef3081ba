"""The confidence in whole answers: calibrated, in order, and never surer than the rows allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.train.calibrate import ISOTONIC_ROWS
from sprat.train.confidence import KNOTS, with_whole
from sprat.train.metrics import calibration_error

Floats = npt.NDArray[np.float64]
SPANS = Calibration(temperature=2.0, shift=0.5)


def error(calibration: Calibration, chance_n: Floats, right_n: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error of the confidences."""
    confidence_n = confidences(chance_n, calibration)
    order = np.argsort(confidence_n, kind="stable")
    return float(calibration_error((confidence_n - right_n)[order][None])[0])


def overconfident(n: int, seed: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Chances whose log-odds are twice what they should be."""
    rng = np.random.default_rng(seed)
    odds_n = rng.normal(1, 1.5, n)
    right_n = rng.random(n) < 1 / (1 + np.exp(-odds_n))
    return 1 / (1 + np.exp(-2 * odds_n)), right_n


@pytest.mark.parametrize("rows", [300, 2000])
def test_confidence_of_whole_answers_is_a_probability(rows: int) -> None:
    new = overconfident(4000, seed=1)
    made = with_whole(SPANS, *overconfident(rows, seed=0))
    assert (made.temperature, made.shift) == (2.0, 0.5)
    assert made.ceiling == (rows + 1) / (rows + 2)
    assert error(Calibration(temperature=1.0), *new) > 0.05
    assert error(made, *new) < (0.04 if rows < ISOTONIC_ROWS else 0.03)


def test_confidence_takes_an_isotonic_curve_only_where_odds_are_not_enough() -> None:
    rng = np.random.default_rng(2)
    smooth = with_whole(SPANS, *overconfident(4000, seed=3))
    assert len(smooth.isotonic) == KNOTS
    chance_n = rng.random(4000)
    right_n = rng.random(4000) < np.where(chance_n < 0.7, 0.2, 0.95)
    stepped = with_whole(SPANS, chance_n, right_n)
    assert len(stepped.isotonic) != KNOTS
    curve = with_whole(SPANS, chance_n[:900], right_n[:900])
    assert len(curve.isotonic) == KNOTS, "fewer rows get no isotonic curve"
    assert error(stepped, chance_n, right_n) < 0.6 * error(curve, chance_n, right_n)
    below, above = confidences(np.array([0.2, 0.9]), stepped)
    assert below < 0.3
    assert above > 0.9


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 3),
)
def test_confidence_curve_is_one_whatever_the_rows(
    rows: list[tuple[float, bool]], seed: int
) -> None:
    chance_n = np.array([chance for chance, _ in rows])
    right_n = np.array([right for _, right in rows])
    made = with_whole(SPANS, chance_n, right_n, seed=seed)
    Calibration.model_validate(made.model_dump())
    assert made.isotonic
    confidence_n = confidences(np.sort(np.append(chance_n, [0.0, 0.5, 1.0])), made)
    assert (np.diff(confidence_n) >= -1e-12).all()
    assert 0 <= confidence_n[0] <= confidence_n[-1] <= (len(rows) + 1) / (len(rows) + 2)


@pytest.mark.parametrize("right", [True, False])
def test_confidence_is_never_certain_of_rows_that_are_all_alike(right: bool) -> None:
    made = with_whole(SPANS, np.full(50, 0.999), np.full(50, right))
    (confidence,) = confidences(np.array([0.999]), made)
    assert confidence == pytest.approx(51 / 52 if right else 1 / 52, abs=1e-3)


def test_confidence_falls_nowhere_where_chances_say_the_opposite() -> None:
    chance_n = np.linspace(0.01, 0.99, 200)
    made = with_whole(SPANS, chance_n, chance_n < 0.5)
    np.testing.assert_allclose(confidences(chance_n, made), 0.5, atol=0.01)
