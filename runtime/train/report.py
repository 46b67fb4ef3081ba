"""What an evaluation of a classifier says: plain JSON, without any text of the rows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.manifest import Interval

METRICS = (
    "accuracy",
    "macro_f1",
    "ece",
    "nll",
    "brier",
    "aurc",
    "e_aurc",
    "coverage_at_risk_1",
    "coverage_at_risk_5",
    "above",
    "wrong_above",
)
SCOPE_METRICS = ("out_of_scope_auroc", "out_of_scope_fpr95", "out_of_scope_above")
"""Further ones where there are rows of none of the labels."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelReport(_Part):
    """How one label fares.

    Attributes
    ----------
    precision, recall, f1 : float
        In [0, 1]; 0 where nothing was predicted or nothing was there.
    f1_interval : (float, float)
        95 % bootstrap interval of ``f1``.
    support, predicted : int
        Rows that have the label; rows that got it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]
    support: int
    predicted: int


class Confusion(_Part):
    """Rows of ``label`` that were answered with ``predicted``."""

    label: str
    predicted: str
    count: int


class WrongAnswer(_Part):
    """A wrong answer with a high confidence: a hard case, or a wrong label in the data.

    Attributes
    ----------
    line : int
        The row's line in the data file.
    """

    line: int
    label: str
    predicted: str
    confidence: float


class ReliabilityBin(_Part):
    """Rows of similar confidence: calibrated answers have ``accuracy`` near ``confidence``.

    Attributes
    ----------
    confidence, accuracy : float
        Means over the bin.
    lowest, highest : float
        The confidences that it spans.
    """

    n: int
    confidence: float
    accuracy: float
    lowest: float
    highest: float


class RiskPoint(_Part):
    """What a threshold does: a point of the risk-coverage curve.

    Attributes
    ----------
    accept_at : float
        Least confidence of an answer.
    coverage : float
        Share of rows that are answered.
    risk : float
        Share of wrong answers among them.
    """

    accept_at: float
    coverage: float
    risk: float


class ThresholdPoint(_Part):
    """What a threshold of a category does.

    Attributes
    ----------
    at : float
        Least probability of a text that is flagged.
    flagged : int
        Rows that are.
    precision, recall : float
        Share of them that belong to the category; share of its rows that are flagged.
    """

    at: float
    flagged: int
    precision: float
    recall: float


class Figures(_Part):
    """What reports of figures with intervals have in common.

    Attributes
    ----------
    n : int
        Rows.
    intervals : dict of str to (float, float)
        95 % bootstrap interval of each figure, by its name.
    """

    n: int
    intervals: dict[str, tuple[float, float]]

    def interval(self, metric: str) -> Interval:
        """A figure with its interval; ``metric`` is one of ``intervals``."""
        low, high = self.intervals[metric]
        return Interval(value=getattr(self, metric), low=low, high=high)

    def summary(self) -> ReportSummary:
        """What a bundle's manifest says of the evaluation."""
        return ReportSummary(
            n=self.n, metrics={name: self.interval(name) for name in self.intervals}
        )


class Report(Figures):
    """An evaluation of one tier on rows that it has not seen.

    Attributes
    ----------
    n : int
        Rows of the task's labels; every figure is of these but those of rows out of scope.
    accuracy : float
        Share of right answers.
    macro_f1 : float
        Mean F1 over the labels that occur among the rows or the answers.
    ece : float
        Expected calibration error of the confidences, in [0, 1], in 15 bins of equally many rows;
        see `sprat.train.metrics.calibration_error`.
    ece_noise : float
        What ``ece`` would be, on average, if the confidences were perfect: the part that comes
        from having so few rows.
    nll : float
        Mean negative log-likelihood of the right label, in nats.
    brier : float
        Mean squared distance between probabilities and the one-hot truth, in [0, 2].
    aurc, e_aurc : float
        Area under the risk-coverage curve, and its excess over the least possible one at this
        accuracy; see `sprat.train.metrics.least_risk_areas`.
    coverage_at_risk_1, coverage_at_risk_5 : float
        Largest share of rows that a threshold answers with at most 1 % or 5 % wrong answers.
    threshold : float
        The confidence from which on an answer counts as sure.
    above, wrong_above : float
        Shares of all rows: answered at or above ``threshold``; answered so, and wrong.
    out_of_scope_rows : int
        Rows of none of the labels.
    out_of_scope_auroc, out_of_scope_fpr95 : float or None
        How well confidence tells them apart; see `sprat.train.metrics.scope_figures`. None without
        such rows.
    out_of_scope_above : float or None
        Share of them that is answered at or above ``threshold``, always wrongly.
    intervals : dict of str to (float, float)
        95 % bootstrap interval of each of `METRICS`, and of `SCOPE_METRICS` where they are there.
    risk_points : tuple of RiskPoint
        The threshold of each of the two coverages, where there is one.
    worst : tuple of WrongAnswer
        The most confident wrong answers at or above ``threshold``, at most 20.
    labels : tuple of LabelReport
        In the order of the bundle.
    confusions : tuple of Confusion
        Every pair of labels that was confused, the most frequent first.
    reliability : tuple of ReliabilityBin
        The bins of ``ece``, from the least confident answers to the most.
    risk_coverage : tuple of RiskPoint
        At most 100 points of the curve, from the highest threshold to the lowest.
    """

    accuracy: float
    macro_f1: float
    ece: float
    ece_noise: float
    nll: float
    brier: float
    aurc: float
    e_aurc: float
    coverage_at_risk_1: float
    coverage_at_risk_5: float
    threshold: float
    above: float
    wrong_above: float
    out_of_scope_rows: int = 0
    out_of_scope_auroc: float | None = None
    out_of_scope_fpr95: float | None = None
    out_of_scope_above: float | None = None
    risk_points: tuple[RiskPoint, ...]
    worst: tuple[WrongAnswer, ...]
    labels: tuple[LabelReport, ...]
    confusions: tuple[Confusion, ...]
    reliability: tuple[ReliabilityBin, ...]
    risk_coverage: tuple[RiskPoint, ...]
