"""Train a moderator: from rows with any number of labels to a bundle and its report.

No model is loaded here: the caller gives a function that makes sentence vectors of texts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import (
    BundleManifest,
    Calibration,
    Moderation,
    TierManifest,
    TierName,
)
from sprat.calibration import chance_of_actions, confidences
from sprat.decisions import ALLOW
from sprat.head import Head, sigmoid
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.train.confidence import with_whole
from sprat.train.curve import Judge, learning_curve
from sprat.train.evaluate_categories import (
    ModerationReport,
    evaluate_categories,
    mean_average_precision,
)
from sprat.train.features import Compute
from sprat.train.fit import ClassWeights
from sprat.train.fit_categories import (
    Examples,
    FittedCategory,
    Matrix,
    due_categories,
    fit_binary,
    fit_category,
    highest,
    with_sparse_ngrams,
)
from sprat.train.head import Refits, check_name
from sprat.train.moderation_record import ModerationRecord, TierModeration
from sprat.train.policy import Policy
from sprat.train.prepare_categories import PreparedCategories
from sprat.train.provenance import Provenance
from sprat.train.record import SuspectLine
from sprat.train.suspects import Suspect, category_suspects
from sprat.train.traffic import traffic_of_tier
from sprat.train.window_vectors import WindowVectors

log = logging.getLogger(__name__)

NGRAM_BUCKETS = 4096

CLEARLY = 0.95
"""n-grams are taken where they bring the loss down to this share of what it is without them."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModerator:
    """One tier of a bundle to be.

    Attributes
    ----------
    refits : Refits
        Out-of-fold probabilities of the categories, and the mean average precision on the test
        rows of heads fitted on some of the training rows.
    """

    manifest: TierManifest
    head: Head
    record: TierModeration
    refits: Refits


@dataclass(frozen=True, slots=True, eq=False)
class WrittenModerator:
    """A bundle that was written.

    Attributes
    ----------
    record : ModerationRecord
        The content of its ``report.json``.
    suspects : dict of str to tuple of Suspect
        Those of the record, with their texts.
    """

    manifest: BundleManifest
    record: ModerationRecord
    suspects: dict[str, tuple[Suspect, ...]]


TrainModerator = Callable[[PreparedCategories, Progress], TrainedModerator]


def train_moderator_tier(
    prepared: PreparedCategories,
    progress: Progress,
    *,
    name: TierName,
    base: ModelRef,
    compute: Compute,
    policy: Policy | None = None,
    class_weights: ClassWeights = "none",
    accept_at: float = 0.0,
) -> TrainedModerator:
    """Fit a head for each category on frozen features, calibrate them, choose their thresholds.

    Features are the sentence vector and, where out-of-fold scores get better by them, n-grams of
    characters.

    Parameters
    ----------
    name : {"static", "head", "finetune"}
        Of the tier.
    base : ModelRef
        The model that ``compute`` uses.
    compute : callable
        Its vectors of texts and windows. Called with no text twice.
    policy : Policy, optional
        What the thresholds are to be; absent: flag where F1 is best, block nothing.
    class_weights : {"none", "balanced"}
        See `sprat.train.fit_categories.fit_category`.
    accept_at : float
        Least confidence of an answer, in [0, 1].

    Raises
    ------
    ConfigError
        When the policy cannot be kept.
    SetupError
        When scikit-learn is not installed.
    """
    policy = Policy() if policy is None else policy
    policy.check(prepared.names)
    room, overlap = prepared.window
    scorer = _Scorer(prepared, compute, progress)
    truth_nk = prepared.train.truth(prepared.names)
    examples = {buckets: scorer.examples(buckets) for buckets in (0, NGRAM_BUCKETS)}
    fits: dict[int, tuple[FittedCategory, ...]] = {}
    for buckets, features in examples.items():
        fits[buckets] = tuple(
            fit_category(
                features,
                truth_nk[:, i],
                prepared.folds_n,
                class_weights=class_weights,
                progress=progress,
                name=category,
            )
            for i, category in enumerate(prepared.names)
        )
    nll = {
        buckets: float(np.mean([fitted.chosen.nll for fitted in each]))
        for buckets, each in fits.items()
    }
    buckets = NGRAM_BUCKETS if nll[NGRAM_BUCKETS] < CLEARLY * nll[0] else 0
    fitted, learned = fits[buckets], examples[buckets]
    thresholds = tuple(
        policy.thresholds(category, each.out_of_fold, truth_nk[:, i])
        for i, (category, each) in enumerate(zip(prepared.names, fitted, strict=True))
    )
    out_of_fold_nk = np.stack([each.out_of_fold for each in fitted], axis=1)
    flagged_nk = out_of_fold_nk >= [each.flag_at for each in thresholds]
    calibration = with_whole(
        Calibration(temperature=1.0),
        chance_of_actions(out_of_fold_nk, thresholds),
        (flagged_nk == truth_nk).all(axis=1),
        seed=prepared.seed,
    )
    head = Head(
        np.stack([each.weight for each in fitted]),
        np.array([each.bias for each in fitted], np.float32),
    )
    progress.phase(f"evaluate on {len(prepared.test)} rows")
    score_test_rows = scorer.test_scorer(buckets)
    probability_mk = sigmoid(score_test_rows(head.weight, head.bias))
    confidence_m = confidences(chance_of_actions(probability_mk, thresholds), calibration)
    truth_mk = prepared.test.truth(prepared.names)

    def judge(rows: npt.NDArray[np.int64]) -> Judge:
        heads = [
            fit_binary(
                learned.whole[rows],
                truth_nk[rows, i],
                each.chosen.regularization,
                class_weights,
            )
            for i, each in enumerate(fitted)
        ]
        scores_mk = score_test_rows(
            np.stack([weight for weight, _ in heads]), np.array([bias for _, bias in heads])
        )
        return mean_average_precision(scores_mk, truth_mk)

    def evaluated(rows: npt.NDArray[np.intp]) -> ModerationReport:
        return evaluate_categories(
            probability_mk[rows],
            truth_mk[rows],
            names=prepared.names,
            flag_at=[each.flag_at for each in thresholds],
            confidence_n=confidence_m[rows],
            seed=prepared.seed,
        )

    report = evaluated(np.arange(len(prepared.test)))
    fresh = np.flatnonzero(~prepared.is_leaked_m)
    return TrainedModerator(
        TierManifest(
            name=name,
            base=base,
            weights=f"{name}.safetensors",
            calibration=calibration,
            accept_at=accept_at,
            evaluation=report.summary(),
            moderation=Moderation(
                window=room, overlap=overlap, ngram_buckets=buckets, thresholds=thresholds
            ),
            traffic=traffic_of_tier(
                name,
                confidence_m,
                ((*prepared.names, ALLOW)[at] for at in due_categories(probability_mk, thresholds)),
            ),
        ),
        head,
        TierModeration(
            evaluation=report,
            without_leaked=evaluated(fresh) if 0 < len(fresh) < len(prepared.test) else None,
            ngrams=buckets > 0,
            nll={
                "vectors and ngrams" if number else "vectors": value
                for number, value in nll.items()
            },
            candidates={
                category: each.candidates
                for category, each in zip(prepared.names, fitted, strict=True)
            },
            regularization={
                category: each.chosen.regularization
                for category, each in zip(prepared.names, fitted, strict=True)
            },
        ),
        Refits(out_of_fold_nk, judge),
    )


