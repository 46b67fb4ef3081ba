"""``report.json`` of a moderator: how it came about and how good it is, without any text."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from sprat.train.checks import DataReport
from sprat.train.curve import LearningCurve
from sprat.train.evaluate_categories import ModerationReport
from sprat.train.fit import ClassWeights
from sprat.train.fit_categories import CategoryCandidate
from sprat.train.provenance import Provenance
from sprat.train.record import LanguageRecord, SuspectLine


class TierModeration(BaseModel):
    """How the heads of one tier came about, and how good they are.

    Attributes
    ----------
    ngrams : bool
        Whether n-grams of characters help; see `sprat.text.ngrams`.
    nll : dict of str to float
        Mean negative log-likelihood of the out-of-fold probabilities over all categories, without
        (``vectors``) and with n-grams (``vectors and ngrams``): these are taken where they lower it
        by 5 % or more.
    candidates : dict of str to tuple of CategoryCandidate
        Of each category, what was tried.
    regularization : dict of str to float
        Of each category, what was taken.
    """

    model_config = ConfigDict(frozen=True)

    evaluation: ModerationReport
    without_leaked: ModerationReport | None
    ngrams: bool
    nll: dict[str, float]
    candidates: dict[str, tuple[CategoryCandidate, ...]]
    regularization: dict[str, float]


class AskedRecord(BaseModel):
    """One tier that asks a model or an endpoint.

    Attributes
    ----------
    evaluation : ModerationReport
        On rows that it was not calibrated on.
    training : LanguageRecord
    """

    model_config = ConfigDict(frozen=True)

    evaluation: ModerationReport
    training: LanguageRecord


class ModerationRecord(BaseModel):
    """The content of a moderator's ``report.json``.

    Attributes
    ----------
    tiers : dict of str to TierModeration
        Those with heads, by name, in the order of the manifest.
    asked : dict of str to AskedRecord
        Those that ask, which were added later.
    suspects : dict of str to tuple of SuspectLine
        Of each category, the training rows that probably miss it or have it wrongly, the most
        probable first, by out-of-fold probabilities of the last tier with heads.
    learning_curve : LearningCurve or None
        Mean average precision of the same tier; None where it was not asked for.
    """

    model_config = ConfigDict(frozen=True)

    provenance: Provenance
    class_weights: ClassWeights
    folds: int
    data: DataReport
    tiers: dict[str, TierModeration]
    asked: dict[str, AskedRecord] = {}
    suspects: dict[str, tuple[SuspectLine, ...]]
    learning_curve: LearningCurve | None
