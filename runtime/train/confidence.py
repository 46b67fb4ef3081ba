"""Calibrate the confidence that a whole answer is right: of a moderator, of a tagger."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.tagger import log_odds
from sprat.train.calibrate import FOLDS, ISOTONIC_ROWS, fit_isotonic
from sprat.train.fit_categories import fit_platt

KNOTS = 33
"""Of the piecewise linear curve that stands for a logistic one."""

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Curve = tuple[tuple[float, float], ...]


def with_whole(
    calibration: Calibration, chance_n: _Floats, right_n: _Bools, *, seed: int = 0
) -> Calibration:
    """A calibration, with the curve from the chance of a whole answer to the confidence in it.

    The curve is a logistic one over the log-odds of the chances (Platt, 1999). From 1,000 rows on
    an isotonic one is tried, too: both are fitted on four of five parts and judged on the fifth, by
    the log-loss of the confidence, and the isotonic one is taken where its mean loss is lower by
    more than two standard errors of the difference.

    Parameters
    ----------
    chance_n : float64[N]
        Probability of each row's answer by the lights of a tier that has not seen the row, in
        [0, 1]; N from 1.
    right_n : bool[N]
        Whether the answer is right as a whole.
    seed : int
        Of the parts, at least 0.

    Returns
    -------
    Calibration
        Its ceiling is (N + 1) / (N + 2): see `sprat.train.calibrate.fit_calibration`.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    n = len(right_n)
    curve = _logistic(chance_n, right_n)
    if n >= ISOTONIC_ROWS:
        fold_n = np.random.default_rng(seed).permutation(n) % FOLDS
        losses = np.empty((2, n))
        for fold in range(FOLDS):
            out = fold_n == fold
            for row, fit in enumerate((_logistic, fit_isotonic)):
                losses[row, out] = _loss(
                    fit(chance_n[~out], right_n[~out]), chance_n[out], right_n[out]
                )
        gain_n = losses[0] - losses[1]
        if gain_n.mean() > 2 * gain_n.std() / np.sqrt(n):
            curve = fit_isotonic(chance_n, right_n)
    return calibration.model_copy(update={"isotonic": curve, "ceiling": (n + 1) / (n + 2)})


def _logistic(chance_n: _Floats, right_n: _Bools) -> _Curve:
    odds_n = np.array([log_odds(chance) for chance in chance_n.tolist()])
    platt = fit_platt(odds_n, right_n)
    at = np.unique(np.linspace(odds_n.min(), odds_n.max(), KNOTS))
    chances = 1 / (1 + np.exp(-at))
    keep = np.append(True, np.diff(chances) > 0)  # Near 1 neighbours may round to the same.
    heights = platt.probabilities(at)
    return tuple(zip(chances[keep].tolist(), heights[keep].tolist(), strict=True))


def _loss(curve: _Curve, chance_n: _Floats, right_n: _Bools) -> _Floats:
    """Log-loss of each confidence, in nats."""
    confidence_n = confidences(chance_n, Calibration(temperature=1.0, isotonic=curve))
    loss_n: _Floats = -np.log(np.maximum(np.where(right_n, confidence_n, 1 - confidence_n), 1e-12))
    return loss_n