def train_moderator(
    prepared: PreparedCategories,
    tiers: Sequence[TrainModerator],
    *,
    name: str,
    out: Path,
    class_weights: ClassWeights = "none",
    with_learning_curve: bool = False,
    progress: Progress | None = None,
) -> WrittenModerator:
    """Train the tiers of a moderator, and write them as a bundle.

    Parameters
    ----------
    tiers : sequence of callable
        From the cheapest to the best; see `train_moderator_tier`.
    name : str
        Of the bundle.
    out : Path
        Empty folder to write into; see `sprat.store.Store.add_bundle` and
        `sprat.bundle.write_bundle`.
    class_weights : {"none", "balanced"}
        What the tiers were told, for the record.
    with_learning_curve : bool
        Measure mean average precision with growing shares of the rows.

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
    refits = trained[-1].refits
    suspects = category_suspects(prepared.train, refits.out_of_fold, prepared.names)
    curve = None
    if with_learning_curve:
        curve = learning_curve(
            prepared.train.as_dataset(),
            refits.judge,
            test_rows=len(prepared.test),
            metric="mean_average_precision",
            seed=prepared.seed,
            progress=progress,
        )
    record = ModerationRecord(
        provenance=Provenance.of(prepared.train, prepared.test, seed=prepared.seed),
        class_weights=class_weights,
        folds=int(prepared.folds_n.max()) + 1,
        data=prepared.report,
        tiers={tier.manifest.name: tier.record for tier in trained},
        suspects={name: tuple(map(SuspectLine.of, each)) for name, each in suspects.items()},
        learning_curve=curve,
    )
    bundle = Bundle(
        BundleManifest(
            name=name,
            kind="moderate",
            labels=prepared.names,
            tiers=tuple(tier.manifest for tier in trained),
            train_rows=len(prepared.train),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=f"sprat {sprat.__version__}",
            files=(),
        ),
        tuple(tier.head for tier in trained),
    )
    manifest = bundle.save(out, report=record.model_dump_json(indent=2) + "\n")
    return WrittenModerator(manifest, record, suspects)


class _Scorer:
    """Rows as features of one tier: every text and window is embedded once.

    Parameters
    ----------
    prepared : PreparedCategories
    compute : callable
        See `train_moderator_tier`.
    """

    def __init__(self, prepared: PreparedCategories, compute: Compute, progress: Progress) -> None:
        self._train = list(prepared.train.texts)
        self._vectors = WindowVectors(compute)
        progress.phase(f"embed {len(self._train) + len(prepared.test)} texts")
        self._vectors.add(self._train)
        if long := sum(map(self._vectors.is_cut, self._train)):
            log.warning(
                "%d of %d training texts have more tokens than the model takes: heads learn from "
                "what they begin with, and judge all of it",
                *(long, len(self._train)),
            )
        self._train_windows, self._train_starts = self._vectors.windows(
            self._train, *prepared.window
        )
        self._test_windows, self._test_starts = self._vectors.windows(
            prepared.test.texts, *prepared.window
        )

    def examples(self, buckets: int) -> Examples:
        """The training rows, with n-grams in so many buckets."""
        return Examples(
            whole=self._features(self._train, buckets),
            windows=self._features(self._train_windows, buckets),
            starts=self._train_starts,
        )

    def test_scorer(self, buckets: int) -> Callable[[Matrix, Matrix], npt.NDArray[np.float64]]:
        """A function from weight[K, F] and bias[K] to scores of the test rows, float64[M, K]."""
        features = self._features(self._test_windows, buckets)
        return lambda weight, bias: highest(features @ weight.T + bias, self._test_starts)

    def _features(self, texts: Sequence[str], buckets: int) -> Matrix:
        return with_sparse_ngrams(self._vectors.of(texts), texts, buckets)
