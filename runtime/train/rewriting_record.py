"""``report.json`` of a transform task: how its tiers came about and how good they are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from sprat.train.evaluate_rewriting import RewritingReport
from sprat.train.record import LanguageRecord


class RewriterRecord(BaseModel):
    """One tier.

    Attributes
    ----------
    evaluation : RewritingReport
        On rows that share no text with those of its calibration.
    training : LanguageRecord
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluation: RewritingReport
    training: LanguageRecord


class RewritingRecord(BaseModel):
    """The content of ``report.json``, without any text of the rows.

    Attributes
    ----------
    tiers : dict of str to RewriterRecord
        By name, in the order of the manifest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tiers: dict[str, RewriterRecord]
