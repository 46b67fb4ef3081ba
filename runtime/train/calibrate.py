"""Fit what turns scores into confidences: a temperature, and where it helps an isotonic curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences
from sprat.values import FloatArray, IntArray

MIN_TEMPERATURE = 0.02
MAX_TEMPERATURE = 50.0

ISOTONIC_ROWS = 1000
"""Fewer rows never get an isotonic curve: it overfits them (Niculescu-Mizil and Caruana, 2005)."""

FOLDS = 5
"""On which temperature and isotonic curve are compared."""


def log_softmax(logits_nk: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """Logarithm of the probabilities of K options, exact where one rounds to 0 or 1.

    Parameters
    ----------
    logits_nk : float32[N, K]
    temperature : float
        Above 0. Logits are divided by it: above 1 it makes the answers less sure, below 1 surer;
        the order of the options never changes.

    Returns
    -------
    float64[N, K]
    """
    scaled = logits_nk.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_p: npt.NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return log_p


def nll(logits_nk: FloatArray, targets_n: IntArray, temperature: float) -> float:
    """Mean negative log-likelihood of the right labels, in nats.

    Parameters
    ----------
    logits_nk : float32[N, K]
    targets_n : int32[N]
    temperature : float
        Above 0.
    """
    log_p = log_softmax(logits_nk, temperature)
    return float(-log_p[np.arange(len(targets_n)), targets_n].mean())


def fit_temperature(logits_nk: FloatArray, targets_n: IntArray) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., 2017).

    The scores must come from a head that has not seen the rows. In the inverse temperature the
    problem is convex with one unknown: Newton's method inside a bracket finds its only minimum.

    As in Platt (1999), the right label of each row counts with a weight of (N + 1) / (N + 2) and
    the others share the rest. Where every answer is right, the likelihood alone would make all
    confidences 1; this way N rows never vouch for more than N rows can. For many rows it changes
    nothing.

    Parameters
    ----------
    logits_nk : float32[N, K]
        Out-of-fold scores; N from 1, K from 2.
    targets_n : int32[N]
        Right labels.

    Returns
    -------
    float
        In [0.02, 50]. It is 50 where the scores say nothing, or the opposite of the truth.
    """
    n, k = logits_nk.shape
    every = np.arange(n)
    doubt = 1 / (n + 2)
    weights = np.full((n, k), doubt / (k - 1))
    weights[every, targets_n] = 1 - doubt
    # Centred, so that the slope loses no digits to a common offset.
    centred = logits_nk - logits_nk.max(axis=1, keepdims=True).astype(np.float64)
    aim = float((weights * centred).sum(axis=1).mean())

    def slope_and_curvature(inverse: float) -> tuple[float, float]:
        p = np.exp(log_softmax(logits_nk, 1 / inverse))
        mean = (p * centred).sum(axis=1)
        variance = (p * np.square(centred)).sum(axis=1) - np.square(mean)
        return float(mean.mean()) - aim, float(variance.mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope_and_curvature(low)[0] >= 0:
        return MAX_TEMPERATURE
    if slope_and_curvature(high)[0] <= 0:
        return MIN_TEMPERATURE
    inverse = 1.0
    while True:
        slope, curvature = slope_and_curvature(inverse)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        step = inverse - slope / curvature if curvature > 0 else high
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            return 1 / following
        inverse = following


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """A calibration and what spoke for it.

    Attributes
    ----------
    calibration : Calibration
    rows : int
        Out-of-fold scores that it was fitted on.
    temperature_loss, isotonic_loss : float or None
        Cross-validated log-loss of the confidence, in nats, of either method; None where there
        were too few rows for a choice.
    """

    calibration: Calibration
    rows: int
    temperature_loss: float | None = None
    isotonic_loss: float | None = None


def fit_calibration(logits_nk: FloatArray, targets_n: IntArray, *, seed: int = 0) -> CalibrationFit:
    """Fit a temperature, and an isotonic curve on top of it where that is clearly better.

    N rows never vouch for a confidence above (N + 1) / (N + 2), the rule of succession: it is the
    ceiling.

    From 1,000 rows on, both are fitted on four of five parts and judged on the fifth, by the
    log-loss of the confidence that the best answer is right. The curve is taken where its mean loss
    is lower by more than two standard errors of the difference.

    Parameters
    ----------
    logits_nk : float32[N, K]
        Scores by heads that have not seen the rows; N from 1, K from 2.
    targets_n : int32[N]
        Right labels.
    seed : int
        Of the parts; at least 0.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    n = len(targets_n)
    temperature = Calibration(
        temperature=fit_temperature(logits_nk, targets_n), ceiling=(n + 1) / (n + 2)
    )
    if n < ISOTONIC_ROWS:
        return CalibrationFit(temperature, n)
    fold_n = np.random.default_rng(seed).permutation(n) % FOLDS
    losses = np.empty((2, n))
    for fold in range(FOLDS):
        out = fold_n == fold
        fitted = Calibration(temperature=fit_temperature(logits_nk[~out], targets_n[~out]))
        curved = _with_curve(fitted, logits_nk[~out], targets_n[~out])
        for row, calibration in enumerate((fitted, curved)):
            losses[row, out] = confidence_loss(logits_nk[out], targets_n[out], calibration)
    gain = losses[0] - losses[1]
    better = gain.mean() > 2 * gain.std() / np.sqrt(n)
    chosen = _with_curve(temperature, logits_nk, targets_n) if better else temperature
    return CalibrationFit(chosen, n, *losses.mean(axis=1).tolist())


def confidence_loss(
    logits_nk: FloatArray, targets_n: IntArray, calibration: Calibration
) -> npt.NDArray[np.float64]:
    """Log-loss of each answer's confidence, in nats: float64[N]."""
    best_n, right_n = best_answers(logits_nk, targets_n, calibration.temperature)
    confidence_n = confidences(best_n, calibration)
    # A confidence of 1 comes from scores too far apart for float64.
    chance_n = np.where(right_n, confidence_n, 1 - confidence_n)
    loss_n: npt.NDArray[np.float64] = -np.log(np.maximum(chance_n, 1e-12))
    return loss_n


def best_answers(
    logits_nk: FloatArray, targets_n: IntArray, temperature: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Probability of each row's best label, float64[N], and whether it is the right one, bool[N].

    Parameters
    ----------
    logits_nk : float32[N, K]
    targets_n : int32[N]
        Right labels.
    temperature : float
        Above 0.
    """
    log_p = log_softmax(logits_nk, temperature)
    return np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == targets_n


def _with_curve(
    calibration: Calibration, logits_nk: FloatArray, targets_n: IntArray
) -> Calibration:
    best_n, right_n = best_answers(logits_nk, targets_n, calibration.temperature)
    return calibration.model_copy(update={"isotonic": fit_isotonic(best_n, right_n)})


def fit_isotonic(
    best_n: npt.NDArray[np.float64], right_n: npt.NDArray[np.bool_]
) -> tuple[tuple[float, float], ...]:
    """The ascending curve from the best label's probability to the chance that it is right.

    Isotonic regression (Zadrozny and Elkan, 2002) gives blocks of rows with one value each. Each
    block of m rows of which h are right gets the value (h + 1) / (m + 2), so that no number of rows
    vouches for certainty, and stands at its mean probability; between the means the curve is
    linear (centred isotonic regression; Oron and Flournoy, 2017). So it keeps the order of
    confidences where steps would make most of them equal.

    Parameters
    ----------
    best_n : float64[N]
        Probabilities of the best labels, in [0, 1].
    right_n : bool[N]
        Whether they are right.

    Returns
    -------
    tuple of (float, float)
        Probability and confidence of each knot, both ascending.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    from sklearn.isotonic import IsotonicRegression

    regression = IsotonicRegression(y_min=0, y_max=1)
    values_n = regression.fit(best_n, right_n.astype(np.float64)).predict(best_n)
    _, block_n = np.unique(values_n, return_inverse=True)
    sizes = np.bincount(block_n)
    at = np.bincount(block_n, best_n) / sizes
    smoothed = (np.bincount(block_n, right_n) + 1) / (sizes + 2)
    # Small blocks are pulled to a half by more than large ones, which can turn their order around.
    heights = IsotonicRegression().fit(at, smoothed, sample_weight=sizes).predict(at)
    return tuple(zip(at.tolist(), heights.tolist(), strict=True))
