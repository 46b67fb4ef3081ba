"""What a tier makes of labelled rows: how sure it is of its answers, and whether they are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sprat.bundle import Bundle
from sprat.bundle_manifest import Moderation
from sprat.calibration import chance_of_actions, confidences
from sprat.tagger import all_read
from sprat.text.ngrams import with_ngrams
from sprat.train.asked import Rated
from sprat.train.categories import CategoryData
from sprat.train.data import Dataset
from sprat.train.features import Compute
from sprat.train.fit_categories import due_categories, highest
from sprat.train.fit_tagger import is_whole
from sprat.train.head import Embed
from sprat.train.spans import SpanDataset
from sprat.train.tagger import States
from sprat.train.wanted import Wanted
from sprat.train.window_vectors import WindowVectors

BLOCK = 256
"""Windows whose n-grams are made at a time."""

Rows = Dataset | CategoryData | SpanDataset | Wanted
"""Labelled rows of any kind of task."""


def rate_labels(bundle: Bundle, index: int, rows: Dataset, embed: Embed) -> Rated:
    """Of a tier of a classifier: whether the best label is that of the row.

    Parameters
    ----------
    index : int
        Which tier; it is calibrated, here and below.
    embed : callable
        Sentence vectors by its model.

    Raises
    ------
    DataError
        Rows have labels that the bundle does not have.
    """
    targets_n = rows.targets(bundle.manifest.labels)
    calibration = bundle.manifest.tiers[index].calibration
    assert calibration is not None
    ranked_nk, probabilities_nk = bundle.heads[index].rank(embed(rows.texts), 1)
    answer_n = ranked_nk[:, 0]
    return confidences(probabilities_nk[:, 0], calibration), answer_n, answer_n == targets_n


def rate_categories(bundle: Bundle, index: int, rows: CategoryData, compute: Compute) -> Rated:
    """Of a tier of a moderator: whether all categories of the row are flagged, and no other.

    Texts are scanned in windows, as a server does.

    Parameters
    ----------
    compute : callable
        Vectors of windows by its model, and what they lost.

    Raises
    ------
    DataError
        Rows have categories that the bundle does not have.
    """
    truth_nk = rows.truth(bundle.manifest.labels)
    tier, head = bundle.manifest.tiers[index], bundle.heads[index]
    settings = tier.moderation
    assert isinstance(settings, Moderation)  # a tier with heads has it
    assert tier.whole is not None
    vectors = WindowVectors(compute)
    windows, starts_n = vectors.windows(rows.texts, settings.window, settings.overlap)
    vectors_wd = vectors.of(windows)
    probability_wk = np.concatenate(
        [
            head.probabilities(
                with_ngrams(
                    vectors_wd[at : at + BLOCK], windows[at : at + BLOCK], settings.ngram_buckets
                )
            )
            for at in range(0, len(windows), BLOCK)
        ]
    )
    probability_nk = highest(probability_wk, starts_n)
    flagged_nk = probability_nk >= [each.flag_at for each in settings.thresholds]
    chance_n = chance_of_actions(probability_nk, settings.thresholds)
    return (
        confidences(chance_n, tier.whole),
        due_categories(probability_nk, settings.thresholds),
        (flagged_nk == truth_nk).all(axis=1),
    )


def rate_spans(bundle: Bundle, index: int, rows: SpanDataset, states: States) -> Rated:
    """Of a tier of an extract task: whether all spans of the row are found, and no other.

    Parameters
    ----------
    states : callable
        Token states by its encoder.

    Raises
    ------
    DataError
        Rows have fields that the bundle does not have.
    """
    rows.check_fields(bundle.manifest.labels)
    calibration = bundle.manifest.tiers[index].whole
    assert calibration is not None
    tagger = bundle.taggers[index]
    found = all_read(tagger.read(rows.texts, states(rows.texts), rows.requested))
    return (
        confidences(np.array([each.chance for each in found]), calibration),
        None,
        np.array(
            [is_whole(each.spans, gold) for each, gold in zip(found, rows.spans, strict=True)]
        ),
    )


RATE: dict[str, Callable[[Bundle, int, Any, Any], Rated]] = {
    "classify": rate_labels,
    "route": rate_labels,
    "moderate": rate_categories,
    "extract": rate_spans,
}
"""By kind of bundle."""


def row_names(rows: Rows) -> tuple[str, ...]:
    """What each row is, in a word: its label, its categories, or the fields that it has.

    One that is rewritten is a text, like all others.
    """
    if isinstance(rows, Wanted):
        return ("text",) * len(rows)
    if isinstance(rows, Dataset):
        return rows.labels
    if isinstance(rows, CategoryData):
        return rows.as_dataset().labels
    return tuple(
        " + ".join(sorted({span.field for span in spans})) or "(nothing)" for spans in rows.spans
    )
