"""Evaluate the moderators that there are: on labelled rows, alone or beside another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from sprat.bundle_manifest import BundleManifest
from sprat.train.categories import CategoryData
from sprat.train.compare import Findings, FindingsComparison, compare_findings
from sprat.train.evaluate_categories import (
    ModerationReport,
    category_findings,
    evaluate_categories,
)
from sprat.values import Action, Moderation

Moderate = Callable[[Sequence[str]], Sequence[Moderation]]
"""What a server answers to texts, in the same order."""


@dataclass(frozen=True, slots=True, eq=False)
class ModerationAssessment:
    """What a moderator answers, and how good that is.

    Attributes
    ----------
    report : ModerationReport
    findings : Findings
        The categories that each text was flagged for.
    actions : tuple of str
        What was done about each text.
    """

    report: ModerationReport
    findings: Findings
    actions: tuple[Action, ...]


class ActionPair(BaseModel):
    """Texts with these actions of the first and of the second moderator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Action
    second: Action
    rows: int


class ModerationComparison(FindingsComparison):
    """The first of two moderators beside the second.

    Attributes
    ----------
    same_action : float
        Share of texts that both act on alike, in [0, 1].
    actions : tuple of ActionPair
        Every pair of actions that a text got, the most frequent first.
    """

    same_action: float
    actions: tuple[ActionPair, ...]


def assess_moderator(
    manifest: BundleManifest, rows: CategoryData, *, moderate: Moderate, seed: int = 0
) -> ModerationAssessment:
    """Evaluate what a moderator answers to labelled rows, or would answer where it abstains.

    Parameters
    ----------
    moderate : callable
        What the moderator answers. Called once.
    seed : int
        Of the resampling, at least 0.

    Raises
    ------
    DataError
        When rows have categories that the bundle does not have: with their lines and its
        categories.
    """
    truth_nk = rows.truth(manifest.labels)
    settings = manifest.tiers[-1].moderation
    assert settings is not None  # the manifest of a moderate bundle has it
    answers = moderate(rows.texts)
    flagged_nk = np.array(
        [[each.action != "allow" for each in answer.categories] for answer in answers]
    )
    sure = [answer.confidence for answer in answers]
    report = evaluate_categories(
        np.array([[each.probability for each in answer.categories] for answer in answers]),
        truth_nk,
        names=manifest.labels,
        flag_at=[each.flag_at for each in settings.thresholds],
        flagged_nk=flagged_nk,
        confidence_n=None if None in sure else np.array(sure),
        seed=seed,
    )
    return ModerationAssessment(
        report,
        category_findings(flagged_nk, truth_nk, manifest.labels),
        tuple(answer.action for answer in answers),
    )


def compare_moderators(
    rows: CategoryData,
    first: ModerationAssessment,
    second: ModerationAssessment,
    *,
    seed: int = 0,
) -> ModerationComparison:
    """Compare two moderators on the same rows; they may have other models and categories."""
    compared = compare_findings(
        rows.as_dataset().labels, first.findings, second.findings, lines=rows.lines, seed=seed
    )
    pairs = Counter(zip(first.actions, second.actions, strict=True))
    same = sum(count for (one, other), count in pairs.items() if one == other)
    return ModerationComparison(
        rows=compared.rows,
        micro_f1=compared.micro_f1,
        parts=compared.parts,
        same_action=same / len(rows),
        actions=tuple(
            ActionPair(first=one, second=other, rows=count)
            for (one, other), count in pairs.most_common()
        ),
    )
