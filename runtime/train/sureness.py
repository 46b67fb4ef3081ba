"""Fit how sure a tier is of a rewritten text: from its tokens' log-probabilities to a confidence.

A logistic regression over quantiles of the log-probabilities (Gupta et al., 2024, "Language Model
Cascades: Token-level uncertainty and beyond") gives a chance, and a curve that is fitted on chances
of other rows makes a calibrated confidence of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Calibration, Sureness
from sprat.calibration import logprob_quantiles
from sprat.head import sigmoid
from sprat.train.confidence import with_whole
from sprat.train.logistic import fit_logistic, platt_aims
from sprat.train.split import fold_texts

CANDIDATES = ((0.0,), (0.0, 0.5), (0.0, 0.25, 0.5, 0.75))
"""Quantiles that are tried, from the simplest on."""

_RIDGE = 1.0
"""Of each weight, where its quantile has a standard deviation of 1."""

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class QuantilesTried:
    """What a set of quantiles is worth.

    Attributes
    ----------
    quantiles : tuple of float
    loss : float
        Cross-validated log-loss of the chances, in nats.
    """

    quantiles: tuple[float, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class SurenessFit:
    """What makes confidences of rewritten texts, and what spoke for it.

    Attributes
    ----------
    sureness : Sureness
    calibration : Calibration
    rows, right : int
        Answers that it was fitted on; how many of them are right.
    tried : tuple of QuantilesTried
    """

    sureness: Sureness
    calibration: Calibration
    rows: int
    right: int
    tried: tuple[QuantilesTried, ...]


def fit_sureness(
    logprobs: Sequence[Sequence[float]], right_n: _Bools, texts: Sequence[str], *, seed: int = 0
) -> SurenessFit:
    """Fit the chance that an answer is right, and the confidence in it.

    More quantiles are taken where the log-loss in cross-validation is lower by more than two
    standard errors of the difference. The curve is fitted on the chances that rows have by weights
    that were fitted on the other folds: see `sprat.train.confidence.with_whole`.

    Parameters
    ----------
    logprobs : sequence of sequence of float
        Of each of N answers that are complete and fit the grammar; see
        `sprat.calibration.chance_of_rewriting`.
    right_n : bool[N]
        Whether they are right. All may be, or none: then every chance is the same.
    texts : sequence of str
        What was asked about; the same texts share a fold.
    seed : int
        Of the folds, at least 0.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    # With other shares of right answers in the fold, those left out would look the other way round.
    folds_n = fold_texts(texts, seed=seed, kinds_n=right_n.astype(np.int32))
    tried, chosen = [], 0
    chances, losses = [], []
    for place, quantiles in enumerate(CANDIDATES):
        features_nq = _features(logprobs, quantiles)
        chances.append(_out_of_fold(features_nq, right_n, folds_n))
        losses.append(-np.log(np.where(right_n, chances[-1], 1 - chances[-1])))
        tried.append(QuantilesTried(quantiles, float(losses[-1].mean())))
        gain_n = losses[chosen] - losses[place]
        if gain_n.mean() > 2 * gain_n.std() / np.sqrt(len(right_n)):
            chosen = place
    return SurenessFit(
        sureness=_fit(_features(logprobs, CANDIDATES[chosen]), right_n, CANDIDATES[chosen]),
        calibration=with_whole(Calibration(temperature=1.0), chances[chosen], right_n, seed=seed),
        rows=len(right_n),
        right=int(right_n.sum()),
        tried=tuple(tried),
    )


def _features(logprobs: Sequence[Sequence[float]], quantiles: Sequence[float]) -> _Floats:
    return np.stack([logprob_quantiles(each, quantiles) for each in logprobs])


def _out_of_fold(
    features_nq: _Floats, right_n: _Bools, folds_n: npt.NDArray[np.integer]
) -> _Floats:
    """Chances by weights that have not seen the row: float64[N], never 0 or 1."""
    chance_n = np.empty(len(right_n))
    for fold in np.unique(folds_n):
        out = folds_n == fold
        bias, weights_q = _weights(features_nq[~out], right_n[~out])
        chance_n[out] = sigmoid(features_nq[out] @ weights_q + bias)
    clipped: _Floats = np.clip(chance_n, 1e-12, 1 - 1e-12)
    return clipped


def _fit(features_nq: _Floats, right_n: _Bools, quantiles: tuple[float, ...]) -> Sureness:
    bias, weights_q = _weights(features_nq, right_n)
    return Sureness(quantiles=quantiles, weights=tuple(weights_q.tolist()), bias=bias)


def _weights(features_nq: _Floats, right_n: _Bools) -> tuple[float, _Floats]:
    """Bias and weights of a regularized logistic regression."""
    mean_q, scale_q = features_nq.mean(axis=0), features_nq.std(axis=0)
    scale_q[scale_q == 0] = 1.0
    count = features_nq.shape[1]
    design_nd = np.column_stack([(features_nq - mean_q) / scale_q, np.ones(len(right_n))])
    *scaled, offset = fit_logistic(
        design_nd,
        platt_aims(right_n),
        np.zeros(count + 1),
        np.array([_RIDGE] * count + [0.0]),
    ).tolist()
    weights_q = np.array(scaled) / scale_q
    return offset - float(weights_q @ mean_q), weights_q
