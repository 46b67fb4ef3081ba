"""Apply a calibration: from the probability of a label to a confidence, and to a decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Calibration, Odds, Sureness, Thresholds
from sprat.values import FloatArray

DEAD_BAND = 0.1
"""How far above its threshold a confidence must be, in log-odds, for a tier to answer in the place
of a better one: see `least_confidence`.

Measured on 2,000 BANKING77 test texts with MiniLM-L6 int8, alone and in calls of 4, 16 and 64: 93 %
of the confidences do not move at all, 95 % by less than 0.003, 99 % by less than 0.081, the most
by 0.27. With thresholds of 0.5 to 0.99, 0 to 2 texts were accepted in one batch and below the
threshold in another; with this band none. It passes on 0.5 to 1.8 % of the texts."""

LANGUAGE_DEAD_BAND = 0.3
"""The same for language models: what shares their batch moves them further.

Measured on 96 BANKING77 test texts with 6 labels on SmolLM2-135M, alone and eight side by side, by
`python -m sprat.benchmarks.confidence_noise`. Calibrated confidences moved by 0.037 (median), 0.186
(99th percentile) and 0.222 (most) in Q4_1, by 0.017, 0.154 and 0.193 in Q8_0; by at most 0.302
without a temperature. With each confidence as a threshold, of the answers within 0.5 of it that
were accepted in one batch 6.0 % were below the threshold in the other in Q4_1 and 4.3 % in Q8_0;
with a band of 0.1 it is 0.5 % in both, with one of 0.2 0.07 % and none, with this one none. Of
written fields and texts nobody has measured it."""

SUREST = 1 - 1e-6
"""More than that no model that is asked can say of a category: float32 tells little beyond."""


def log_scores(probabilities_nk: FloatArray) -> FloatArray:
    """Logarithms of probabilities that a language model gave, for a temperature to divide.

    Parameters
    ----------
    probabilities_nk : float32[N, K]
        Of the labels, each row's sum 1. One that is 0 counts as the smallest float32 above it.

    Returns
    -------
    float32[N, K]
    """
    least = np.finfo(np.float32).tiny
    logs: FloatArray = np.log(np.maximum(probabilities_nk, least, dtype=np.float32))
    return logs


def tempered(probabilities_nk: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """Softmax of `log_scores` over a temperature: what a calibration makes of such probabilities.

    Parameters
    ----------
    probabilities_nk : float32[N, K]
        See `log_scores`. A row that holds what is no number stays none.
    temperature : float
        Above 0; 1 changes nothing.

    Returns
    -------
    float64[N, K]

    Examples
    --------
    >>> tempered(np.array([[0.9, 0.1]], np.float32), 2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    scaled = log_scores(probabilities_nk).astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def spread(place: int | None, confidence: float, count: int) -> FloatArray:
    """Probabilities of labels, from an answer that names one and says nothing of the others.

    The others share what the named one leaves, evenly. It keeps a little more than each of them,
    since it was the answer, and never has all.

    Parameters
    ----------
    place : int or None
        Which label was named; None: none of them, and so nobody knows anything.
    confidence : float
        In it, in [0, 1].
    count : int
        K labels, from 2.

    Returns
    -------
    float32[K]

    Examples
    --------
    >>> spread(1, 0.8, 3).round(3).tolist()
    [0.1, 0.8, 0.1]
    """
    shares = np.full(count, 1 / count, np.float32)
    if place is not None:
        kept = min(max(confidence, 1.01 / count), 1 - 1e-6)
        shares[:] = (1 - kept) / (count - 1)
        shares[place] = kept
    return shares


def confidences(
    best_n: npt.NDArray[np.floating], calibration: Calibration
) -> npt.NDArray[np.float64]:
    """Calibrated probabilities that answers are right.

    Parameters
    ----------
    best_n : float[N]
        Probability of each row's answer by the tier's own lights, in [0, 1]: that of the best label
        at the calibration's temperature; see `chance_of_actions` and `sprat.tagger.Reading` for
        moderate and extract tasks.
    calibration : Calibration
        Without an isotonic curve these probabilities are the confidences, up to the ceiling.

    Returns
    -------
    float64[N]
        In [0, 1].

    Examples
    --------
    >>> curve = Calibration(temperature=1.0, isotonic=((0.5, 0.4), (0.9, 0.8)))
    >>> confidences(np.array([0.2, 0.7, 1.0]), curve).round(3).tolist()
    [0.4, 0.6, 0.8]
    """
    confidence_n = best_n.astype(np.float64)
    if calibration.isotonic:
        at, heights = zip(*calibration.isotonic, strict=True)
        confidence_n = np.interp(confidence_n, at, heights)
    return np.minimum(confidence_n, calibration.ceiling)


def category_chances(
    said_nk: npt.NDArray[np.floating], odds: Sequence[Odds]
) -> npt.NDArray[np.float64]:
    """Calibrated probabilities of categories, from what a model that is asked says of them.

    Parameters
    ----------
    said_nk : float[N, K]
        In [0, 1]; what is no number stays none. 0 and 1 count as `SUREST` and what it leaves.
    odds : sequence of Odds
        K of them.

    Returns
    -------
    float64[N, K]
        In [0, 1].

    Examples
    --------
    >>> odds = [Odds(slope=1, offset=1), Odds(slope=2, offset=0)]
    >>> category_chances(np.array([[0.5, 0.9]]), odds).round(3).tolist()
    [[0.731, 0.988]]
    """
    slope_k = np.array([each.slope for each in odds])
    offset_k = np.array([each.offset for each in odds])
    chances_nk: npt.NDArray[np.float64] = 1 / (
        1 + np.exp(-(slope_k * category_odds(said_nk) + offset_k))
    )
    return chances_nk


def category_odds(said: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Log-odds of what a model says of categories, float64 of the same shape; always finite."""
    inside = np.clip(said.astype(np.float64), 1 - SUREST, SUREST)
    odds: npt.NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return odds


def chance_of_actions(
    probability_nk: npt.NDArray[np.float64], thresholds: Sequence[Thresholds]
) -> npt.NDArray[np.float64]:
    """Probability that a text is flagged for its own categories and for no other.

    The product over the categories of ``p`` where the text is flagged, and of ``1 - p`` where it is
    not: as if categories had nothing to do with each other. The curve of the calibration makes up
    for that.

    Parameters
    ----------
    probability_nk : float64[N, K]
        Calibrated probability of each category, in [0, 1].
    thresholds : sequence of Thresholds
        K of them.

    Returns
    -------
    float64[N]
        In [0, 1]; NaN where a probability is.

    Examples
    --------
    >>> limits = [Thresholds(flag_at=0.5), Thresholds(flag_at=0.2)]
    >>> chance_of_actions(np.array([[0.9, 0.1], [0.1, 0.3]]), limits).round(2).tolist()
    [0.81, 0.27]
    """
    flagged_nk = probability_nk >= [each.flag_at for each in thresholds]
    chance_n: npt.NDArray[np.float64] = np.where(
        flagged_nk, probability_nk, 1 - probability_nk
    ).prod(axis=1)
    return chance_n


LEAST_LOGPROB = -100.0
"""Log-probabilities below it count as this: some endpoints say -9999 where they have no number."""


def logprob_quantiles(
    logprobs: Sequence[float], quantiles: Sequence[float]
) -> npt.NDArray[np.float64]:
    """What `chance_of_rewriting` sees of an answer.

    Parameters
    ----------
    logprobs : sequence of float
        As there.
    quantiles : sequence of float
        Which ones, in [0, 1]; between two tokens they are linear.

    Returns
    -------
    float64[Q]
        At most 0; NaN where a log-probability is.

    Examples
    --------
    >>> logprob_quantiles([-0.5, -0.1, -2.0], (0.0, 0.5)).tolist()
    [-2.0, -0.5]
    """
    logprobs_t = np.maximum(np.array(logprobs or [0.0], np.float64), LEAST_LOGPROB)
    found: npt.NDArray[np.float64] = np.quantile(logprobs_t, quantiles)
    return found


def chance_of_rewriting(logprobs: Sequence[float], sureness: Sureness, *, is_sound: bool) -> float:
    """Probability that a rewritten text is right, by the log-probabilities of its tokens.

    The logistic function of a weighted sum of quantiles of the log-probabilities (Gupta et al.,
    2024, "Language Model Cascades: Token-level uncertainty and beyond"). Their sum falls with every
    token, and their mean hides the one wrong token of a long answer; low quantiles tell
    of it whatever the length.

    Parameters
    ----------
    logprobs : sequence of float
        Natural logarithm of the probability of each token that was not forced by a grammar; none:
        there was no choice, and every quantile is 0.
    sureness : Sureness
        The tier's.
    is_sound : bool
        Whether the answer is complete, and fits the grammar where there is one. Else it is wrong.

    Returns
    -------
    float
        In [0, 1]; NaN where a log-probability is.

    Examples
    --------
    >>> sure = Sureness(quantiles=(0.0, 0.5), weights=(1.0, 2.0), bias=1.0)
    >>> round(chance_of_rewriting([-0.5, -0.1, -2.0], sure, is_sound=True), 3)
    0.119
    >>> chance_of_rewriting([-0.5, -0.1, -2.0], sure, is_sound=False)
    0.0
    """
    if not is_sound:
        return 0.0
    quantiles_q = logprob_quantiles(logprobs, sureness.quantiles)
    odds = sureness.bias + float(np.dot(sureness.weights, quantiles_q))
    return float(1 / (1 + np.exp(-np.clip(odds, -700, 700))))


def confidences_of_rewritings(
    chance_n: npt.NDArray[np.float64], calibration: Calibration
) -> npt.NDArray[np.float64]:
    """As `confidences`, of chances by `chance_of_rewriting`: what is wrong for sure has none.

    Examples
    --------
    >>> curve = Calibration(temperature=1.0, isotonic=((0.2, 0.1), (0.9, 0.8)))
    >>> confidences_of_rewritings(np.array([0.0, 0.1, 1.0]), curve).round(3).tolist()
    [0.0, 0.1, 0.8]
    """
    return np.where(chance_n == 0, 0.0, confidences(chance_n, calibration))


def least_confidence(accept_at: float, engine: str) -> float:
    """From which confidence on a tier answers that has a better one behind it.

    What is in its batch moves the scores of an int8 encoder a little, and those of a quantized
    language model more. So a text whose confidence is near the threshold would be accepted in one
    batch and passed on in another. What is accepted is to reach the threshold in any batch:
    `DEAD_BAND` or `LANGUAGE_DEAD_BAND` is kept clear above it, and what lies in the band is passed
    on. The last tier that may answer has nobody to pass on to: its threshold is
    taken as it is, and so is that of a static model, whose vectors are the same in any batch.

    The band is one of log-odds, because this is what moves: near 0 and 1 probabilities move less.

    Parameters
    ----------
    accept_at : float
        The threshold, in [0, 1].
    engine : str
        Of the tier's model.

    Returns
    -------
    float
        In [0, 1]. 0 stays 0, and 1 stays 1.

    Examples
    --------
    >>> [round(least_confidence(at, "ct2"), 3) for at in (0.0, 0.5, 0.9, 0.99, 1.0)]
    [0.0, 0.525, 0.909, 0.991, 1.0]
    >>> round(least_confidence(0.9, "llama"), 3), least_confidence(0.9, "static")
    (0.924, 0.9)
    """
    if engine == "static":
        return accept_at
    odds = accept_at * math.exp(LANGUAGE_DEAD_BAND if engine == "llama" else DEAD_BAND)
    return odds / (1 - accept_at + odds)
