"""Train a classifier or router: from labelled rows to a bundle and its report.

No model is loaded here: the caller gives a function that makes sentence vectors of texts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import (
    BundleManifest,
    Route,
    TierManifest,
    TierName,
)
from sprat.errors import EngineError, InvalidInput
from sprat.head import Head
from sprat.manifest import NAME_PATTERN, ModelRef
from sprat.progress import Progress, Silent
from sprat.train.calibrate import CalibrationFit, log_softmax
from sprat.train.curve import FitAndJudge, Judge, learning_curve
from sprat.train.evaluate import evaluate
from sprat.train.fit import ClassWeights, fit_head, fit_weights
from sprat.train.prepare import Prepared
from sprat.train.provenance import LIBRARIES, TORCH, Provenance
from sprat.train.record import (
    HeadTraining,
    SuspectLine,
    TierRecord,
    TrainingRecord,
    TuningRecord,
)
from sprat.train.report import Report
from sprat.train.suspects import Suspect, confusing_pairs, find_suspects
from sprat.train.traffic import traffic_of_classifier
from sprat.values import FloatArray

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], FloatArray]
"""Texts to their L2-normalized sentence vectors, float32[N, D], in the same order."""

OpenEmbed = Callable[[str], AbstractContextManager[Embed]]
"""Loads a model of the store by name, for as long as its vectors are asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Refits:
    """Heads fitted on parts of the training rows.

    Attributes
    ----------
    out_of_fold : float64[N, K]
        Probabilities of the training rows' labels by heads that have not seen them.
    judge : callable
        What a head that was fitted on some of the training rows is worth on the test rows.
    """

    out_of_fold: npt.NDArray[np.float64]
    judge: FitAndJudge


@dataclass(frozen=True, slots=True, eq=False)
class TrainedTier:
    """One tier of a bundle to be.

    Attributes
    ----------
    manifest : TierManifest
    head : Head
    record : TierRecord
    refits : Refits or None
        What is known of heads on parts of the rows; None where fitting is too slow for that.
    """

    manifest: TierManifest
    head: Head
    record: TierRecord
    refits: Refits | None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A bundle that was written.

    Attributes
    ----------
    manifest : BundleManifest
    record : TrainingRecord
        The content of its ``report.json``.
    suspects : tuple of Suspect
        Those of the record, with their texts.
    """

    manifest: BundleManifest
    record: TrainingRecord
    suspects: tuple[Suspect, ...]


TrainTier = Callable[[Prepared, Progress], TrainedTier]
"""Trains one tier."""


def train_tier(
    prepared: Prepared,
    progress: Progress,
    *,
    name: TierName,
    base: ModelRef,
    embed: Embed,
    class_weights: ClassWeights = "none",
    accept_at: float = 0.0,
) -> TrainedTier:
    """Fit a head on frozen sentence vectors, calibrate it, evaluate it.

    Parameters
    ----------
    name : {"static", "head", "finetune"}
        Of the tier.
    base : ModelRef
        The model that ``embed`` uses.
    embed : callable
        Sentence vectors of texts by that model. Called once, with no text twice.
    class_weights : {"none", "balanced"}
        See `sprat.train.fit.fit_head`.
    accept_at : float
        Least confidence of an answer, in [0, 1].

    Raises
    ------
    SetupError
        When scikit-learn is not installed.
    """
    train, test = prepared.train, prepared.test
    progress.phase(f"embed {len(train) + len(test)} texts")
    vectors = embed_texts(embed, prepared.texts)
    vectors_nd, vectors_md = vectors[: len(train)], vectors[len(train) :]
    fitted = fit_head(
        vectors_nd,
        prepared.targets_n,
        prepared.folds_n,
        class_weights=class_weights,
        progress=progress,
    )
    temperature = fitted.calibration.calibration.temperature

    def judge(rows: npt.NDArray[np.int64]) -> Judge:
        weight, bias = fit_weights(
            vectors_nd[rows],
            prepared.targets_n[rows],
            fitted.chosen.regularization,
            class_weights,
            whitening=fitted.chosen.whitening,
        )
        answers_m = Head(weight, bias).logits(vectors_md).argmax(axis=1)
        right_m = answers_m == prepared.test_targets_m
        return lambda picks_rm: right_m[picks_rm].mean(axis=1)

    progress.phase(f"evaluate on {len(test)} rows")
    return judge_tier(
        prepared,
        vectors_md,
        name=name,
        base=base,
        head=Head(fitted.weight, fitted.bias, temperature),
        calibration=fitted.calibration,
        training=HeadTraining(
            folds=int(prepared.folds_n.max()) + 1,
            class_weights=class_weights,
            regularization=fitted.chosen.regularization,
            whitening=fitted.chosen.whitening,
            candidates=fitted.candidates,
            calibration=fitted.calibration,
        ),
        accept_at=accept_at,
        refits=Refits(np.exp(log_softmax(fitted.out_of_fold, temperature)), judge),
    )


def judge_tier(
    prepared: Prepared,
    vectors_md: FloatArray,
    *,
    name: TierName,
    base: ModelRef,
    head: Head,
    calibration: CalibrationFit,
    training: HeadTraining | TuningRecord,
    accept_at: float,
    refits: Refits | None,
) -> TrainedTier:
    """Evaluate a head that was fitted and calibrated: all that is known of a tier then.

    Parameters
    ----------
    vectors_md : float32[M, D]
        Sentence vectors of the test rows by the model of the tier.
    """
    logits_mk = head.logits(vectors_md)

    def evaluated(rows: npt.NDArray[np.intp]) -> Report:
        return evaluate(
            logits_mk[rows],
            prepared.test_targets_m[rows],
            labels=prepared.labels,
            lines=[prepared.test.lines[row] for row in rows],
            calibration=calibration.calibration,
            seed=prepared.seed,
        )

    report = evaluated(np.arange(len(logits_mk)))
    fresh = np.flatnonzero(~prepared.is_leaked_m)
    return TrainedTier(
        TierManifest(
            name=name,
            base=base,
            weights=f"{name}.safetensors",
            calibration=calibration.calibration,
            accept_at=accept_at,
            evaluation=report.summary(),
            traffic=traffic_of_classifier(
                name, logits_mk, calibration.calibration, prepared.labels
            ),
        ),
        head,
        TierRecord(
            evaluation=report,
            without_leaked=evaluated(fresh).summary() if 0 < len(fresh) < len(logits_mk) else None,
            training=training,
        ),
        refits,
    )


def train_classifier(
    prepared: Prepared,
    tiers: Sequence[TrainTier],
    *,
    name: str,
    out: Path,
    route: Route | None = None,
    with_learning_curve: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train the tiers of a classifier or router, and write them as a bundle.

    Parameters
    ----------
    prepared : Prepared
        Checked and split rows.
    tiers : sequence of callable
        From the cheapest to the best; see `train_tier`.
    name : str
        Of the bundle.
    out : Path
        Empty folder to write into; see `sprat.store.Store.add_bundle` and
        `sprat.bundle.write_bundle`.
    route : Route, optional
        Where texts of each label go: makes the bundle one of kind route.
    with_learning_curve : bool
        Measure accuracy with growing shares of the rows; takes about twice the time of a head.
    progress : Progress, optional
        Told of each phase.

    Raises
    ------
    InvalidInput
        When ``name`` cannot be one.
    """
    check_name(name)
    progress = Silent() if progress is None else progress
    for message in prepared.report.messages():
        log.info("%s: %s", prepared.train.path, message)
    trained = [train(prepared, progress) for train in tiers]
    suspects, analyses = _analyse(
        prepared, trained, with_learning_curve=with_learning_curve, progress=progress
    )
    is_tuned = any(tier.manifest.name == "finetune" for tier in trained)
    record = TrainingRecord(
        provenance=Provenance.of(
            prepared.train,
            prepared.test,
            seed=prepared.seed,
            libraries=(*LIBRARIES, *TORCH) if is_tuned else LIBRARIES,
        ),
        data=prepared.report,
        tiers={tier.manifest.name: tier.record for tier in trained},
        **analyses,
    )
    bundle = Bundle(
        BundleManifest(
            name=name,
            kind="classify" if route is None else "route",
            labels=prepared.labels,
            tiers=tuple(tier.manifest for tier in trained),
            route=route,
            train_rows=len(prepared.train),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=f"sprat {sprat.__version__}",
            files=(),
        ),
        tuple(tier.head for tier in trained),
    )
    manifest = bundle.save(out, report=record.model_dump_json(indent=2) + "\n")
    return Trained(manifest, record, suspects)


