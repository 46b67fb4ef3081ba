"""Labelled rows from a decision log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sprat.bundle_manifest import BundleManifest
from sprat.decisions import Decision
from sprat.drift_log import KINDS
from sprat.errors import DataError, InvalidInput
from sprat.train.data import Dataset
from sprat.train.thresholds import Rule
from sprat.tuning_manifest import LoggedRows


def labelled(
    decisions: Iterable[Decision], manifest: BundleManifest, rule: Rule, path: Path, *, seed: int
) -> tuple[Dataset, LoggedRows]:
    """The rows of a decision log whose right answer is known, or nearly.

    A row with feedback has that as its label. People correct what is wrong rather than confirm what
    is right, so these rows alone make every tier look worse than it is. Where a share of the
    traffic was shadowed, a random sample of it comes beside them: the shadowed rows, and of those
    that the last tier answered as large a share, all with the last tier's answer as their label.
    What is lost against the last tier comes out too high by that, never too low. A bound on errors
    takes no such rows: they would make the last tier perfect.

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
        The bundle is of another kind than classify or route.
    DataError
        The rows are of another kind, have no texts, or no label: it says what to set.
    """
    if manifest.kind not in KINDS:
        raise InvalidInput(
            f"{manifest.name}: a log has right answers of classify and route tasks only, not of "
            f"{manifest.kind}; bring labelled rows",
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
            right.append(each)
        elif rule == "error" or not is_same:
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
    labels = tuple(map(_label, chosen))
    digest = hashlib.sha256()
    for row in zip(texts, labels, strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    lines = tuple(each.id for each in chosen)
    return Dataset(texts, labels, lines, str(path), digest.hexdigest()), LoggedRows(
        with_feedback=len(right),
        confirmed=sum(each.feedback == each.label for each in right),
        from_last_tier=len(sampled),
        since=chosen[0].time,
        until=chosen[-1].time,
    )


def _label(decision: Decision) -> str:
    """What is right, or what the last tier said."""
    if decision.feedback is not None:
        return decision.feedback
    return (decision.shadow or decision.tiers[-1]).label


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
