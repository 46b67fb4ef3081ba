"""Tiers that ask for categories: those of moderate tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.asked_manifest import Categories, RemoteCategories
from sprat.bundle_manifest import (
    AskedModeration,
    BundleManifest,
    Calibration,
    Odds,
    Thresholds,
    TierManifest,
)
from sprat.calibration import category_chances, category_odds, chance_of_actions, confidences
from sprat.errors import DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.scheduler import Mailbox
from sprat.tasks.moderate import ModerateTask
from sprat.train.asked import Ask, AskedKind, Rated, Result, answers, described
from sprat.train.categories import CategoryData
from sprat.train.category_fit import CategoryFit
from sprat.train.confidence import with_whole
from sprat.train.evaluate_categories import ModerationReport, evaluate_categories
from sprat.train.fit_categories import due_categories, fit_platt
from sprat.train.moderation_record import AskedRecord, ModerationRecord
from sprat.train.policy import Policy
from sprat.train.prepare_categories import require_rows, split_categories
from sprat.train.record import LanguageRecord
from sprat.values import Label, LabelSet

WINDOW, OVERLAP = 2048, 256
"""Characters of the windows that a generative model reads long texts in, some 500 tokens: it knows
long texts by itself, and where the reason stands should be told more closely than that."""

_STEEPEST = 1e3
"""Of the line through log-odds: categories that a model parts without a mistake have no end."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SaidOfCategories:
    """What a tier says of N rows.

    Attributes
    ----------
    chance_nk : float64[N, K]
        How probable each category is by its own lights, in [0, 1]: the highest among the windows of
        a text.
    is_sound_n : bool[N]
        Whether each answer is one at all: see `sprat.tasks.moderate_tier.Moderated`.
    """

    chance_nk: _Floats
    is_sound_n: npt.NDArray[np.bool_]

    def probabilities(self, moderation: AskedModeration) -> _Floats:
        """Calibrated ones, float64[N, K]."""
        return category_chances(self.chance_nk, moderation.odds)


