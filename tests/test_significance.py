"""Tails and intervals against scipy, which servers do without."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from sprat.significance import (
    binomial_tail,
    chi_square_tail,
    clopper_pearson,
    kolmogorov_tail,
    paired_difference,
)


@pytest.mark.parametrize("degrees", [1, 2, 9, 76, 255, 1000])
def test_significance_chi_square_tail(degrees: int) -> None:
    for statistic in [0.0, 1e-6, *np.linspace(0.1, 5 * degrees, 60).tolist()]:
        expected = stats.chi2.sf(statistic, degrees)
        assert chi_square_tail(statistic, degrees) == pytest.approx(expected, abs=1e-12)


def test_significance_chi_square_tail_far_out_is_relative() -> None:
    for statistic in (50.0, 200.0, 1000.0):
        expected = stats.chi2.sf(statistic, 9)
        assert chi_square_tail(statistic, 9) == pytest.approx(expected, rel=1e-9)


def test_significance_chi_square_tail_of_nothing_free() -> None:
    assert chi_square_tail(0.0, 0) == 1.0
    assert chi_square_tail(1.0, 0) == 0.0


def test_significance_kolmogorov_tail() -> None:
    for x in [0.0, 1e-3, *np.linspace(0.05, 4, 100).tolist()]:
        assert kolmogorov_tail(x) == pytest.approx(special.kolmogorov(x), abs=1e-13)


@pytest.mark.parametrize("rows", [1, 2, 10, 77, 1000, 100_000])
def test_significance_binomial_tail_and_exact_interval(rows: int) -> None:
    for hits in sorted({0, 1, rows // 10, rows // 2, rows - 1, rows}):
        for share in (0.0, 1e-6, 0.05, 0.3, 0.5, 0.9, 1.0):
            expected = stats.binom.sf(hits - 1, rows, share)
            assert binomial_tail(hits, rows, share) == pytest.approx(expected, abs=1e-9)
        for confidence in (0.5, 0.95, 0.999):
            exact = stats.binomtest(hits, rows).proportion_ci(confidence, "exact")
            interval = clopper_pearson(hits, rows, confidence=confidence)
            assert interval == pytest.approx((exact.low, exact.high), abs=1e-11)


def test_significance_exact_interval_of_no_rows_is_everything() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("gains", "losses", "rows"), [(0.05, 0.03, 60), (0.02, 0.02, 300)])
def test_significance_paired_difference_covers_as_often_as_it_says(
    gains: float, losses: float, rows: int
) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(rows, [gains, losses, 1 - gains - losses], 4000)
    held = 0
    for gained, lost, _ in drawn.tolist():
        difference = paired_difference(gained, lost, rows)
        held += difference.inv_cdf(0.025) <= gains - losses <= difference.inv_cdf(0.975)
    # 95 % of 4,000, less four standard errors; more is no fault of such small counts.
    assert held / 4000 >= 0.936