def _analyse(
    prepared: Prepared,
    trained: Sequence[TrainedTier],
    *,
    with_learning_curve: bool,
    progress: Progress,
) -> tuple[tuple[Suspect, ...], dict[str, Any]]:
    """Suspects with their texts, and the fields of a `TrainingRecord` that say what to do next.

    The last tier with refits is asked.
    """
    refits = next((tier.refits for tier in reversed(trained) if tier.refits is not None), None)
    if refits is None:
        return (), {"confusing_pairs": (), "suspects": (), "learning_curve": None}
    asked = (refits.out_of_fold, prepared.targets_n, prepared.labels)
    suspects = find_suspects(prepared.train, *asked)
    curve = None
    if with_learning_curve:
        curve = learning_curve(
            prepared.train,
            refits.judge,
            test_rows=len(prepared.test),
            metric="accuracy",
            seed=prepared.seed,
            progress=progress,
        )
    return suspects, {
        "confusing_pairs": confusing_pairs(*asked),
        "suspects": tuple(map(SuspectLine.of, suspects)),
        "learning_curve": curve,
    }


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a bundle, as InvalidInput."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(
            f"name: {name!r} is not up to 64 of a-z, 0-9, '.', '_' and '-', "
            "the first a letter or digit",
            field="name",
        )


def embed_texts(embed: Embed, texts: Sequence[str]) -> FloatArray:
    """Vectors of texts, each different text embedded once."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(text, len(numbers)) for text in texts]
    vectors = embed(list(numbers))
    if vectors.ndim != 2 or len(vectors) != len(numbers):
        raise EngineError(f"embed: expected vectors[{len(numbers)}, D], got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise EngineError("embed: not all vectors are finite")
    return vectors.astype(np.float32, copy=False)[rows]