@dataclass(frozen=True, slots=True)
class AskedCategories(
    AskedKind[CategoryData, SaidOfCategories, CategoryFit, ModerationReport, ModerationRecord]
):
    """See `AskedKind`. An answer is right where all categories of the row are flagged, no other.

    Attributes
    ----------
    policy : Policy
        What the thresholds of a tier are to be.
    """

    policy: Policy = field(default_factory=Policy)

    record = ModerationRecord
    options = frozenset({"instructions", "scoring", "normalize_length", "correct_prior", "votes"})

    def unfitted(self, tier: TierManifest) -> TierManifest:
        """A tier that says what it is told, whose thresholds nobody looks at."""
        asked = tier.language or tier.remote
        assert isinstance(asked, Categories | RemoteCategories)
        count = len(asked.categories)
        plain = AskedModeration(
            odds=(Odds(slope=1, offset=0),) * count, thresholds=(Thresholds(flag_at=0.5),) * count
        )
        return tier.model_copy(update={"calibration": None, "moderation": plain})

    def language(
        self,
        bundle: BundleManifest,
        *,
        adapter: ModelRef | None,
        trained: Any,
        labels: Sequence[Label],
        **asks: Any,
    ) -> Categories:
        """A question for each category; as an adapter was trained, for one of its labels."""
        if trained is None:
            for option in ("scoring", "normalize_length", "correct_prior"):
                if option in asks:
                    raise InvalidInput(
                        f"{option}: expected an adapter beside it that was trained on labels; "
                        "questions are answered by yes or no",
                        field=option,
                    )
            named = described(bundle, (), labels)
            return Categories(
                categories=named, adapter=adapter, window=WINDOW, overlap=OVERLAP, **asks
            )
        known, clean = _told(bundle, "" if adapter is None else adapter.name, trained)
        spec = replace(trained, **asks)
        if clean.name in {label.name for label in labels}:
            given = {label.name: label for label in labels}
            clean = given.pop(clean.name)
            labels = tuple(given.values())
        return Categories(
            categories=described(bundle, known, labels),
            clean=clean,
            instructions=spec.instructions,
            scoring=spec.scoring,
            normalize_length=spec.normalize_length,
            correct_prior=spec.correct_prior,
            adapter=adapter,
            window=WINDOW,
            overlap=OVERLAP,
        )

    def remote(
        self,
        bundle: BundleManifest,
        *,
        model: str,
        task_version: str,
        labels: Sequence[Label],
        **asks: Any,
    ) -> RemoteCategories:
        """The categories in the order in which they are described, then that of the bundle."""
        named = described(bundle, (), labels)
        return RemoteCategories(model=model, task_version=task_version, categories=named, **asks)

    def check(self, bundle: BundleManifest, rows: CategoryData) -> None:
        """Refuse rows with other categories."""
        rows.truth(bundle.labels)

    def split(
        self, rows: CategoryData, held_out: float, *, seed: int
    ) -> tuple[CategoryData, CategoryData]:
        """Each category in both parts, which takes some texts of it, and some without it."""
        require_rows(rows, rows.names())
        return split_categories(rows, held_out, seed=seed)

    async def call(self, task: ModerateTask, rows: CategoryData, mailbox: Mailbox) -> Result:
        """Texts of any length."""
        return await task.run(rows.texts, partial=True, mailbox=mailbox)

    def say(
        self, bundle: BundleManifest, ask: Ask, rows: CategoryData, progress: Progress
    ) -> SaidOfCategories:
        """Its probabilities."""
        given = answers(ask, rows, progress)
        return SaidOfCategories(
            np.array(
                [[each.probability for each in answer.categories] for answer in given], np.float64
            ).reshape(len(rows), len(bundle.labels)),
            # Without a threshold only what is no answer is abstained from.
            np.array([not answer.abstained for answer in given], np.bool_),
        )

    def fit(
        self,
        bundle: BundleManifest,
        said: SaidOfCategories,
        rows: CategoryData,
        tier: TierManifest,
        *,
        seed: int,
    ) -> CategoryFit:
        """Odds of each category, its thresholds, and a curve for whole answers.

        Answers that are not sound have no part in it; their confidence is 0.

        Raises
        ------
        DataError
            None of the answers that are sound is to a text of a category, or all are.
        ConfigError
            The policy cannot be kept.
        """
        self.policy.check(bundle.labels)
        sound = said.is_sound_n
        truth_nk = rows.truth(bundle.labels)[sound]
        for name, count in zip(bundle.labels, truth_nk.sum(axis=0).tolist(), strict=True):
            if not 0 < count < len(truth_nk):
                without = len(rows) - len(truth_nk)
                why = f", and {without} answers are no list of the categories" if without else ""
                raise DataError(
                    rows.path,
                    0,
                    f"expected rows of category {name!r} and others to calibrate on, found {count} "
                    f"of {len(truth_nk)}{why}",
                )
        odds_nk = category_odds(said.chance_nk[sound])
        odds = tuple(
            _odds(odds_nk[:, column], truth_nk[:, column]) for column in range(len(bundle.labels))
        )
        chance_nk = category_chances(said.chance_nk[sound], odds)
        thresholds = tuple(
            self.policy.thresholds(name, chance_nk[:, column], truth_nk[:, column])
            for column, name in enumerate(bundle.labels)
        )
        flagged_nk = chance_nk >= [each.flag_at for each in thresholds]
        return CategoryFit(
            calibration=with_whole(
                Calibration(temperature=1.0),
                chance_of_actions(chance_nk, thresholds),
                (flagged_nk == truth_nk).all(axis=1),
                seed=seed,
            ),
            moderation=AskedModeration(odds=odds, thresholds=thresholds),
            rows=len(truth_nk),
            not_sound=len(rows) - len(truth_nk),
        )

    def fitted(self, tier: TierManifest, fit: CategoryFit) -> TierManifest:
        """A tier with odds, thresholds and curve."""
        return tier.model_copy(
            update={"calibration": fit.calibration, "moderation": fit.moderation}
        )

    def evaluate(
        self,
        bundle: BundleManifest,
        said: SaidOfCategories,
        rows: CategoryData,
        tier: TierManifest,
        *,
        seed: int,
    ) -> ModerationReport:
        """See `evaluate_categories`. What is no answer is wrong in each category."""
        moderation = _moderation(tier)
        truth_nk = rows.truth(bundle.labels)
        return evaluate_categories(
            said.probabilities(moderation),
            truth_nk,
            names=bundle.labels,
            flag_at=[each.flag_at for each in moderation.thresholds],
            flagged_nk=np.where(said.is_sound_n[:, None], _flagged(said, moderation), ~truth_nk),
            confidence_n=None if tier.whole is None else _sure(said, moderation, tier.whole),
            seed=seed,
        )

    def rate(
        self,
        bundle: BundleManifest,
        said: SaidOfCategories,
        rows: CategoryData,
        tier: TierManifest,
    ) -> Rated:
        """Whether the right categories are flagged."""
        moderation, calibration = _moderation(tier), tier.whole
        assert calibration is not None
        is_right_n = (_flagged(said, moderation) == rows.truth(bundle.labels)).all(axis=1)
        due_n = due_categories(said.probabilities(moderation), moderation.thresholds)
        return _sure(said, moderation, calibration), due_n, is_right_n & said.is_sound_n

    def recorded(
        self,
        record: ModerationRecord,
        name: str,
        report: ModerationReport,
        training: LanguageRecord,
    ) -> ModerationRecord:
        """Beside the heads."""
        made = AskedRecord(evaluation=report, training=training)
        return record.model_copy(update={"asked": {**record.asked, name: made}})


def _told(bundle: BundleManifest, adapter: str, trained: Any) -> tuple[tuple[Label, ...], Label]:
    """The categories that an adapter knows, and its label for clean texts."""
    labels = trained.labels if isinstance(trained, LabelSet) else ()
    others = [label for label in labels if label.name not in bundle.labels]
    if len(others) != 1 or len(labels) != len(bundle.labels) + 1:
        found = ", ".join(repr(label.name) for label in labels) or "none"
        raise InvalidInput(
            f"adapter: expected one that was trained to name a category of bundle {bundle.name} or "
            f"one label for clean texts; {adapter} knows the labels {found}",
            field="adapter",
        )
    return tuple(label for label in labels if label.name in bundle.labels), others[0]


def _moderation(tier: TierManifest) -> AskedModeration:
    assert isinstance(tier.moderation, AskedModeration)  # the manifest of such a tier has it
    return tier.moderation


def _flagged(said: SaidOfCategories, moderation: AskedModeration) -> npt.NDArray[np.bool_]:
    flag_at = np.array([each.flag_at for each in moderation.thresholds])
    return said.probabilities(moderation) >= flag_at


def _sure(said: SaidOfCategories, moderation: AskedModeration, calibration: Calibration) -> _Floats:
    """Confidences that the right categories are flagged; 0 where an answer is none."""
    chance_n = chance_of_actions(said.probabilities(moderation), moderation.thresholds)
    sure_n: _Floats = np.where(said.is_sound_n, confidences(chance_n, calibration), 0.0)
    return sure_n


def _odds(odds_n: _Floats, truth_n: npt.NDArray[np.bool_]) -> Odds:
    platt = fit_platt(odds_n, truth_n)
    return Odds(
        slope=min(platt.slope, _STEEPEST),
        offset=float(np.clip(platt.offset, -_STEEPEST, _STEEPEST)),
    )
