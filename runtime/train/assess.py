"""Evaluate the bundles that there are: a tier, on labelled rows, alone or beside another bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import Calibration
from sprat.errors import DataError, InvalidInput
from sprat.progress import Progress, Silent
from sprat.train.asked import Ask, log_probabilities
from sprat.train.compare import Comparison, compare
from sprat.train.data import Dataset
from sprat.train.evaluate import SURE, evaluate
from sprat.train.head import Embed, embed_texts
from sprat.train.report import Report
from sprat.values import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """What a bundle answers, and how good that is.

    Attributes
    ----------
    report : Report
    rows : Dataset
        N rows that are in scope.
    answers : tuple of str
        Label that each of them got.
    """

    report: Report
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
    if embed is not None:
        vectors = embed_texts(embed, (*inside.texts, *outside.texts))
        logits = bundle.heads[tier].logits(vectors)
        logits_nk, outside_mk = logits[: len(inside)], logits[len(inside) :]
    else:
        assert ask is not None
        logits_nk, outside_mk = (
            log_probabilities(ask, manifest.labels, rows, progress) for rows in (inside, outside)
        )
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


def compare_assessments(first: Assessment, second: Assessment, *, seed: int = 0) -> Comparison:
    """Compare two bundles on the same rows; they may have other models and other labels."""
    return compare(
        first.rows.labels, first.answers, second.answers, lines=first.rows.lines, seed=seed
    )


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
