"""Train a moderator: from rows with any number of labels to a bundle and its report.

No model is loaded here: the caller gives a function that makes sentence vectors of texts.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

import sprat
from sprat.bundle import Bundle
from sprat.bundle_manifest import (
    BundleManifest,
    Calibration,
    Moderation,
    TierManifest,
    TierName,
)
from sprat.errors import DataError, InvalidInput
from sprat.head import Head, sigmoid
from sprat.manifest import ModelRef
from sprat.progress import Progress, Silent
from sprat.text.windows import windows
from sprat.tokenizer import is_visible
from sprat.train.categories import CategoryData
from sprat.train.checks import Conflicts, DataReport, inspect, resolve_conflicts
from sprat.train.evaluate_categories import ModerationReport, evaluate_categories
from sprat.train.fit import ClassWeights
from sprat.train.fit_categories import (
    CategoryCandidate,
    Examples,
    FittedCategory,
    Matrix,
    fit_category,
    highest,
    with_sparse_ngrams,
)
from sprat.train.head import check_name
from sprat.train.policy import Policy
from sprat.train.provenance import Provenance
from sprat.train.rows import MAX_SHOWN_ROWS
from sprat.train.split import same_texts
from sprat.train.stratify import stratify
from sprat.values import FloatArray, IntArray

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], FloatArray]
"""Texts to their L2-normalized sentence vectors, float32[N, D], in the same order."""

FOLDS = 5
LEAST_TEXTS = 4
"""Different texts that a category needs, and that must be without it."""

NGRAM_BUCKETS = 4096

CLEARLY = 0.95
"""n-grams are taken where they bring the loss down to this share of what it is without them."""

WINDOW_SHARE = 0.99
LEAST_WINDOW = 64
MOST_WINDOW = 1024
"""A window is as long as nearly all of the texts that were learned from, within these bounds: a
head reads best what is as long as what it knows. In characters."""


class TierModeration(BaseModel):
    """How the heads of one tier came about, and how good they are.

    Attributes
    ----------
    ngrams : bool
        Whether n-grams of characters help; see `sprat.text.ngrams`.
    nll : dict of str to float
        Mean negative log-likelihood of the out-of-fold probabilities over all categories, without
        (``vectors``) and with n-grams (``vectors and ngrams``): these are taken where they lower it
        by 5 % or more.
    candidates : dict of str to tuple of CategoryCandidate
        Of each category, what was tried.
    regularization : dict of str to float
        Of each category, what was taken.
    """

    model_config = ConfigDict(frozen=True)

    evaluation: ModerationReport
    without_leaked: ModerationReport | None
    ngrams: bool
    nll: dict[str, float]
    candidates: dict[str, tuple[CategoryCandidate, ...]]
    regularization: dict[str, float]


class ModerationRecord(BaseModel):
    """The content of a moderator's ``report.json``."""

    model_config = ConfigDict(frozen=True)

    provenance: Provenance
    class_weights: ClassWeights
    folds: int
    data: DataReport
    tiers: dict[str, TierModeration]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCategories:
    """Checked and split rows.

    Attributes
    ----------
    train, test : CategoryData
    names : tuple of str
        Categories, sorted.
    folds_n : int32[N]
        Fold of each training row.
    report : DataReport
    is_leaked_m : bool[M]
        The test rows that repeat a training row.
    seed : int
    """

    train: CategoryData
    test: CategoryData
    names: tuple[str, ...]
    folds_n: IntArray
    report: DataReport
    is_leaked_m: npt.NDArray[np.bool_]
    seed: int

    @property
    def window(self) -> tuple[int, int]:
        """Characters of a window, and how many of them neighbours share at most."""
        lengths = [len(text) for text in self.train.texts]
        usual = int(np.ceil(np.quantile(lengths, WINDOW_SHARE)))
        room = min(MOST_WINDOW, max(LEAST_WINDOW, usual))
        return room, room // 4


