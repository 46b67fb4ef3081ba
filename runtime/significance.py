"""How probable counts are by chance: tails of distributions and exact intervals, without scipy.

A server needs them for a handful of counts now and then, and has numpy only. The tests compare them
with scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

_STEPS = 100_000
_TINY = 1e-300
_PRECISE = 1e-15


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability that a chi-square variable is at least as large.

    The regularized upper incomplete gamma function Q(degrees / 2, statistic / 2), by its series
    below the mean and by its continued fraction above (NIST DLMF 8.11.4 and 8.9.2).

    Parameters
    ----------
    statistic : float
        At least 0.
    degrees : int
        Of freedom; with 0 of them the variable is 0.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(chi_square_tail(3.841, 1), 4)
    0.05
    """
    if statistic <= 0 or degrees == 0:
        return float(statistic <= 0)
    a, x = degrees / 2, statistic / 2
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for step in range(1, _STEPS):
            term *= x / (a + step)
            total += term
            if term < total * _PRECISE:
                break
        return max(0.0, 1 - scale * total)

    def coefficients(step: int) -> tuple[float, float]:
        return (1.0 if step == 1 else -(step - 1) * (step - 1 - a)), x - a + 2 * step - 1

    return min(1.0, scale * _continued_fraction(coefficients))


def kolmogorov_tail(x: float) -> float:
    """Probability that Kolmogorov's variable is at least as large: sup of a Brownian bridge.

    2 sum (-1)^(j-1) exp(-2 j^2 x^2) over j from 1 (Kolmogorov, 1933), and for small x the same sum
    transformed, which converges there.

    Parameters
    ----------
    x : float
        Root of the number of rows, times the largest difference; at least 0.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(kolmogorov_tail(1.358), 3)
    0.05
    """
    if x <= 0:
        return 1.0
    if x < 1:
        odd = (math.exp(-(((2 * j - 1) * math.pi / x) ** 2) / 8) for j in range(1, 20))
        return max(0.0, 1 - math.sqrt(2 * math.pi) / x * sum(odd))
    return 2 * sum((-1.0) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 20))


def binomial_tail(hits: int, rows: int, share: float) -> float:
    """Probability of at least so many hits among rows that are hits with a given probability.

    The regularized incomplete beta function I_share(hits, rows - hits + 1), by its continued
    fraction (NIST DLMF 8.17.5 and 8.17.22).

    Parameters
    ----------
    hits, rows : int
        0 to ``rows``; 0 or more.
    share : float
        In [0, 1].

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(binomial_tail(2, 3, 0.5), 6)
    0.5
    """
    return 1.0 if hits == 0 else _incomplete_beta(hits, rows - hits + 1, share)


def clopper_pearson(hits: int, rows: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability from counts (Clopper and Pearson, 1934).

    Its ends are the probabilities at which as many hits, or as few, are as improbable as
    (1 - confidence) / 2: it holds at least as often as it says, whatever the probability is.

    Parameters
    ----------
    hits, rows : int
        0 to ``rows``; 0 or more. Without rows the interval is 0 to 1.
    confidence : float
        In (0, 1).

    Examples
    --------
    >>> [round(end, 4) for end in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    half = (1 - confidence) / 2
    low = _share_with_tail(hits, rows, half) if hits > 0 else 0.0
    high = _share_with_tail(hits + 1, rows, 1 - half) if hits < rows else 1.0
    return low, high


def paired_difference(gained: int, lost: int, rows: int) -> NormalDist:
    """How probable which difference is of two shares that were counted on the same rows.

    Bonett and Price (2012): Wald's normal distribution with a row more of each discordant kind,
    whose intervals hold with few rows, too.

    Parameters
    ----------
    gained, lost : int
        Rows where only the first is a hit, and where only the second is one.
    rows : int
        All of them, 1 or more.

    Returns
    -------
    NormalDist
        Of the first share minus the second.

    Examples
    --------
    >>> difference = paired_difference(9, 3, 100)
    >>> [round(difference.inv_cdf(tail), 3) for tail in (0.025, 0.975)]
    [-0.012, 0.13]
    """
    first, second = (gained + 1) / (rows + 2), (lost + 1) / (rows + 2)
    middle = first - second
    return NormalDist(middle, math.sqrt((first + second - middle**2) / (rows + 2)))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # There the other side converges faster.
        return 1 - _incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    scale += a * math.log(x) + b * math.log1p(-x)

    def coefficients(step: int) -> tuple[float, float]:
        if step == 1:
            return 1.0, 1.0
        m, is_odd = divmod(step - 1, 2)
        if is_odd:
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), 1.0
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), 1.0

    return min(1.0, math.exp(scale) / a * _continued_fraction(coefficients))


def _continued_fraction(coefficients: Callable[[int], tuple[float, float]]) -> float:
    """a1 / (b1 + a2 / (b2 + ...)), by the modified method of Lentz (NIST DLMF 3.10)."""
    value = above = _TINY
    below = 0.0
    for step in range(1, _STEPS):
        a, b = coefficients(step)
        below = 1 / ((b + a * below) or _TINY)
        above = (b + a / above) or _TINY
        value *= above * below
        if abs(above * below - 1) < _PRECISE:
            break
    return value


def _share_with_tail(hits: int, rows: int, tail: float) -> float:
    """The share at which `binomial_tail` is ``tail``: Newton's steps, halving where they leave."""
    low, high = 0.0, 1.0
    share = hits / rows
    share += NormalDist().inv_cdf(tail) * math.sqrt(share * (1 - share) / rows)
    share = min(max(share, 1e-3), 1 - 1e-3)
    scale = math.lgamma(rows + 1) - math.lgamma(hits) - math.lgamma(rows - hits + 1)
    for _ in range(100):
        above = binomial_tail(hits, rows, share) - tail
        low, high = (share, high) if above < 0 else (low, share)
        slope = math.exp(scale + (hits - 1) * math.log(share) + (rows - hits) * math.log1p(-share))
        nearer = share - above / slope if slope > 0 else low
        if not low < nearer < high:
            nearer = (low + high) / 2
        if abs(nearer - share) <= 1e-12:
            break
        share = nearer
    return nearer
