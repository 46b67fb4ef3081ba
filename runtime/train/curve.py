"""Learning curve: what growing shares of the rows are worth, and whether more would help."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.manifest import Interval
from sprat.progress import Progress, Silent
from sprat.train import metrics
from sprat.train.data import Dataset
from sprat.train.metrics import Picks

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Each is twice the one before it, as the extrapolation is twice the last."""

DRAWS = 3
"""Random choices of the rows of each share; the curve is their mean."""

HELPS = 0.02
HELPS_A_LITTLE = 0.005
"""Gains, from twice the rows, that are called much and little."""

_EXPONENTS = np.linspace(0.1, 1.0, 19)
_FLOORS = np.linspace(0.0, 1.0, 21)
"""Of the fitted power law; a floor is a share of the least error that was measured."""

_Floats = npt.NDArray[np.float64]

Judge = Callable[[Picks], _Floats]
"""A figure of R samples of the M test rows, int[R, M]: float64[R] in [0, 1], 1 the best."""

FitAndJudge = Callable[[npt.NDArray[np.int64]], Judge]
"""Fit a head on the training rows at these indices; what it is worth on the test rows."""


class CurvePoint(BaseModel):
    """The figure on the test rows with so many training rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    value: float


class LearningCurve(BaseModel):
    """A figure over training rows, and what it would be with twice as many.

    Attributes
    ----------
    metric : str
        Which figure, such as ``accuracy``.
    points : tuple of CurvePoint
        From few rows to all; the same test rows for each.
    more_rows : int
        Twice all rows.
    expected : Interval
        The figure at ``more_rows`` by the power law that fits the points best.
    gain : Interval
        ``expected`` less the figure with all rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    points: tuple[CurvePoint, ...]
    more_rows: int
    expected: Interval
    gain: Interval

    @property
    def title(self) -> str:
        """The figure for people, such as "Accuracy"."""
        return self.metric.replace("_", " ").capitalize()

    def message(self) -> str:
        """The answer to "would more examples help?", for people."""
        measured = ", ".join(f"{p.value:.3f} with {p.rows}" for p in self.points)
        gain = self.gain.value
        verdict = (
            "more examples would help"
            if gain >= HELPS
            else "more examples would help a little"
            if gain >= HELPS_A_LITTLE
            else "more examples of the same kind would hardly help"
        )
        return (
            f"{self.title} {measured} rows; {self.expected.value:.3f} "
            f"({self.expected.low:.3f} to {self.expected.high:.3f}) expected with "
            f"{self.more_rows}: {verdict}."
        )


def learning_curve(
    train: Dataset,
    fit_and_judge: FitAndJudge,
    *,
    test_rows: int,
    metric: str,
    seed: int,
    progress: Progress | None = None,
) -> LearningCurve:
    """Measure a figure with growing shares of the training rows, and extrapolate.

    A share holds the same part of each label, at least one row of it. What is missing to 1 falls
    with the number of rows n as floor + scale * n^-exponent (Hestness et al., 2017); the three are
    fitted by least squares over a grid. The intervals run from the 2.5th to the 97.5th percentile
    over resamples of the test rows, each with its own fit: they do not cover that another draw of
    training rows would give another curve.

    Parameters
    ----------
    train : Dataset
        N rows.
    fit_and_judge : callable
        Called once for each draw of each share.
    test_rows : int
        M, from 1.
    metric : str
        What the figure is called, such as ``accuracy``.
    seed : int
        Of draws and resamples; at least 0.
    """
    progress = Silent() if progress is None else progress
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    judges: list[list[Judge]] = []
    for share in SHARES:
        judges.append([])
        for _ in range(DRAWS if share < 1 else 1):
            rows = _draw(train, share, rng)
            progress.phase(f"learning curve: {len(rows)} rows")
            judges[-1].append(fit_and_judge(rows))
        sizes.append(len(rows))

    def statistics(picks_rm: Picks) -> dict[str, _Floats]:
        means = [np.mean([judge(picks_rm) for judge in each], axis=0) for each in judges]
        return {metric: np.stack(means, axis=1)}

    values_p = statistics(np.arange(test_rows)[None])[metric][0]
    values_rp = metrics.bootstrap(statistics, (test_rows,), rng)[metric]
    more_rows = 2 * sizes[-1]
    expected = 1 - extrapolate(np.array(sizes), 1 - values_p[None], more_rows)[0]
    expected_r = 1 - extrapolate(np.array(sizes), 1 - values_rp, more_rows)
    return LearningCurve(
        metric=metric,
        points=tuple(
            CurvePoint(rows=size, value=float(value))
            for size, value in zip(sizes, values_p, strict=True)
        ),
        more_rows=more_rows,
        expected=metrics.interval(expected, expected_r),
        gain=metrics.interval(expected - values_p[-1], expected_r - values_rp[:, -1]),
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