def prepare_categories(
    data: CategoryData,
    *,
    test: CategoryData | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    seed: int = 0,
) -> PreparedCategories:
    """Check rows and split them.

    Parameters
    ----------
    test : CategoryData, optional
        Rows to evaluate on; absent: a share of ``data`` is held out.
    held_out : float
        That share, above 0 and below 1; of no effect with ``test``.
    conflicts : {"refuse", "drop", "keep"}
        See `sprat.train.checks.resolve_conflicts`.
    seed : int
        Of all splits, at least 0.

    Raises
    ------
    DataError
        When the rows do not suffice, contradict each other, or ``test`` has other categories.
    InvalidInput
        When a number is out of range.
    """
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")
    if not 0 < held_out < 1:
        raise InvalidInput(
            f"held_out: expected above 0 and below 1, got {held_out}", field="held_out"
        )
    _, dropped = resolve_conflicts(data.as_dataset(), conflicts)
    if dropped:
        gone = set(dropped)
        data = data.take(row for row, line in enumerate(data.lines) if line not in gone)
    names = data.names()
    _require_rows(data, names)
    groups_n = same_texts(data.texts)
    train = data
    if test is None:
        part_n = stratify(data.truth(names), groups_n, (1 - held_out, held_out), seed=seed)
        train, test = (data.take(np.flatnonzero(part_n == part).tolist()) for part in (0, 1))
        groups_n = same_texts(train.texts)
    truth_nk = train.truth(names)
    test.truth(names)
    folds = min(FOLDS, *(_texts_of(truth_nk[:, i], groups_n) for i in range(len(names))))
    if folds < 2:
        raise DataError(data.path, 0, "too few different texts of a category are left to train on")
    folds_n = stratify(truth_nk, groups_n, (1 / folds,) * folds, seed=seed)
    report, is_leaked_m = inspect(train.as_dataset(), test.as_dataset(), dropped_lines=dropped)
    return PreparedCategories(train, test, names, folds_n, report, is_leaked_m, seed)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModerator:
    """One tier of a bundle to be."""

    manifest: TierManifest
    head: Head
    record: TierModeration


TrainModerator = Callable[[PreparedCategories, Progress], TrainedModerator]


