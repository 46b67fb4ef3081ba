"""Train taggers and evaluate them: from texts with spans to a bundle of kind extract.

No model is loaded here: the caller gives a function that makes token states of texts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, Extract, TierManifest, TierName
from sprat.calibration import confidences
from sprat.errors import DataError
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.tagger import Reading, Tagger, all_read
from sprat.train.checks import DataReport
from sprat.train.confidence import with_whole
from sprat.train.evaluate_extract import ExtractReport
from sprat.train.evaluate_spans import SpanReport, evaluate_spans
from sprat.train.fit_tagger import TaggedRows, TaggerCandidate, fit_tagger
from sprat.train.head import check_name
from sprat.train.prepare_spans import PreparedSpans
from sprat.train.provenance import Provenance
from sprat.train.record import LanguageRecord, Tuning
from sprat.train.traffic import traffic_of_tier
from sprat.values import IntArray, TokenStates

log = logging.getLogger(__name__)

States = Callable[[Sequence[str]], list[TokenStates]]
"""Texts to the states of their tokens, in the same order."""

OpenStates = Callable[[str], AbstractContextManager[States]]
"""Loads a model of the store by name, for as long as its states are asked for."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaggerTraining(_Part):
    """How a tagger came about.

    Attributes
    ----------
    folds : int
        That it was chosen and calibrated on; 1 where that was on validation rows.
    penalty : float
        The strength that was chosen.
    candidates : tuple of TaggerCandidate
        All that were tried.
    calibration_spans : int
        Spans that the calibration was fitted on.
    unreachable_spans : int
        Spans of the training rows that begin or end inside of a token.
    tuning : Tuning or None
        How the encoder below it was fine-tuned; None of one that stays as it is.
    """

    folds: int
    penalty: float
    candidates: tuple[TaggerCandidate, ...]
    calibration_spans: int
    unreachable_spans: int
    tuning: Tuning | None


class TaggerRecord(_Part):
    """One tier.

    Attributes
    ----------
    evaluation : SpanReport
        On all test rows.
    without_leaked : SpanReport or None
        On those that repeat no training row, exactly or nearly; None where none does, or all do.
    training : TaggerTraining
    """

    evaluation: SpanReport
    without_leaked: SpanReport | None
    training: TaggerTraining


class ValuesRecord(_Part):
    """One tier that asks a model or an endpoint.

    Attributes
    ----------
    evaluation : ExtractReport
        On rows that it was not calibrated on. It compares strings, not places.
    training : LanguageRecord
    """

    evaluation: ExtractReport
    training: LanguageRecord


class ExtractRecord(_Part):
    """The content of the ``report.json`` of an extract task.

    Attributes
    ----------
    provenance : Provenance
    spans : int
        That the training rows have.
    data : DataReport
        What was found in the rows.
    overlapping_lines : tuple of int
        Rows whose spans overlap: left out, or trained on the longest.
    tiers : dict of str to TaggerRecord
        Those with weights, by name, in the order of the manifest.
    asked : dict of str to ValuesRecord
        Those that ask, which were added later.
    """

    provenance: Provenance
    spans: int
    data: DataReport
    overlapping_lines: tuple[int, ...]
    tiers: dict[str, TaggerRecord]
    asked: dict[str, ValuesRecord] = {}

    @property
    def evaluation(self) -> SpanReport:
        """That of the last tier with weights."""
        return list(self.tiers.values())[-1].evaluation


@dataclass(frozen=True, slots=True, eq=False)
class TrainedTagger:
    """One tier of a bundle to be."""

    manifest: TierManifest
    tagger: Tagger
    record: TaggerRecord


TrainTaggerTier = Callable[[PreparedSpans, Progress], TrainedTagger]
"""Trains one tier."""


