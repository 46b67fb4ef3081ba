"""Evaluate the bundles that there are on labelled rows: what they answer, or a tier alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import Calibration
from sprat.errors import DataError, InvalidInput
from sprat.progress import Progress, Silent
from sprat.train.asked import Ask, OpenTier
from sprat.train.asked_labels import log_probabilities
from sprat.train.compare import Comparison, compare
from sprat.train.data import Dataset
from sprat.train.evaluate import SURE, evaluate
from sprat.train.evaluate_cascade import CascadeReport, TierOutput, evaluate_cascade
from sprat.train.head import Embed, OpenEmbed, embed_texts
from sprat.train.report import Report
from sprat.train.row_cost import row_cost
from sprat.train.thresholds import ABSTAINED
from sprat.values import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """What a bundle answers, and how good that is.

    Attributes
    ----------
    report : Report or CascadeReport
    rows : Dataset
        N rows that are in scope.
    answers : tuple of str
        Label that each of them got; empty where a cascade abstained.
    """

    report: Report | CascadeReport
    rows: Dataset
    answers: tuple[str, ...]


def assess(
    bundle: Bundle,
    data: Dataset,
    *,
    embed: Embed | None = None,
    ask: Ask | None = None,
    tier: int = -1,
    out_of_scope_label: str | None = None,
    threshold: float = SURE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Assessment:
    """Evaluate a tier of a bundle on labelled rows.

    Parameters
    ----------
    embed : callable
        Sentence vectors of texts by the model of a tier with a head. Called once, with no text
        twice.
    ask : callable
        The answers of a language tier instead.
    tier : int
        Index of the tier; the last one answers requests.
    out_of_scope_label : str, optional
        Rows with this label belong to none of the bundle's.
    threshold : float
        Confidence from which on an answer counts as sure, in (0, 1].
    seed : int
        Of the resampling, at least 0.
    progress : Progress, optional
        Told of the rows that were asked about.

    Raises
    ------
    DataError
        When rows have labels that the bundle does not have: with their lines and its labels. When
        no row is out of scope, or all are.
    InvalidInput
        When ``out_of_scope_label`` is one of the bundle's.
    """
    progress = Silent() if progress is None else progress
    manifest = bundle.manifest
    inside, outside = _in_and_out(data, manifest.labels, out_of_scope_label)
    targets_n = inside.targets(manifest.labels)
    logits_nk, outside_mk = _logits(bundle, tier, (inside, outside), embed, ask, progress)
    report = evaluate(
        logits_nk,
        targets_n,
        labels=manifest.labels,
        lines=inside.lines,
        calibration=manifest.tiers[tier].calibration or Calibration(temperature=1.0),
        out_of_scope=outside_mk if len(outside) else None,
        threshold=threshold,
        seed=seed,
    )
    return Assessment(report, inside, _answers(logits_nk, manifest.labels))


def assess_cascade(
    bundle: Bundle,
    data: Dataset,
    *,
    engines: Sequence[str],
    open_embed: OpenEmbed,
    open_tier: OpenTier,
    remote_cost_ms: Callable[[], float] | None = None,
    out_of_scope_label: str | None = None,
    threshold: float = SURE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Assessment:
    """Evaluate what a cascade answers to labelled rows, and each of its tiers.

    Every tier reads every row once. The thresholds are those of the bundle.

    Parameters
    ----------
    engines : sequence of str
        Of the models of the tiers; ``remote`` of a remote tier.
    open_embed, open_tier : callable
        See `OpenEmbed`, asked for the models of tiers with a head; and `OpenTier`, for the others.
    remote_cost_ms : callable, optional
        See `sprat.train.asked.say_and_cost`.

    See `assess` for the others and for what is raised.
    """
    progress = Silent() if progress is None else progress
    manifest = bundle.manifest
    inside, outside = _in_and_out(data, manifest.labels, out_of_scope_label)
    targets_n = inside.targets(manifest.labels)
    tiers = []
    for place, (tier, engine) in enumerate(zip(manifest.tiers, engines, strict=True)):
        with ExitStack() as stack:
            embed = ask = None
            if tier.weights:
                embed = stack.enter_context(open_embed(tier.model.name))
            else:
                ask = stack.enter_context(open_tier(manifest, place))
            if tier.remote is None:  # What is done once only is nobody's cost.
                _logits(bundle, place, (inside.take([0]),), embed, ask, Silent())
            progress.phase(f"tier {tier.name}: {len(data)} rows", total=len(data))
            (logits_nk, outside_mk), cost_ms = row_cost(
                functools.partial(_logits, bundle, place, (inside, outside), embed, ask, progress),
                len(data),
            )
        if tier.remote is not None and remote_cost_ms is not None:
            cost_ms = remote_cost_ms()
        tiers.append(
            TierOutput(
                tier.name,
                engine,
                tier.accept_at if place in manifest.answering else None,
                tier.calibration or Calibration(temperature=1.0),
                logits_nk,
                outside_mk,
                cost_ms,
            )
        )
    report, label_n = evaluate_cascade(
        tiers,
        targets_n,
        labels=manifest.labels,
        lines=inside.lines,
        threshold=threshold,
        seed=seed,
    )
    answers = ("" if at == ABSTAINED else manifest.labels[at] for at in label_n.tolist())
    return Assessment(report, inside, tuple(answers))


def compare_assessments(first: Assessment, second: Assessment, *, seed: int = 0) -> Comparison:
    """Compare two bundles on the same rows; they may have other models and other labels."""
    return compare(
        first.rows.labels, first.answers, second.answers, lines=first.rows.lines, seed=seed
    )


def _logits(
    bundle: Bundle,
    place: int,
    parts: Sequence[Dataset],
    embed: Embed | None,
    ask: Ask | None,
    progress: Progress,
) -> list[FloatArray]:
    """What a tier says of rows, by the model of its head or by asking: float32[N, K]."""
    if embed is None:
        assert ask is not None
        labels = bundle.manifest.labels
        return [log_probabilities(ask, labels, rows, progress) for rows in parts]
    vectors = embed_texts(embed, tuple(text for rows in parts for text in rows.texts))
    edges = np.cumsum([len(rows) for rows in parts[:-1]])
    return list(np.split(bundle.heads[place].logits(vectors), edges))


def _answers(logits_nk: FloatArray, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels[i] for i in logits_nk.argmax(axis=1).tolist())


def _in_and_out(
    data: Dataset, labels: Sequence[str], out_of_scope_label: str | None
) -> tuple[Dataset, Dataset]:
    if out_of_scope_label is None:
        return data, data.take(())
    if out_of_scope_label in labels:
        raise InvalidInput(
            f"out_of_scope_label: {out_of_scope_label!r} is a label of the bundle",
            field="out_of_scope_label",
        )
    is_outside = np.array([label == out_of_scope_label for label in data.labels])
    if is_outside.all() or not is_outside.any():
        found = "every row has" if is_outside.all() else "no row has"
        raise DataError(data.path, 0, f"{found} the label {out_of_scope_label!r}")
    return (
        data.take(np.flatnonzero(~is_outside).tolist()),
        data.take(np.flatnonzero(is_outside).tolist()),
    )
