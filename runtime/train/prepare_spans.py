"""Check and split rows with spans before anything is trained."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sprat.errors import DataError, InvalidInput
from sprat.train.checks import (
    Conflicts,
    DataReport,
    conflicting_lines,
    inspect,
    resolve_conflicts,
    shown_lines,
)
from sprat.train.data import Dataset
from sprat.train.rows import MAX_SHOWN_ROWS
from sprat.train.spans import SpanDataset, overlaps, resolve_overlaps
from sprat.train.split import fold_texts, same_texts, text_key
from sprat.train.stratify import stratify
from sprat.values import IntArray

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
    report : DataReport
        What was found in the rows; ``rows_of_label`` counts the training rows with each field.
    overlapping_lines : tuple of int
        Rows to train on whose spans overlap, as far as they were not refused.
    is_leaked_m : bool[M]
        Test rows that repeat a training row, exactly or nearly.
    seed : int
        Of split, folds and resampling.
    """

    train: SpanDataset
    test: SpanDataset
    fields: tuple[str, ...]
    many: frozenset[str]
    folds_n: IntArray
    report: DataReport
    overlapping_lines: tuple[int, ...]
    is_leaked_m: npt.NDArray[np.bool_]
    seed: int

    @property
    def notes(self) -> list[str]:
        """What was found in the rows, for people."""
        found = self.report.messages("spans")
        if lines := self.overlapping_lines:
            is_kept = set(lines) <= set(self.train.lines)
            what = "trained on the longest" if is_kept else "left out"
            found.append(f"{len(lines)} rows have spans that overlap, {what}: {shown_lines(lines)}")
        return found


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
        Share of the rows to evaluate on where there is no ``test``, above 0 and below 1.
    conflicts : {"refuse", "drop", "keep"}
        What happens to rows to train on of which another has the same text and request, but other
        spans, see `sprat.train.checks.resolve_conflicts`; and to those with spans that overlap, see
        `sprat.train.spans.resolve_overlaps`. Test rows may have them: a tagger finds one at most.
    seed : int
        Of split, folds and resampling, at least 0.

    Raises
    ------
    DataError
        When the rows do not suffice, contradict each other, have spans that overlap, or requested
        fields without any span; or ``test`` has fields that ``data`` does not have.
    InvalidInput
        When ``held_out`` is out of range.
    """
    fields = data.fields
    data.check_fields(fields)
    _, dropped = resolve_conflicts(_asked(data), conflicts, what="spans")
    if dropped:
        gone = set(dropped)
        data = data.take(row for row, line in enumerate(data.lines) if line not in gone)
    _check_rows(data, fields)
    train, held = split_spans(data, held_out, seed=seed) if test is None else (data, test)
    held.check_fields(fields)
    given = train
    train = resolve_overlaps(train, conflicts)
    _check_rows(train, fields)
    report, is_leaked_m = inspect(_hashed(train), _hashed(held), dropped_lines=dropped)
    report = report.model_copy(
        update={
            # The same text may have other spans where something else was asked for.
            "conflict_lines": conflicting_lines(_asked(train)),
            "rows_of_label": {field: len(_rows_with(train, field)) for field in fields},
        }
    )
    return PreparedSpans(
        train,
        held,
        fields,
        _many(train),
        fold_texts(train.texts, seed=seed),
        report,
        tuple(
            line for line, spans in zip(given.lines, given.spans, strict=True) if overlaps(spans)
        ),
        is_leaked_m,
        seed,
    )


def _check_rows(data: SpanDataset, fields: Sequence[str]) -> None:
    if not fields:
        raise DataError(data.path, data.lines[0], f"no row has a span: {shown_lines(data.lines)}")
    groups_n = same_texts(data.texts)
    rows = {field: _rows_with(data, field) for field in fields}
    texts = {field: len(np.unique(groups_n[each])) for field, each in rows.items()}
    few = [field for field in fields if texts[field] < LEAST_TEXTS]
    if few:
        lines = {field: [data.lines[row] for row in rows[field]] for field in few}
        shown = "".join(
            f"\n  {field!r}: {texts[field]}"
            + (f" in {shown_lines(lines[field])}" if lines[field] else "")
            for field in few[:MAX_SHOWN_ROWS]
        )
        more = len(few) - MAX_SHOWN_ROWS
        raise DataError(
            data.path,
            min((each[0] for each in lines.values() if each), default=0),
            f"expected {LEAST_TEXTS} or more different training texts with each field, found fewer "
            f"of {len(few)} fields:{shown}" + (f"\n  and {more} more" if more > 0 else ""),
        )


def _rows_with(data: SpanDataset, field: str) -> list[int]:
    """The rows that have a span of a field."""
    return [
        row for row, spans in enumerate(data.spans) if any(span.field == field for span in spans)
    ]


def _hashed(data: SpanDataset) -> Dataset:
    """The rows with a hash of their spans as their label."""
    return Dataset(
        data.texts,
        tuple(
            hashlib.sha256(
                repr([(text_key(text[s.start : s.end]), s.field) for s in spans]).encode()
            ).hexdigest()
            for text, spans in zip(data.texts, data.spans, strict=True)
        ),
        data.lines,
        data.path,
    )


def _asked(data: SpanDataset) -> Dataset:
    """The same, where what was asked for belongs to the text."""
    return replace(
        _hashed(data),
        texts=tuple(
            "\n".join((text, *requested))
            for text, requested in zip(data.texts, data.requested, strict=True)
        ),
    )


def split_spans(
    data: SpanDataset, held_out: float, *, seed: int
) -> tuple[SpanDataset, SpanDataset]:
    """Training rows and held-out rows without a text in common, each field in both."""
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    groups_n = same_texts(data.texts)
    groups = int(groups_n.max()) + 1
    if groups < 2:
        raise DataError(data.path, 0, "expected 2 or more different texts, found 1")
    fields = data.fields
    truth_nk = np.array([[f in {s.field for s in spans} for f in fields] for spans in data.spans])
    part_n = stratify(truth_nk, groups_n, (1 - held_out, held_out), seed=seed)
    train, held = (data.take(np.flatnonzero(part_n == part).tolist()) for part in (0, 1))
    return train, held


def _many(data: SpanDataset) -> frozenset[str]:
    """Fields that some text has more than once."""
    counts = (Counter(span.field for span in spans) for spans in data.spans)
    return frozenset(field for count in counts for field, number in count.items() if number > 1)
