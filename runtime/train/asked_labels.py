"""Tiers that ask for labels: those of classify and route tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sprat.asked_manifest import Language, Remote
from sprat.bundle_manifest import BundleManifest, Calibration, TierManifest
from sprat.calibration import confidences, log_scores, spread
from sprat.errors import InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.scheduler import Mailbox
from sprat.tasks.classify import ClassifyTask
from sprat.train.asked import Ask, AskedKind, Rated, Result, answers, described
from sprat.train.calibrate import CalibrationFit, best_answers, fit_calibration
from sprat.train.data import Dataset
from sprat.train.evaluate import evaluate
from sprat.train.record import LanguageRecord, TierRecord, TrainingRecord
from sprat.train.report import Report
from sprat.train.split import split
from sprat.values import FloatArray, Label, LabelSet


class AskedLabels(AskedKind[Dataset, FloatArray, CalibrationFit, Report, TrainingRecord]):
    """See `AskedKind`. What a tier says are log-probabilities, float32[N, K]."""

    record = TrainingRecord
    options = frozenset({"instructions", "scoring", "normalize_length", "correct_prior", "votes"})

    def language(
        self,
        bundle: BundleManifest,
        *,
        adapter: ModelRef | None,
        trained: Any,
        labels: Sequence[Label],
        **asks: Any,
    ) -> Language:
        """The labels in the order that the adapter knows, else in that of the bundle."""
        if trained is not None and not isinstance(trained, LabelSet):
            raise InvalidInput(
                f"adapter: expected one for classify, but {adapter and adapter.name} was trained "
                "for another kind of task",
                field="adapter",
            )
        spec = replace(LabelSet("", ()) if trained is None else trained, **asks)
        return Language(
            labels=described(bundle, spec.labels, labels),
            instructions=spec.instructions,
            scoring=spec.scoring,
            normalize_length=spec.normalize_length,
            correct_prior=spec.correct_prior,
            adapter=adapter,
        )

    def remote(
        self,
        bundle: BundleManifest,
        *,
        model: str,
        task_version: str,
        labels: Sequence[Label],
        **asks: Any,
    ) -> Remote:
        """The labels in the order in which they are described, then that of the bundle."""
        named = described(bundle, (), labels)
        return Remote(model=model, task_version=task_version, labels=named, **asks)

    def check(self, bundle: BundleManifest, rows: Dataset) -> None:
        """Refuse rows with other labels."""
        rows.targets(bundle.labels)

    def split(self, rows: Dataset, held_out: float, *, seed: int) -> tuple[Dataset, Dataset]:
        """Every label in both parts."""
        return split(rows, held_out, seed=seed)

    async def call(self, task: ClassifyTask, rows: Dataset, mailbox: Mailbox) -> Result:
        """All labels, as far as the tier says something of them."""
        return await task.run(rows.texts, partial=True, mailbox=mailbox)

    def say(
        self, bundle: BundleManifest, ask: Ask, rows: Dataset, progress: Progress
    ) -> FloatArray:
        """See `log_probabilities`."""
        return log_probabilities(ask, bundle.labels, rows, progress)

    def fit(
        self,
        bundle: BundleManifest,
        said: FloatArray,
        rows: Dataset,
        tier: TierManifest,
        *,
        seed: int,
    ) -> CalibrationFit:
        """See `fit_calibration`."""
        return fit_calibration(said, rows.targets(bundle.labels), seed=seed)

    def evaluate(
        self,
        bundle: BundleManifest,
        said: FloatArray,
        rows: Dataset,
        tier: TierManifest,
        *,
        seed: int,
    ) -> Report:
        """See `sprat.train.evaluate.evaluate`."""
        return evaluate(
            said,
            rows.targets(bundle.labels),
            labels=bundle.labels,
            lines=rows.lines,
            calibration=tier.calibration or Calibration(temperature=1.0),
            seed=seed,
        )

    def rate(
        self, bundle: BundleManifest, said: FloatArray, rows: Dataset, tier: TierManifest
    ) -> Rated:
        """Whether the best label is that of the row."""
        assert tier.calibration is not None
        targets_n = rows.targets(bundle.labels)
        best_n, is_right_n = best_answers(said, targets_n, tier.calibration.temperature)
        answer_n = said.argmax(axis=1).astype(np.int32)
        return confidences(best_n, tier.calibration), answer_n, is_right_n

    def recorded(
        self, record: TrainingRecord, name: str, report: Report, training: LanguageRecord
    ) -> TrainingRecord:
        """Among the other tiers."""
        made = TierRecord(evaluation=report, without_leaked=None, training=training)
        return record.model_copy(update={"tiers": {**record.tiers, name: made}})


def log_probabilities(
    ask: Ask, labels: Sequence[str], rows: Dataset, progress: Progress
) -> FloatArray:
    """Log-probabilities of labels.

    Parameters
    ----------
    ask : callable
        Answers with the scores of all labels, or of the one that it names: see `spread`. An answer
        without any counts as a wrong label, no surer than chance.

    Returns
    -------
    float32[N, K]

    Raises
    ------
    DataError
        For the first row that cannot be answered, such as one that is too long.
    """
    shares_nk = np.empty((len(rows), len(labels)), np.float32)
    for at, item in enumerate(answers(ask, rows, progress)):
        scores = {score.label: score.score for score in item.scores}
        if not scores:
            # No label is a wrong one, and no surer than chance.
            wrong = labels[labels[0] == rows.labels[at]]
            scores = {wrong: 0.0}
        if len(scores) == 1:
            ((label, sure),) = scores.items()
            shares_nk[at] = spread(labels.index(label), sure, len(labels))
        else:
            shares_nk[at] = [scores[label] for label in labels]
    return log_scores(shares_nk)
