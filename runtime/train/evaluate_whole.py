"""How calibrated the confidence in whole answers is: of a moderation, of an extraction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sprat.manifest import Interval
from sprat.train import metrics
from sprat.train.metrics import Floats
from sprat.train.report import ReliabilityBin

WHOLE_ECE = "whole_ece"
"""Name of the figure among those of a report."""


class WholeReport(BaseModel):
    """What the confidence that all of an answer is right is worth.

    Attributes
    ----------
    ece : Interval
        Its expected calibration error, in [0, 1], with a 95 % bootstrap interval; see
        `sprat.train.metrics.calibration_error`.
    ece_noise : float
        What it would be, on average, if the confidences were perfect.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least confident answers to the most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ece: Interval
    ece_noise: float
    reliability: tuple[ReliabilityBin, ...]


def evaluate_whole(
    confidence_n: Floats, right_n: npt.NDArray[np.bool_], *, seed: int = 0
) -> WholeReport:
    """Compare confidences with what came true.

    Parameters
    ----------
    confidence_n : float64[N]
        In [0, 1]; N from 1.
    right_n : bool[N]
        Whether each answer is right as a whole.
    seed : int
        Of the resampling, at least 0.
    """
    rng = np.random.default_rng(seed)
    order = metrics.ascending(confidence_n, rng)
    confidence_n, right_n = confidence_n[order], right_n[order]
    ece, noise, samples = metrics.calibration_figures(confidence_n, right_n, rng)
    return WholeReport(
        ece=metrics.interval(ece, samples),
        ece_noise=noise,
        reliability=metrics.reliability(confidence_n, right_n),
    )
