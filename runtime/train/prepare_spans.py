"""Check and split rows with spans before anything is trained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError, InvalidInput
from sprat.train.checks import Conflicts
from sprat.train.spans import SpanDataset, resolve_overlaps
from sprat.train.split import MAX_SHOWN_LABELS, MOST_FOLDS, same_texts
from sprat.values import IntArray

log = logging.getLogger(__name__)

LEAST_TEXTS = 4
"""Different texts with a span of each field that training needs."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSpans:
    """Rows that taggers can be trained and evaluated on.

    Attributes
    ----------
    train, test : SpanDataset
    fields : tuple of str
        What there is to find, sorted.
    many : frozenset of str
        Fields that some training text has more than once.
    folds_n : int32[N]
        Fold of each training row, from 0; texts that are the same share theirs.
    is_repeated_m : bool[M]
        Which test rows have a text that is among those of the training rows.
    seed : int
        Of split, folds and resampling.
    """

    train: SpanDataset
    test: SpanDataset
    fields: tuple[str, ...]
    many: frozenset[str]
    folds_n: IntArray
    is_repeated_m: npt.NDArray[np.bool_]
    seed: int


def prepare_spans(
    data: SpanDataset,
    *,
    test: SpanDataset | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    seed: int = 0,
) -> PreparedSpans:
    """Check rows and split them.

    Parameters
    ----------
    data : SpanDataset
        Four or more different texts with a span of each field. Texts without spans teach where
        there are none.
    test : SpanDataset, optional
        Rows to evaluate on; ``data`` is then trained on as a whole.
    held_out : float
        Share of the different texts to evaluate on where there is no ``test``, above 0 and below 1.
    conflicts : {"refuse", "drop", "keep"}
        What happens to training rows with spans that overlap; see
        `sprat.train.spans.resolve_overlaps`. Test rows may have them: a tagger finds one at most.
    seed : int
        Of split, folds and resampling, at least 0.

    Raises
    ------
    DataError
        When the rows do not suffice, have spans that overlap, or requested fields without any
        span; or ``test`` has fields that ``data`` does not have.
    InvalidInput
        When ``held_out`` is out of range.
    """
    fields = data.fields
    data.check_fields(fields)
    train, held = _split(data, held_out, seed=seed) if test is None else (data, test)
    held.check_fields(fields)
    train = resolve_overlaps(train, conflicts)
    _check_rows(train, fields)
    numbers = same_texts((*train.texts, *held.texts))
    is_repeated_m = np.isin(numbers[len(train) :], numbers[: len(train)])
    if is_repeated_m.any():
        log.warning(
            "%d of %d test rows repeat a training text: they make the figures look better",
            is_repeated_m.sum(),
            len(held),
        )
    return PreparedSpans(
        train, held, fields, _many(train), _folds(train, seed=seed), is_repeated_m, seed
    )


def _check_rows(data: SpanDataset, fields: Sequence[str]) -> None:
    if not fields:
        raise DataError(data.path, 0, "no row has a span")
    groups = same_texts(data.texts).tolist()
    texts = {
        (span.field, group)
        for spans, group in zip(data.spans, groups, strict=True)
        for span in spans
    }
    counts = Counter(field for field, _ in texts)
    few = [f"{field!r} ({counts[field]})" for field in fields if counts[field] < LEAST_TEXTS]
    if few:
        more = f" and {len(few) - MAX_SHOWN_LABELS} more" if len(few) > MAX_SHOWN_LABELS else ""
        raise DataError(
            data.path,
            0,
            f"expected {LEAST_TEXTS} or more different training texts with each field, found fewer "
            f"with {', '.join(few[:MAX_SHOWN_LABELS])}{more}",
        )


def _split(data: SpanDataset, held_out: float, *, seed: int) -> tuple[SpanDataset, SpanDataset]:
    """Training rows and held-out rows, without a text in common."""
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    groups_n = same_texts(data.texts)
    groups = int(groups_n.max()) + 1
    if groups < 2:
        raise DataError(data.path, 0, "expected 2 or more different texts, found 1")
    count = min(groups - 1, max(1, round(held_out * groups)))
    is_held = np.zeros(groups, np.bool_)
    is_held[np.random.default_rng(seed).permutation(groups)[:count]] = True
    held_n = is_held[groups_n]
    return data.take(np.flatnonzero(~held_n).tolist()), data.take(np.flatnonzero(held_n).tolist())


def _folds(data: SpanDataset, *, seed: int) -> IntArray:
    """A fold for each row, so that texts that are the same share theirs."""
    groups_n = same_texts(data.texts)
    groups = int(groups_n.max()) + 1
    fold_of = np.arange(groups, dtype=np.int32) % MOST_FOLDS
    folds_n: IntArray = np.random.default_rng(seed).permutation(fold_of)[groups_n]
    return folds_n


def _many(data: SpanDataset) -> frozenset[str]:
    """Fields that some text has more than once."""
    counts = (Counter(span.field for span in spans) for spans in data.spans)
    return frozenset(field for count in counts for field, number in count.items() if number > 1)
