"""Softmax with temperature: probabilities, whatever the logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sprat.calibration import softmax
from sprat.values import FloatArray

LARGEST = float(np.finfo(np.float32).max) / 2

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
logits = hnp.arrays(np.float32, shapes, elements=st.floats(-100, 100, width=32))
temperatures = st.floats(0.02, 50)


@given(logits, temperatures)
def test_calibration_softmax_matches_the_definition(z: FloatArray, temperature: float) -> None:
    exact = np.exp((z.astype(np.float64) - z.max(axis=1, keepdims=True)) / temperature)
    exact /= exact.sum(axis=1, keepdims=True)
    p = softmax(z, temperature)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, exact, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


@given(logits, temperatures)
def test_calibration_temperature_never_changes_the_answer(
    z: FloatArray, temperature: float
) -> None:
    best = z.argmax(axis=1)
    p = softmax(z, temperature)
    # Logits that are nearly the same may become the same probability, but never change places.
    assert (p[np.arange(len(z)), best] == p.max(axis=1)).all()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_calibration_softmax_of_the_largest_numbers_is_finite(temperature: float) -> None:
    z = np.array([[LARGEST, -LARGEST, 0], [-LARGEST, -LARGEST, -LARGEST]], np.float32)
    with np.errstate(over="ignore"):  # -inf, whose exponential is 0
        p = softmax(z, temperature)
    np.testing.assert_allclose(p, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


def test_calibration_softmax_of_no_rows_is_no_rows() -> None:
    assert softmax(np.empty((0, 4), np.float32), 1.0).shape == (0, 4)


def test_calibration_higher_temperature_is_less_sure() -> None:
    z = np.array([[1.0, 2.0, 4.0]], np.float32)
    confidences = [softmax(z, t).max() for t in (0.5, 1.0, 2.0, 4.0)]
    assert confidences == sorted(confidences, reverse=True)
