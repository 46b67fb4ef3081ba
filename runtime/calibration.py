"""Apply a calibration: from the probability of the best label to the confidence in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.bundle_manifest import Calibration


def confidences(
    best_n: npt.NDArray[np.floating], calibration: Calibration
) -> npt.NDArray[np.float64]:
    """Calibrated probabilities that answers are right.

    Parameters
    ----------
    best_n : float[N]
        Probability of each row's best label at the calibration's temperature, in [0, 1].
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
