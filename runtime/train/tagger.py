"""Train a tagger and evaluate it: from texts with spans to a bundle of kind extract.

No model is loaded here: the caller gives a function that makes token states of texts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import (
    BundleManifest,
    Calibration,
    Extract,
    TierManifest,
)
from sprat.errors import DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.train.checks import Conflicts
from sprat.train.evaluate_spans import SpanReport, evaluate_spans
from sprat.train.fit_tagger import FittedTagger, TaggedRows, TaggerCandidate, fit_tagger
from sprat.train.head import check_name
from sprat.train.provenance import Provenance
from sprat.train.spans import SpanDataset, resolve_overlaps
from sprat.train.split import MAX_SHOWN_LABELS, MOST_FOLDS, same_texts
from sprat.values import IntArray, TokenStates

log = logging.getLogger(__name__)

LEAST_TEXTS = 4
"""Different texts with a span of each field that training needs."""

WEIGHTS = "tagger.safetensors"

States = Callable[[Sequence[str]], list[TokenStates]]
"""Texts to the states of their tokens, in the same order."""


class _Training(BaseModel):
    """How the tagger came about, for ``report.json``."""

    model_config = ConfigDict(frozen=True)

    rows: int
    spans: int
    folds: int
    penalty: float
    candidates: tuple[TaggerCandidate, ...]
    calibration_spans: int
    unreachable_spans: int
    repeated_test_rows: int


class _BundleReport(BaseModel):
    """The content of ``report.json``; ``new_texts`` leaves out test rows that repeat a text."""

    model_config = ConfigDict(frozen=True)

    provenance: Provenance
    evaluation: SpanReport
    new_texts: SpanReport | None
    training: _Training


def train_tagger(
    data: SpanDataset,
    *,
    states: States,
    base: ModelRef,
    name: str,
    out: Path,
    held_out: float = 0.2,
    test: SpanDataset | None = None,
    conflicts: Conflicts = "refuse",
    accept_at: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[BundleManifest, SpanReport]:
    """Train a tagger on frozen token states, evaluate it, write it as a bundle.

    Parameters
    ----------
    data : SpanDataset
        Four or more different texts with a span of each field. Texts without spans teach where
        there are none.
    states : callable
        Token states of texts by the base model. Called once.
    base : ModelRef
        The model that ``states`` uses.
    name : str
        Of the bundle.
    out : Path
        Empty folder to write into; see `sprat.store.Store.add_bundle` and
        `sprat.bundle.write_bundle`.
    held_out : float
        Share of the different texts to evaluate on, above 0 and below 1; of no effect with
        ``test``.
    test : SpanDataset, optional
        Rows to evaluate on instead; ``data`` is then trained on as a whole.
    conflicts : {"refuse", "drop", "keep"}
        What happens to training rows with spans that overlap; see
        `sprat.train.spans.resolve_overlaps`. Test rows may have them: a tagger finds one at most.
    accept_at : float
        Least confidence of a span, in [0, 1]; the task abstains from texts with a lesser one.
    seed : int
        Of split, folds and resampling, at least 0. The same rows, states and seed give the same
        weights.
    progress : Progress, optional
        Told of each phase.

    Returns
    -------
    BundleManifest, SpanReport
        What was written, and the evaluation as a whole.

    Raises
    ------
    DataError
        When the rows do not suffice, have spans that overlap, or requested fields without any
        span; or ``test`` has fields that ``data`` does not have.
    InvalidInput
        When ``name`` or ``held_out`` is out of range.
    SetupError
        When scikit-learn, which brings scipy, is not installed.
    """
    check_name(name)
    progress = Silent() if progress is None else progress
    fields = data.fields
    data.check_fields(fields)
    train, held = _split(data, held_out, seed=seed) if test is None else (data, test)
    held.check_fields(fields)
    train = resolve_overlaps(train, conflicts)
    _check_rows(train, fields)
    progress.phase(f"read {len(train) + len(held)} texts")
    made = states((*train.texts, *held.texts))
    rows = TaggedRows(train.texts, tuple(made[: len(train)]), train.spans, train.requested)
    folds_n = _folds(train, seed=seed)
    many = _many(train)
    fitted = fit_tagger(rows, folds_n, fields=fields, many=many, progress=progress)
    if fitted.unreachable_spans:
        log.warning(
            "%d of %d training spans begin or end inside of a token: spans like them cannot be "
            "found exactly",
            fitted.unreachable_spans,
            sum(map(len, train.spans)),
        )
    progress.phase(f"evaluate on {len(held)} rows")
    tagger = fitted.tagger
    found = tagger.tag(held.texts, made[len(train) :], held.requested)
    report = evaluate_spans(found, held, tagger, seed=seed)
    repeated_n = _repeated(train, held)
    new_texts = None
    if repeated_n.any():
        log.warning(
            "%d of %d test rows repeat a training text: they make the figures look better",
            repeated_n.sum(),
            len(held),
        )
        new = np.flatnonzero(~repeated_n).tolist()
        if new:
            new_texts = evaluate_spans([found[i] for i in new], held.take(new), tagger, seed=seed)
    calibration = None
    if fitted.calibration_spans:
        calibration = Calibration(temperature=tagger.temperature, shift=tagger.shift)
    elif accept_at > 0:
        raise DataError(data.path, 0, "no span was found out of fold: nothing to calibrate with")
    bundle = Bundle(
        BundleManifest(
            name=name,
            kind="extract",
            labels=fields,
            extract=Extract(many=tuple(sorted(many)), requested=any(train.requested)),
            tiers=(
                TierManifest(
                    name="head",
                    base=base,
                    weights=WEIGHTS,
                    calibration=calibration,
                    accept_at=accept_at,
                    evaluation=report.summary(),
                ),
            ),
            train_rows=len(train),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=f"sprat {sprat.__version__}",
            files=(),
        ),
        taggers=(tagger,),
    )
    document = _BundleReport(
        provenance=Provenance.of(train, held, seed=seed),
        evaluation=report,
        new_texts=new_texts,
        training=_describe(fitted, train, folds_n, repeated=int(repeated_n.sum())),
    )
    return bundle.save(out, report=document.model_dump_json(indent=2) + "\n"), report


def evaluate_tagger(
    bundle: Bundle, data: SpanDataset, *, states: States, seed: int = 0
) -> SpanReport:
    """Evaluate the last tier of a bundle on texts with spans.

    Parameters
    ----------
    states : callable
        Token states of texts by the model of that tier. Called once.
    seed : int
        Of the resampling, at least 0.

    Raises
    ------
    DataError
        When rows have fields that the bundle does not have: with their lines and its fields.
    """
    data.check_fields(bundle.manifest.labels)
    tagger = bundle.taggers[-1]
    found = tagger.tag(data.texts, states(data.texts), data.requested)
    return evaluate_spans(found, data, tagger, seed=seed)


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


def _many(data: SpanDataset) -> set[str]:
    """Fields that some text has more than once."""
    counts = (Counter(span.field for span in spans) for spans in data.spans)
    return {field for count in counts for field, number in count.items() if number > 1}


def _repeated(train: SpanDataset, held: SpanDataset) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows of ``held`` have a text that is among those of ``train``."""
    numbers = same_texts((*train.texts, *held.texts))
    return np.isin(numbers[len(train) :], numbers[: len(train)])


def _describe(
    fitted: FittedTagger, train: SpanDataset, folds_n: IntArray, *, repeated: int
) -> _Training:
    return _Training(
        rows=len(train),
        spans=sum(map(len, train.spans)),
        folds=int(folds_n.max()) + 1,
        penalty=fitted.chosen.penalty,
        candidates=fitted.candidates,
        calibration_spans=fitted.calibration_spans,
        unreachable_spans=fitted.unreachable_spans,
        repeated_test_rows=repeated,
    )
