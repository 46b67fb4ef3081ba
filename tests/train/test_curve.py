"""Learning curves: power laws are found again, and the measuring is what it says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from sprat.train.curve import DRAWS, SHARES, Judge, extrapolate, learning_curve
from sprat.train.data import Dataset

SIZES = np.array([100, 200, 400, 800])


@pytest.mark.parametrize("floor", [0.0, 0.5])
@pytest.mark.parametrize("exponent", [0.2, 0.5, 0.9])
def test_curve_extrapolates_a_power_law(floor: float, exponent: float) -> None:
    def error(size: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        decay = (size / 800) ** -exponent
        # The grid has floors at shares of the least error, which is 0.1 here.
        return 0.1 * (floor + (1 - floor) * decay)

    found = extrapolate(SIZES, error(SIZES)[None], 1600)
    assert found[0] == pytest.approx(error(np.array([1600]))[0], abs=1e-9)


def test_curve_that_has_ended_stays_where_it_is() -> None:
    flat = np.array([[0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0], [0.3, 0.2, 0.2, 0.2]])
    found = extrapolate(SIZES, flat, 1600)
    assert found[0] == pytest.approx(0.2)
    assert found[1] == 0
    assert 0.15 < found[2] <= 0.2


def test_curve_never_promises_errors_below_zero_nor_a_rise() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 1, (200, 4))
    found = extrapolate(SIZES, errors, 1600)
    assert (found >= 0).all()
    assert (found <= errors.max(axis=1)).all()


def make(rows: int) -> Dataset:
    labels = tuple("common" if i % 10 else "rare" for i in range(rows))
    return Dataset(tuple(f"t{i}" for i in range(rows)), labels, tuple(range(1, rows + 1)), "rows")


def test_curve_measures_growing_shares_of_every_label() -> None:
    train = make(80)
    sizes: list[int] = []

    def fit_and_judge(rows: npt.NDArray[np.int64]) -> Judge:
        sizes.append(len(rows))
        counts = Counter(train.labels[row] for row in rows)
        share = len(rows) / 80
        assert counts["rare"] == max(1, round(8 * share))
        assert len(set(rows.tolist())) == len(rows)
        # Errors: 0.4 with an eighth of the rows, half as many each time the rows double.
        wrong = np.arange(200) % 20 < round(20 * 0.05 / share)
        return lambda picks_rm: (~wrong)[picks_rm].mean(axis=1)

    curve = learning_curve(train, fit_and_judge, test_rows=200, metric="accuracy", seed=0)
    assert sizes == [10] * DRAWS + [20] * DRAWS + [40] * DRAWS + [80]
    assert [p.rows for p in curve.points] == [round(80 * share) for share in SHARES]
    assert [p.value for p in curve.points] == pytest.approx([0.6, 0.8, 0.9, 0.95])
    assert curve.more_rows == 160
    assert curve.expected.value == pytest.approx(0.975)
    assert curve.expected.low < 0.975 < curve.expected.high
    assert curve.gain.value == pytest.approx(0.025)
    assert curve.message() == (
        "Accuracy 0.600 with 10, 0.800 with 20, 0.900 with 40, 0.950 with 80 rows; 0.975 "
        f"({curve.expected.low:.3f} to {curve.expected.high:.3f}) expected with 160: "
        "more examples would help."
    )
    again = learning_curve(train, fit_and_judge, test_rows=200, metric="accuracy", seed=0)
    assert again == curve


def test_curve_says_when_more_would_hardly_help() -> None:
    right = np.arange(50) >= 5
    curve = learning_curve(
        make(80),
        lambda _: lambda picks_rm: right[picks_rm].mean(axis=1),
        test_rows=50,
        metric="mean_average_precision",
        seed=0,
    )
    assert curve.gain.value == pytest.approx(0)
    assert curve.message().startswith("Mean average precision 0.900 with 10, ")
    assert "would hardly help" in curve.message()
