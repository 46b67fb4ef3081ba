"""``report.json``: how a bundle came about and how good each of its tiers is, without any text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import ReportSummary
from sprat.manifest import ModelRef
from sprat.train.calibrate import CalibrationFit
from sprat.train.category_fit import CategoryFit
from sprat.train.checks import DataReport
from sprat.train.curve import LearningCurve
from sprat.train.fit import Candidate
from sprat.train.loop import LoopSettings, LoopState
from sprat.train.provenance import DataSource, Provenance
from sprat.train.report import Report
from sprat.train.sureness import SurenessFit
from sprat.train.suspects import ConfusingPair, Suspect


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadTraining(_Part):
    """How a head was fitted.

    Attributes
    ----------
    folds : int
        Of the cross-validation.
    class_weights : str
        ``none`` or ``balanced``.
    regularization : float
        The inverse strength that was chosen (scikit-learn's C).
    whitening : float
        The exponent that was chosen; see `sprat.train.fit.fit_weights`.
    candidates : tuple of Candidate
        All that were tried.
    calibration : CalibrationFit
        What spoke for the calibration.
    """

    folds: int
    class_weights: str
    regularization: float
    whitening: float
    candidates: tuple[Candidate, ...]
    calibration: CalibrationFit


class Tuning(_Part):
    """How an encoder was fine-tuned.

    Attributes
    ----------
    settings : dict of str to float
        See `sprat.train.loop.LoopSettings`.
    base : ModelRef
        The encoder that training started from.
    validation : DataSource
        Training rows that were left out of training: they say when to stop, and the calibration
        is fitted on them.
    losses : tuple of float
        Mean loss of these before training and after each pass, in nats.
    best_pass : int
        Where it was least, which is what was kept.
    """

    settings: dict[str, float]
    base: ModelRef
    validation: DataSource
    losses: tuple[float, ...]
    best_pass: int


class TuningRecord(Tuning):
    """How an encoder was fine-tuned, and a head with it.

    Attributes
    ----------
    calibration : CalibrationFit
        What spoke for the calibration.
    """

    calibration: CalibrationFit


def tuning_facts(
    settings: LoopSettings, state: LoopState, *, base: ModelRef, validation: DataSource
) -> dict[str, Any]:
    """The members of a `Tuning`."""
    return {
        "settings": {key: value for key, value in asdict(settings).items() if value is not None},
        "base": base,
        "validation": validation,
        "losses": tuple(state.losses),
        "best_pass": state.best,
    }


class LanguageRecord(_Part):
    """How a tier was made that asks a model, here or remotely; what it asks was there before.

    Attributes
    ----------
    calibrated_on, evaluated_on : DataSource
        Rows that share no text.
    seed : int
        Of the parts and of resampling.
    calibration : CalibrationFit, SurenessFit or CategoryFit
        What spoke for the calibration.
    """

    calibrated_on: DataSource
    evaluated_on: DataSource
    seed: int
    calibration: SurenessFit | CategoryFit | CalibrationFit


class TierRecord(_Part):
    """One tier.

    Attributes
    ----------
    evaluation : Report
        On all test rows.
    without_leaked : ReportSummary or None
        On those that repeat no training row; None where none does, or all do.
    training : HeadTraining, TuningRecord or LanguageRecord
    """

    evaluation: Report
    without_leaked: ReportSummary | None
    training: HeadTraining | TuningRecord | LanguageRecord


class SuspectLine(_Part):
    """A `sprat.train.suspects.Suspect` without its text."""

    line: int
    label: str
    suggested: str
    confidence: float
    suggested_confidence: float

    @classmethod
    def of(cls, suspect: Suspect) -> SuspectLine:
        """All but the text."""
        return cls(**{name: getattr(suspect, name) for name in cls.model_fields})


class TrainingRecord(_Part):
    """The content of ``report.json``.

    Attributes
    ----------
    provenance : Provenance
    data : DataReport
        What was found in the rows.
    tiers : dict of str to TierRecord
        By name, in the order of the manifest.
    confusing_pairs : tuple of ConfusingPair
        Labels that are taken for each other, by out-of-fold answers of the last tier with a head.
    suspects : tuple of SuspectLine
        Probable label errors among the training rows, the most probable first, by the same.
    learning_curve : LearningCurve or None
        Of the same tier; None where it was not asked for.
    """

    provenance: Provenance
    data: DataReport
    tiers: dict[str, TierRecord]
    confusing_pairs: tuple[ConfusingPair, ...]
    suspects: tuple[SuspectLine, ...]
    learning_curve: LearningCurve | None

    @property
    def evaluation(self) -> Report:
        """That of the last tier, which answers."""
        return list(self.tiers.values())[-1].evaluation