def train_moderator_tier(
    prepared: PreparedCategories,
    progress: Progress,
    *,
    name: TierName,
    base: ModelRef,
    embed: Embed,
    policy: Policy | None = None,
    class_weights: ClassWeights = "none",
) -> TrainedModerator:
    """Fit a head for each category on frozen features, calibrate them, choose their thresholds.

    Features are the sentence vector and, where out-of-fold scores get better by them, n-grams of
    characters.

    Parameters
    ----------
    name : {"static", "head", "finetune"}
        Of the tier.
    base : ModelRef
        The model that ``embed`` uses.
    embed : callable
        Called once, with no text twice.
    policy : Policy, optional
        What the thresholds are to be; absent: flag where F1 is best, block nothing.
    class_weights : {"none", "balanced"}
        See `sprat.train.fit_categories.fit_category`.

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
    scorer = _Scorer(prepared, embed, progress)
    truth_nk = prepared.train.truth(prepared.names)
    fits: dict[int, tuple[FittedCategory, ...]] = {}
    for buckets in (0, NGRAM_BUCKETS):
        examples = scorer.examples(buckets)
        fits[buckets] = tuple(
            fit_category(
                examples,
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
    fitted = fits[buckets]
    thresholds = tuple(
        policy.thresholds(category, each.out_of_fold, truth_nk[:, i])
        for i, (category, each) in enumerate(zip(prepared.names, fitted, strict=True))
    )
    head = Head(
        np.stack([each.weight for each in fitted]),
        np.array([each.bias for each in fitted], np.float32),
    )
    progress.phase(f"evaluate on {len(prepared.test)} rows")
    probability_mk = scorer.test_probabilities(head, buckets)
    truth_mk = prepared.test.truth(prepared.names)

    def evaluated(rows: npt.NDArray[np.intp]) -> ModerationReport:
        return evaluate_categories(
            probability_mk[rows],
            truth_mk[rows],
            names=prepared.names,
            flag_at=[each.flag_at for each in thresholds],
            seed=prepared.seed,
        )

    report = evaluated(np.arange(len(prepared.test)))
    fresh = np.flatnonzero(~prepared.is_leaked_m)
    return TrainedModerator(
        TierManifest(
            name=name,
            base=base,
            weights=f"{name}.safetensors",
            calibration=Calibration(temperature=1.0),
            evaluation=report.summary(),
            moderation=Moderation(
                window=room, overlap=overlap, ngram_buckets=buckets, thresholds=thresholds
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
    )


def train_moderator(
    prepared: PreparedCategories,
    tiers: Sequence[TrainModerator],
    *,
    name: str,
    out: Path,
    class_weights: ClassWeights = "none",
    progress: Progress | None = None,
) -> tuple[BundleManifest, ModerationRecord]:
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
    record = ModerationRecord(
        provenance=Provenance.of(prepared.train, prepared.test, seed=prepared.seed),
        class_weights=class_weights,
        folds=int(prepared.folds_n.max()) + 1,
        data=prepared.report,
        tiers={tier.manifest.name: tier.record for tier in trained},
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
    return bundle.save(out, report=record.model_dump_json(indent=2) + "\n"), record


class _Scorer:
    """Rows as features of one tier: every text and window is embedded once.

    Parameters
    ----------
    prepared : PreparedCategories
    embed : callable
        See `train_moderator_tier`.
    """

    def __init__(self, prepared: PreparedCategories, embed: Embed, progress: Progress) -> None:
        room, overlap = prepared.window
        self._train = list(prepared.train.texts)
        cut = [_windows(text, room, overlap) for text in (*self._train, *prepared.test.texts)]
        self._train_windows, self._train_starts = _flat(cut[: len(self._train)])
        self._test_windows, self._test_starts = _flat(cut[len(self._train) :])
        numbers: dict[str, int] = {}
        for text in itertools.chain(self._train, self._train_windows, self._test_windows):
            numbers.setdefault(text, len(numbers))
        progress.phase(f"embed {len(numbers)} texts")
        self._numbers = numbers
        self._vectors = embed(list(numbers))

    def examples(self, buckets: int) -> Examples:
        """The training rows, with n-grams in so many buckets."""
        return Examples(
            whole=self._features(self._train, buckets),
            windows=self._features(self._train_windows, buckets),
            starts=self._train_starts,
        )

    def test_probabilities(self, head: Head, buckets: int) -> npt.NDArray[np.float64]:
        """Probabilities of the test rows, float64[M, K]."""
        features = self._features(self._test_windows, buckets)
        return highest(sigmoid(features @ head.weight.T + head.bias), self._test_starts)

    def _features(self, texts: Sequence[str], buckets: int) -> Matrix:
        vectors = self._vectors[[self._numbers[text] for text in texts]]
        return with_sparse_ngrams(vectors, texts, buckets)


def _windows(text: str, room: int, overlap: int) -> list[str]:
    """Those with something to see; the server scores no others."""
    parts = (text[start:end] for start, end in windows(text, room, overlap))
    return [part for part in parts if is_visible(part)]


def _flat(parts: Sequence[Sequence[str]]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """All parts, and where those of each text begin."""
    starts = np.cumsum([0, *(len(each) for each in parts[:-1])]).astype(np.int64)
    return list(itertools.chain.from_iterable(parts)), starts


def _texts_of(has_n: npt.NDArray[np.bool_], groups_n: IntArray) -> int:
    """Different texts among the rows that a category has."""
    return len(np.unique(groups_n[has_n]))


def _require_rows(data: CategoryData, names: Sequence[str]) -> None:
    """Refuse rows from which some category cannot be learned."""
    if not names:
        raise DataError(data.path, 0, f"expected categories, found none in {len(data)} rows")
    groups_n = same_texts(data.texts)
    truth_nk = data.truth(names)
    for i, name in enumerate(names):
        has_n = truth_nk[:, i]
        for rows_n, what in ((has_n, "of"), (~has_n, "without")):
            if (count := _texts_of(rows_n, groups_n)) < LEAST_TEXTS:
                lines = [data.lines[row] for row in np.flatnonzero(rows_n)[:MAX_SHOWN_ROWS]]
                where = f", in lines {', '.join(map(str, lines))}" if lines else ""
                raise DataError(
                    data.path,
                    lines[0] if lines else 0,
                    f"expected {LEAST_TEXTS} or more different texts {what} category {name!r}, "
                    f"found {count}{where}",
                )
