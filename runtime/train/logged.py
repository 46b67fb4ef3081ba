"""Labelled rows from a decision log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sprat.bundle_manifest import BundleManifest
from sprat.decisions import ALLOW, RIGHT_OR_WRONG, Decision
from sprat.errors import DataError, InvalidInput
from sprat.train.categories import CategoryData
from sprat.train.data import Dataset
from sprat.train.thresholds import Rule
from sprat.tuning_manifest import LoggedRows

KINDS = ("classify", "route", "moderate")
"""Of tasks whose right answer feedback tells."""


def labelled(
    decisions: Iterable[Decision], manifest: BundleManifest, rule: Rule, path: Path, *, seed: int
) -> tuple[Dataset | CategoryData, LoggedRows]:
    """The rows of a decision log whose right answer is known, or nearly.

    A row with feedback has that as its label. People correct what is wrong rather than confirm what
    is right, so these rows alone make every tier look worse than it is. Where a share of the
    traffic was shadowed, a random sample of it comes beside them: the shadowed rows, and of those
    that the last tier answered as large a share, all with the last tier's answer as their label.
    What is lost against the last tier comes out too high by that, never too low. A bound on errors
    takes no such rows: they would make the last tier perfect.

    Of a moderate task feedback that confirms an answer makes its categories the right ones, and one
    that names another category, that one alone. What is only called wrong has no right answer. Of
    shadows not all categories are known, so that none are taken.

    Parameters
    ----------
    decisions : iterable of Decision
        Of one task.
    manifest : BundleManifest
        The bundle that will be tuned. Feedback counts whichever version answered; what the last
        tier said counts only of this version.
    rule : {"loss", "error", "cost"}
        Of the aim.
    path : Path
        The log, for messages.
    seed : int
        Of the sample, at least 0.

    Raises
    ------
    InvalidInput
        The bundle is of another kind than classify, route or moderate.
    DataError
        The rows are of another kind, have no texts, or no label: it says what to set.
    """
    if manifest.kind not in KINDS:
        raise InvalidInput(
            f"{manifest.name}: a log has right answers of classify, route and moderate tasks only, "
            f"not of {manifest.kind}; bring labelled rows",
            field="log",
        )
    right: list[Decision] = []
    shadowed: list[Decision] = []
    last: list[Decision] = []
    rows = without_text = early = 0
    last_name = manifest.tiers[-1].name
    for each in decisions:
        rows += 1
        if each.kind != manifest.kind:
            raise DataError(
                str(path), 0, f"expected a {manifest.kind} task, found one of kind {each.kind}"
            )
        is_same = each.task_version == manifest.version and each.degraded is None
        is_last = each.tiers[-1].name == last_name
        # As those are that the server draws shadowed rows from.
        early += is_same and not is_last and not each.abstained
        if each.text is None:
            without_text += 1
        elif each.feedback is not None:
            if _right(each, manifest) is not None:
                right.append(each)
        elif rule == "error" or not is_same or manifest.kind == "moderate":
            continue
        elif each.shadow is not None:
            shadowed.append(each)
        elif is_last:
            last.append(each)
    if not right and not shadowed:
        raise DataError(str(path), 0, _nothing(rows, without_text))
    sampled = list(shadowed)
    if shadowed:
        share = len(shadowed) / early
        drawn_n = np.random.default_rng(seed).random(len(last)) < share
        sampled += [each for each, is_drawn in zip(last, drawn_n.tolist(), strict=True) if is_drawn]
    chosen = sorted([*right, *sampled], key=lambda each: (each.time, each.id))
    texts = tuple(each.text or "" for each in chosen)
    answers = [_right(each, manifest) or () for each in chosen]
    digest = hashlib.sha256()
    for row in zip(texts, answers, strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    lines = tuple(each.id for each in chosen)
    data: Dataset | CategoryData
    if manifest.kind == "moderate":
        data = CategoryData(texts, tuple(answers), lines, str(path), digest.hexdigest())
    else:
        labels = tuple(label for (label,) in answers)
        data = Dataset(texts, labels, lines, str(path), digest.hexdigest())
    return data, LoggedRows(
        with_feedback=len(right),
        confirmed=sum(_is_confirmed(each, manifest) for each in right),
        from_last_tier=len(sampled),
        since=chosen[0].time,
        until=chosen[-1].time,
    )


def _right(decision: Decision, manifest: BundleManifest) -> tuple[str, ...] | None:
    """The right labels, or what the last tier said; None: they are not known."""
    right = decision.feedback
    if right is None:
        return ((decision.shadow or decision.tiers[-1]).label,)
    if manifest.kind != "moderate":
        return (right,)
    if _is_confirmed(decision, manifest):
        return () if decision.label == ALLOW else decision.flagged
    if right in manifest.labels:
        return (right,)
    return () if right == ALLOW else None


def _is_confirmed(decision: Decision, manifest: BundleManifest) -> bool:
    """Whether feedback says that the answer is right; an abstention is none."""
    right = decision.feedback
    # A category may have such a name, too.
    is_word = manifest.kind == "moderate" and right not in manifest.labels
    if is_word and right == RIGHT_OR_WRONG[0]:
        return decision.label != ""
    return right == decision.label


def _nothing(rows: int, without_text: int) -> str:
    if rows == 0:
        return "expected rows of the task in that time, found none"
    if without_text == rows:
        return (
            f"expected rows with their texts, found none among {rows}: set log.store_text = true, "
            "and tune on what is logged from then on"
        )
    return (
        f"expected rows with a right answer, found none among {rows} of which "
        f"{rows - without_text} have a text: give feedback on them, or shadow a share of the "
        "traffic to tune for a loss"
    )
