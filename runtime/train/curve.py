"""Learning curve: what growing shares of the rows are worth, and whether more would help."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import Interval
from sprat.progress import Progress, Silent
from sprat.train import metrics
from sprat.train.data import Dataset
from sprat.values import FloatArray, IntArray

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Each is twice the one before it, as the extrapolation is twice the last."""

DRAWS = 3
"""Random choices of the rows of each share; the curve is their mean."""

RESAMPLES = 500
HELPS = 0.02
HELPS_A_LITTLE = 0.005
"""Gains in accuracy, from twice the rows, that are called much and little."""

_EXPONENTS = np.linspace(0.1, 1.0, 19)
_FLOORS = np.linspace(0.0, 1.0, 21)
"""Of the fitted power law; a floor is a share of the least error that was measured."""

_Floats = npt.NDArray[np.float64]

FitAndScore = Callable[[npt.NDArray[np.int64]], FloatArray]
"""Fit a head on these training rows; its scores of the test rows, float32[N, K]."""


class CurvePoint(BaseModel):
    """Accuracy on the test rows with so many training rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    accuracy: float


class LearningCurve(BaseModel):
    """Accuracy over training rows, and what it would be with twice as many.

    Attributes
    ----------
    points : tuple of CurvePoint
        From few rows to all; the same test rows for each.
    more_rows : int
        Twice all rows.
    expected : Interval
        Accuracy at ``more_rows`` by the power law that fits the points best.
    gain : Interval
        ``expected`` less the accuracy with all rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: tuple[CurvePoint, ...]
    more_rows: int
    expected: Interval
    gain: Interval

    def message(self) -> str:
        """The answer to "would more examples help?", for people."""
        measured = ", ".join(f"{p.accuracy:.3f} with {p.rows}" for p in self.points)
        gain = self.gain.value
        verdict = (
            "more examples would help"
            if gain >= HELPS
            else "more examples would help a little"
            if gain >= HELPS_A_LITTLE
            else "more examples of the same kind would hardly help"
        )
        return (
            f"Accuracy {measured} rows; {self.expected.value:.3f} "
            f"({self.expected.low:.3f} to {self.expected.high:.3f}) expected with "
            f"{self.more_rows}: {verdict}."
        )


def learning_curve(
    train: Dataset,
    targets_m: IntArray,
    fit_and_score: FitAndScore,
    *,
    seed: int,
    progress: Progress | None = None,
) -> LearningCurve:
    """Measure accuracy with growing shares of the training rows, and extrapolate.

    A share holds the same part of each label, at least one row of it. Errors fall with the number
    of rows n as floor + scale * n^-exponent (Hestness et al., 2017); the three are fitted by least
    squares over a grid. The intervals run from the 2.5th to the 97.5th percentile over resamples
    of the test rows, each with its own fit: they do not cover that another draw of training rows
    would give another curve.

    Parameters
    ----------
    train : Dataset
        N rows.
    targets_m : int32[M]
        Right labels of the test rows.
    fit_and_score : callable
        Called once for each draw of each share.
    seed : int
        Of draws and resamples; at least 0.
    """
    progress = Silent() if progress is None else progress
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    right_pm = np.zeros((len(SHARES), len(targets_m)))
    for point, share in enumerate(SHARES):
        draws = DRAWS if share < 1 else 1
        for _ in range(draws):
            rows = _draw(train, share, rng)
            progress.phase(f"learning curve: {len(rows)} rows")
            right_pm[point] += (fit_and_score(rows).argmax(axis=1) == targets_m) / draws
        sizes.append(len(rows))
    more_rows = 2 * sizes[-1]
    errors_p = 1 - right_pm.mean(axis=1)
    picks_rm = rng.multinomial(
        len(targets_m), np.full(len(targets_m), 1 / len(targets_m)), RESAMPLES
    )
    errors_rp = 1 - picks_rm @ right_pm.T / len(targets_m)
    expected = 1 - extrapolate(np.array(sizes), errors_p[None], more_rows)[0]
    expected_r = 1 - extrapolate(np.array(sizes), errors_rp, more_rows)
    return LearningCurve(
        points=tuple(
            CurvePoint(rows=size, accuracy=float(1 - error))
            for size, error in zip(sizes, errors_p, strict=True)
        ),
        more_rows=more_rows,
        expected=metrics.interval(expected, expected_r),
        gain=metrics.interval(expected - (1 - errors_p[-1]), expected_r - (1 - errors_rp[:, -1])),
    )


def extrapolate(sizes_p: npt.NDArray[np.int64], errors_rp: _Floats, size: int) -> _Floats:
    """Errors at another size by the power law that fits best.

    Parameters
    ----------
    sizes_p : int64[P]
        Training rows, ascending; P from 2.
    errors_rp : float64[R, P]
        R curves, each with its own fit.
    size : int
        Training rows to extrapolate to.

    Returns
    -------
    float64[R]
    """
    # Sizes as multiples of the largest: then the scale is the error above the floor there.
    x_ep = (sizes_p / sizes_p[-1]) ** -_EXPONENTS[:, None]
    floors_rf = errors_rp.min(axis=1)[:, None] * _FLOORS
    above_rfp = errors_rp[:, None, :] - floors_rf[:, :, None]
    scale_rfe = np.maximum(above_rfp @ x_ep.T / np.square(x_ep).sum(axis=1), 0)
    residual_rfep = above_rfp[:, :, None, :] - scale_rfe[..., None] * x_ep
    loss_rfe = np.square(residual_rfep).sum(axis=-1)
    best_r = loss_rfe.reshape(len(errors_rp), -1).argmin(axis=1)
    floor_r, exponent_r = np.divmod(best_r, len(_EXPONENTS))
    every = np.arange(len(errors_rp))
    scale_r = scale_rfe[every, floor_r, exponent_r]
    at_size_r = (size / sizes_p[-1]) ** -_EXPONENTS[exponent_r]
    expected_r: _Floats = floors_rf[every, floor_r] + scale_r * at_size_r
    return expected_r


def _draw(train: Dataset, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Ascending indices of so many rows of each label, at least one."""
    labels = np.array(train.labels)
    chosen = []
    for label in sorted(set(train.labels)):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members)))
        chosen.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(chosen))
