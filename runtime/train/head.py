"""Train a classifier head and evaluate bundles: from labelled rows to a bundle and its report.

No model is loaded here: the caller gives a function that makes sentence vectors of texts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

import sprat
from sprat.bundle import Bundle
from sprat.errors import EngineError, InvalidInput
from sprat.head import Head
from sprat.manifest import NAME_PATTERN, BundleManifest, Calibration, ModelRef, TierManifest
from sprat.progress import Progress, Silent
from sprat.train.data import Dataset
from sprat.train.evaluate import Report, evaluate
from sprat.train.fit import Candidate, FittedHead, fit_head
from sprat.train.split import assign_folds, same_texts, split
from sprat.values import FloatArray, IntArray

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], FloatArray]
"""Texts to their L2-normalized sentence vectors, float32[N, D], in the same order."""


class _Training(BaseModel):
    """How the head came about, for ``report.json``."""

    model_config = ConfigDict(frozen=True)

    rows: int
    folds: int
    seed: int
    regularization: float
    candidates: tuple[Candidate, ...]
    repeated_test_rows: int


class _BundleReport(BaseModel):
    """The content of ``report.json``."""

    model_config = ConfigDict(frozen=True)

    evaluation: Report
    training: _Training


def train_classifier(
    data: Dataset,
    *,
    embed: Embed,
    base: ModelRef,
    name: str,
    out: Path,
    held_out: float = 0.2,
    test: Dataset | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[BundleManifest, Report]:
    """Train a classifier on frozen sentence vectors, evaluate it, write it as a bundle.

    Parameters
    ----------
    data : Dataset
        Labelled rows: two or more labels, three or more different texts of each (two with
        ``test``).
    embed : callable
        Sentence vectors of texts by the base model. Called once.
    base : ModelRef
        The model that ``embed`` uses.
    name : str
        Of the bundle.
    out : Path
        Empty folder to write into; see `sprat.store.Store.add_bundle` and
        `sprat.bundle.write_bundle`.
    held_out : float
        Share of ``data`` to evaluate on, above 0 and below 1; of no effect with ``test``.
    test : Dataset, optional
        Rows to evaluate on instead; ``data`` is then trained on as a whole.
    seed : int
        Of splits and resampling, at least 0. The same rows, vectors and seed give the same bundle.
    progress : Progress, optional
        Told of each phase.

    Returns
    -------
    BundleManifest, Report
        What was written, and the evaluation as a whole.

    Raises
    ------
    DataError
        When the rows do not suffice, or ``test`` has labels that ``data`` does not have.
    InvalidInput
        When ``name``, ``held_out`` or ``seed`` is out of range.
    SetupError
        When scikit-learn is not installed.
    """
    _check(name, seed)
    progress = Silent() if progress is None else progress
    train, held = split(data, held_out, seed=seed) if test is None else (data, test)
    folds_n = assign_folds(train, seed=seed)
    labels = tuple(sorted(set(train.labels)))
    targets_n, held_targets = train.targets(labels), held.targets(labels)
    repeated = _repeated(train, held)
    if repeated:
        log.warning(
            "%d of %d test rows repeat a training text: they make the figures look better",
            repeated,
            len(held),
        )
    progress.phase(f"embed {len(train) + len(held)} texts")
    vectors = _embed(embed, (*train.texts, *held.texts))
    vectors_nd, held_vectors = vectors[: len(train)], vectors[len(train) :]
    head = fit_head(vectors_nd, targets_n, folds_n, progress=progress)
    progress.phase(f"evaluate on {len(held)} rows")
    report = evaluate(
        held_vectors @ head.weight.T + head.bias,
        held_targets,
        labels=labels,
        lines=held.lines,
        temperature=head.chosen.temperature,
        seed=seed,
    )
    bundle = Bundle(
        BundleManifest(
            name=name,
            kind="classify",
            labels=labels,
            tiers=(
                TierManifest(
                    name="head",
                    base=base,
                    weights="head.safetensors",
                    calibration=Calibration(temperature=head.chosen.temperature),
                    evaluation=report.summary(),
                ),
            ),
            train_rows=len(train),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=f"sprat {sprat.__version__}",
            files=(),
        ),
        (Head(head.weight, head.bias, head.chosen.temperature),),
    )
    training = _describe(head, folds_n, seed=seed, repeated=repeated)
    document = _BundleReport(evaluation=report, training=training)
    return bundle.save(out, report=document.model_dump_json(indent=2) + "\n"), report


def evaluate_bundle(bundle: Bundle, data: Dataset, *, embed: Embed, seed: int = 0) -> Report:
    """Evaluate the last tier of a bundle on labelled rows.

    Parameters
    ----------
    embed : callable
        Sentence vectors of texts by the model of that tier. Called once.
    seed : int
        Of the resampling, at least 0.

    Raises
    ------
    DataError
        When rows have labels that the bundle does not have: with their lines and its labels.
    """
    manifest, head = bundle.manifest, bundle.heads[-1]
    targets_n = data.targets(manifest.labels)
    return evaluate(
        head.logits(_embed(embed, data.texts)),
        targets_n,
        labels=manifest.labels,
        lines=data.lines,
        temperature=head.temperature,
        seed=seed,
    )


def _check(name: str, seed: int) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(
            f"name: {name!r} is not up to 64 of a-z, 0-9, '.', '_' and '-', "
            "the first a letter or digit",
            field="name",
        )
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")


def _repeated(train: Dataset, held: Dataset) -> int:
    """Rows of ``held`` whose text is among those of ``train``."""
    numbers = same_texts((*train.texts, *held.texts))
    return int(np.isin(numbers[len(train) :], numbers[: len(train)]).sum())


def _embed(embed: Embed, texts: Sequence[str]) -> FloatArray:
    """Vectors of texts, each different text embedded once."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(text, len(numbers)) for text in texts]
    vectors = embed(list(numbers))
    if vectors.ndim != 2 or len(vectors) != len(numbers):
        raise EngineError(f"embed: expected vectors[{len(numbers)}, D], got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise EngineError("embed: not all vectors are finite")
    return vectors.astype(np.float32, copy=False)[rows]


def _describe(head: FittedHead, folds_n: IntArray, *, seed: int, repeated: int) -> _Training:
    return _Training(
        rows=len(folds_n),
        folds=int(folds_n.max()) + 1,
        seed=seed,
        regularization=head.chosen.regularization,
        candidates=head.candidates,
        repeated_test_rows=repeated,
    )