def train_tagger_tier(
    prepared: PreparedSpans,
    progress: Progress,
    *,
    name: TierName,
    base: ModelRef,
    states: States,
    folds_n: IntArray | None = None,
    tuning: Tuning | None = None,
    accept_at: float = 0.0,
) -> TrainedTagger:
    """Fit a tagger on token states, calibrate it, evaluate it.

    Parameters
    ----------
    name : {"head", "finetune"}
        Of the tier.
    base : ModelRef
        The model that ``states`` uses.
    states : callable
        Token states of texts by that model. Called once.
    folds_n : int32[N], optional
        Instead of the folds of the rows; see `sprat.train.fit_tagger.fit_tagger`.
    tuning : Tuning, optional
        How that model was fine-tuned, for the record.
    accept_at : float
        Least confidence of an answer, in [0, 1].

    Raises
    ------
    DataError
        When there is a threshold, but no span to calibrate with.
    SetupError
        When scikit-learn, which brings scipy, is not installed.
    """
    train, test = prepared.train, prepared.test
    folds_n = prepared.folds_n if folds_n is None else folds_n
    progress.phase(f"read {len(train) + len(test)} texts")
    made = states((*train.texts, *test.texts))
    fitted = fit_tagger(
        TaggedRows(train.texts, tuple(made[: len(train)]), train.spans, train.requested),
        folds_n,
        fields=prepared.fields,
        many=prepared.many,
        progress=progress,
    )
    if fitted.unreachable_spans:
        log.warning(
            "%d of %d training spans begin or end inside of a token: spans like them cannot be "
            "found exactly",
            fitted.unreachable_spans,
            sum(map(len, train.spans)),
        )
    tagger, calibration = fitted.tagger, None
    if fitted.calibration_spans:
        calibration = with_whole(
            Calibration(temperature=tagger.temperature, shift=tagger.shift),
            fitted.chance_n,
            fitted.right_n,
            seed=prepared.seed,
        )
    elif accept_at > 0:
        raise DataError(
            train.path, 0, "no span was found in unseen rows: nothing to calibrate with"
        )
    progress.phase(f"evaluate on {len(test)} rows")
    found = all_read(tagger.read(test.texts, made[len(train) :], test.requested))

    def evaluated(rows: Sequence[int]) -> SpanReport:
        return evaluate_spans(
            [found[row].spans for row in rows],
            test.take(rows),
            tagger,
            confidence_n=whole_confidences([found[row] for row in rows], calibration),
            seed=prepared.seed,
        )

    report = evaluated(range(len(test)))
    sure_m = whole_confidences(found, calibration)
    fresh = np.flatnonzero(~prepared.is_leaked_m).tolist()
    without_leaked = evaluated(fresh) if 0 < len(fresh) < len(test) else None
    return TrainedTagger(
        TierManifest(
            name=name,
            base=base,
            weights=f"{name}.safetensors",
            calibration=calibration,
            accept_at=accept_at,
            evaluation=report.summary(),
            traffic=None if sure_m is None else traffic_of_tier(name, sure_m),
        ),
        tagger,
        TaggerRecord(
            evaluation=report,
            without_leaked=without_leaked,
            training=TaggerTraining(
                folds=int(folds_n.max()) + 1,
                penalty=fitted.chosen.penalty,
                candidates=fitted.candidates,
                calibration_spans=fitted.calibration_spans,
                unreachable_spans=fitted.unreachable_spans,
                tuning=tuning,
            ),
        ),
    )


def whole_confidences(
    readings: Sequence[Reading], calibration: Calibration | None
) -> npt.NDArray[np.float64] | None:
    """How sure a tagger is of whole answers: float64[N]; None where that is not calibrated."""
    if calibration is None:
        return None
    return confidences(np.array([each.chance for each in readings]), calibration)


def train_tagger(
    prepared: PreparedSpans,
    tiers: Sequence[TrainTaggerTier],
    *,
    name: str,
    out: Path,
    progress: Progress | None = None,
) -> tuple[BundleManifest, ExtractRecord]:
    """Train the tiers of an extract task, and write them as a bundle.

    The same rows, states and seed give the same weights.

    Parameters
    ----------
    prepared : PreparedSpans
        Checked and split rows.
    tiers : sequence of callable
        From the cheapest to the best; see `train_tagger_tier`.
    name : str
        Of the bundle.
    out : Path
        Empty folder to write into; see `sprat.store.Store.add_bundle` and
        `sprat.bundle.write_bundle`.
    progress : Progress, optional
        Told of each phase.

    Returns
    -------
    BundleManifest, ExtractRecord
        What was written, and the content of its ``report.json``.

    Raises
    ------
    InvalidInput
        When ``name`` cannot be one.
    """
    check_name(name)
    progress = Silent() if progress is None else progress
    train = prepared.train
    for message in prepared.notes:
        log.info("%s: %s", train.path, message)
    trained = [each(prepared, progress) for each in tiers]
    record = ExtractRecord(
        provenance=Provenance.of(train, prepared.test, seed=prepared.seed),
        spans=sum(map(len, train.spans)),
        data=prepared.report,
        overlapping_lines=prepared.overlapping_lines,
        tiers={tier.manifest.name: tier.record for tier in trained},
    )
    bundle = Bundle(
        BundleManifest(
            name=name,
            kind="extract",
            labels=prepared.fields,
            extract=Extract(
                many=tuple(sorted(prepared.many)),
                requested=any(train.requested),
            ),
            tiers=tuple(tier.manifest for tier in trained),
            train_rows=len(train),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=f"sprat {sprat.__version__}",
            files=(),
        ),
        taggers=tuple(tier.tagger for tier in trained),
    )
    return bundle.save(out, report=record.model_dump_json(indent=2) + "\n"), record
