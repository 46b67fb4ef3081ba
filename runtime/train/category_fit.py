"""What was fitted to make probabilities of what a tier says of categories."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import AskedModeration, Calibration


class CategoryFit(BaseModel):
    """The calibration of a tier of a moderate task that asks.

    Attributes
    ----------
    calibration : Calibration
        Of whole answers.
    moderation : AskedModeration
        Odds of each category, and the thresholds that were chosen for them.
    rows, not_sound : int
        Answers that it was fitted on; others that were no list of the categories.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibration: Calibration
    moderation: AskedModeration
    rows: int
    not_sound: int
