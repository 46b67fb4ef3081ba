"""What becomes of what tiers say of categories: questions, odds, thresholds and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import doubles
import numpy as np
import pytest
from doubles import moderator
from languages import with_categories

from sprat.asked_manifest import Categories
from sprat.bundle_manifest import AskedModeration, BundleManifest, TierManifest
from sprat.calibration import category_odds
from sprat.errors import ConfigError, DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.train.asked_categories import AskedCategories, SaidOfCategories
from sprat.train.categories import CategoryData
from sprat.train.policy import CategoryPolicy, Policy, Rule
from sprat.values import (
    CategoryScore,
    ExtractSpec,
    ItemError,
    Label,
    LabelSet,
    ModerateResult,
    Moderation,
    Timings,
)

KIND = AskedCategories()
NAMES = ("zed", "quirk")
ADAPTER = ModelRef(name="lora", digest="c" * 64)


@pytest.fixture(scope="module")
def bundle() -> BundleManifest:
    heads = moderator(doubles.manifest(doubles.ENCODER), thresholds=[{"flag_at": 0.5}] * 2)
    return with_categories(heads, doubles.generator_manifest()).manifest


@pytest.fixture(scope="module")
def tier(bundle: BundleManifest) -> TierManifest:
    return bundle.tiers[-1]


def data(truth_nk: Any) -> CategoryData:
    rows = [
        tuple(sorted(name for name, is_so in zip(NAMES, row, strict=True) if is_so))
        for row in np.asarray(truth_nk, bool).tolist()
    ]
    count = len(rows)
    texts = tuple(f"text {number}" for number in range(count))
    return CategoryData(texts, tuple(rows), tuple(range(1, count + 1)), "rows.jsonl")


def drawn(count: int, seed: int) -> tuple[SaidOfCategories, CategoryData]:
    """A model that knows something, and is far too sure of it; of the first it always says too
    little."""
    rng = np.random.default_rng(seed)
    odds_nk = rng.normal(0, 2, (count, 2)) - 1
    truth_nk = rng.random((count, 2)) < 1 / (1 + np.exp(-odds_nk))
    said_nk = 1 / (1 + np.exp(-(odds_nk * [2, 1.5] - [3, 0])))
    return SaidOfCategories(said_nk, np.ones(count, bool)), data(truth_nk)


# -- what is asked ---------------------------------------------------------------------------


def test_asked_categories_are_questions_of_yes_or_no(bundle: BundleManifest) -> None:
    asked = KIND.language(
        bundle, adapter=None, trained=None, labels=[Label("quirk", "Odd.")], instructions="Posts."
    )
    assert asked.clean is None
    assert [label.name for label in asked.categories] == ["quirk", "zed"]
    assert (asked.instructions, asked.categories[0].description) == ("Posts.", "Odd.")
    assert asked.overlap < asked.window


def test_asked_categories_are_labels_to_an_adapter_that_knows_them(bundle: BundleManifest) -> None:
    trained = LabelSet(
        "gen", (Label("quirk"), Label("fine", "Nothing."), Label("zed")), "Posts.", "full", True
    )
    asked = KIND.language(
        bundle, adapter=ADAPTER, trained=trained, labels=[Label("zed", "A z.")], correct_prior=True
    )
    assert asked.clean == Label("fine", "Nothing.")
    assert asked.categories == (Label("quirk"), Label("zed", "A z."))
    assert (asked.scoring, asked.normalize_length, asked.correct_prior) == ("full", True, True)
    assert (asked.instructions, asked.adapter) == ("Posts.", ADAPTER)
    described = [Label("fine", "An ordinary post.")]
    asked = KIND.language(bundle, adapter=ADAPTER, trained=trained, labels=described)
    assert asked.clean == described[0]


@pytest.mark.parametrize(
    "trained",
    [
        LabelSet("gen", (Label("zed"), Label("quirk"))),
        LabelSet("gen", (Label("zed"), Label("fine"))),
        LabelSet("gen", (Label("zed"), Label("quirk"), Label("fine"), Label("other"))),
        ExtractSpec("gen", "{}"),
    ],
)
def test_asked_categories_refuse_an_adapter_for_something_else(
    bundle: BundleManifest, trained: Any
) -> None:
    with pytest.raises(InvalidInput, match="adapter: expected one that was trained to name a cate"):
        KIND.language(bundle, adapter=ADAPTER, trained=trained, labels=[])


def test_asked_categories_refuse_what_questions_do_not_take(bundle: BundleManifest) -> None:
    with pytest.raises(InvalidInput, match="scoring: expected an adapter beside it"):
        KIND.language(bundle, adapter=None, trained=None, labels=[], scoring="full")
    with pytest.raises(InvalidInput, match="'war' not among those of bundle moderator"):
        KIND.language(bundle, adapter=None, trained=None, labels=[Label("war")])


def test_asked_categories_are_asked_without_a_calibration(tier: TierManifest) -> None:
    unfitted = KIND.unfitted(tier.model_copy(update={"moderation": None}))
    assert unfitted.calibration is None
    assert isinstance(unfitted.moderation, AskedModeration)
    said = SaidOfCategories(np.array([[0.2, 0.9]]), np.ones(1, bool))
    assert said.probabilities(unfitted.moderation) == pytest.approx(said.chance_nk)


# -- what is said ----------------------------------------------------------------------------


def result(items: Sequence[Moderation | None], errors: tuple[ItemError, ...] = ()) -> Any:
    return ModerateResult(tuple(items), errors, "m", "v", "", False, Timings(0, 0, 0, 0))


def test_asked_categories_know_answers_that_are_none(bundle: BundleManifest) -> None:
    scores = tuple(CategoryScore(name, 0.25, "allow", 0, 1) for name in NAMES)
    good, bad = (Moderation("allow", "", scores, abstained=odd) for odd in (False, True))
    rows = data([[0, 0]] * 3)
    said = KIND.say(bundle, lambda rows: result([good, bad, good]), rows, Silent())
    assert said.chance_nk.tolist() == [[0.25, 0.25]] * 3
    assert said.is_sound_n.tolist() == [True, False, True]


def test_asked_categories_name_the_row_that_is_not_answered(bundle: BundleManifest) -> None:
    error = ItemError(1, "ENGINE_ERROR", "endpoint far failed on texts[1]")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: endpoint far failed on text"):
        KIND.say(bundle, lambda rows: result([None, None], (error,)), data([[0, 0]] * 2), Silent())


# -- what is made of it ----------------------------------------------------------------------


def test_asked_categories_are_calibrated_one_by_one(
    bundle: BundleManifest, tier: TierManifest
) -> None:
    fit = KIND.fit(bundle, *drawn(4000, 1), tier, seed=0)
    zed, quirk = fit.moderation.odds
    # The inverse of what `drawn` does to log-odds.
    assert (zed.slope, zed.offset) == pytest.approx((1 / 2, 3 / 2), abs=0.1)
    assert (quirk.slope, quirk.offset) == pytest.approx((2 / 3, 0), abs=0.1)
    said, rows = drawn(4000, 2)
    report = KIND.evaluate(bundle, said, rows, KIND.fitted(tier, fit), seed=0)
    assert report.ece.value < 0.02
    plain = KIND.evaluate(bundle, said, rows, KIND.unfitted(tier), seed=0)
    assert plain.ece.value > 0.05
    assert report.whole is not None
    assert report.whole.ece.value < 0.03
    assert plain.whole is None


def test_asked_categories_act_by_the_policy(bundle: BundleManifest, tier: TierManifest) -> None:
    every = CategoryPolicy(flag=Rule(min_recall=0.9), block=Rule(min_precision=0.9))
    said, rows = drawn(2000, 1)
    fit = AskedCategories(Policy({"*": every})).fit(bundle, said, rows, tier, seed=0)
    truth_nk = rows.truth(NAMES)
    chance_nk = said.probabilities(fit.moderation)
    for column, limits in enumerate(fit.moderation.thresholds):
        flagged = chance_nk[:, column] >= limits.flag_at
        assert flagged[truth_nk[:, column]].mean() >= 0.9
        assert limits.block_at is not None
        blocked = chance_nk[:, column] >= limits.block_at
        assert truth_nk[blocked, column].mean() >= 0.9
    with pytest.raises(ConfigError, match="no row has this category"):
        AskedCategories(Policy({"war": every})).fit(bundle, said, rows, tier, seed=0)


def test_asked_categories_of_no_answer_are_wrong_and_never_sure(
    bundle: BundleManifest, tier: TierManifest
) -> None:
    said, rows = drawn(1000, 1)
    half = dataclasses.replace(said, is_sound_n=np.arange(1000) % 2 == 0)
    fit = KIND.fit(bundle, half, rows, tier, seed=0)
    assert (fit.rows, fit.not_sound) == (500, 500)
    fitted = KIND.fitted(tier, fit)
    sure_n, due_n, is_right_n = KIND.rate(bundle, half, rows, fitted)
    assert due_n is not None
    assert set(due_n.tolist()) == set(range(len(bundle.labels) + 1))
    assert (sure_n[1::2] == 0).all()
    assert not is_right_n[1::2].any()
    assert 0.4 < is_right_n[::2].mean() < 1
    report = KIND.evaluate(bundle, half, rows, fitted, seed=0)
    assert report.exact.value == pytest.approx(is_right_n.mean())
    whole = KIND.evaluate(bundle, said, rows, fitted, seed=0)
    assert report.micro_f1.value < whole.micro_f1.value - 0.1


def test_asked_categories_that_a_model_parts_without_a_mistake_are_finite(
    bundle: BundleManifest, tier: TierManifest
) -> None:
    truth_nk = np.arange(80).reshape(-1, 2) % 3 == 0
    said = SaidOfCategories(truth_nk.astype(float), np.ones(len(truth_nk), bool))
    fit = KIND.fit(bundle, said, data(truth_nk), tier, seed=0)
    fitted = KIND.fitted(tier, fit)
    assert TierManifest.model_validate(fitted.model_dump()) == fitted
    report = KIND.evaluate(bundle, said, data(truth_nk), fitted, seed=0)
    assert report.exact.value == 1


def test_asked_categories_that_a_model_knows_nothing_of_are_guessed(
    bundle: BundleManifest, tier: TierManifest
) -> None:
    """Also where it says the opposite: a slope below 0 would be luck."""
    truth_nk = np.arange(400).reshape(-1, 2) % 5 == 0
    said = SaidOfCategories(np.where(truth_nk, 0.2, 0.6), np.ones(len(truth_nk), bool))
    fit = KIND.fit(bundle, said, data(truth_nk), tier, seed=0)
    assert [each.slope for each in fit.moderation.odds] == [0, 0]
    assert said.probabilities(fit.moderation) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("sound", [True, False])
def test_asked_categories_need_rows_with_each_and_without(
    bundle: BundleManifest, tier: TierManifest, sound: bool
) -> None:
    truth_nk = np.tile([[1, 0], [0, 0]], (20, 1))
    said = SaidOfCategories(np.full((40, 2), 0.5), np.full(40, sound))
    name, found = ("quirk", "found 0 of 40$") if sound else ("zed", "found 0 of 0, and 40 answers")
    with pytest.raises(DataError, match=f"rows of category '{name}' and others .*{found}"):
        KIND.fit(bundle, said, data(truth_nk), tier, seed=0)


def test_asked_categories_are_in_both_parts() -> None:
    truth_nk = np.zeros((60, 2), bool)
    truth_nk[:4, 0] = truth_nk[2:8, 1] = True
    for seed in range(5):
        parts = KIND.split(data(truth_nk), 0.5, seed=seed)
        assert [len(part) for part in parts] == [30, 30]
        for part in parts:
            assert part.names() == tuple(sorted(NAMES))
    with pytest.raises(DataError, match="expected 4 or more different texts of category 'zed'"):
        KIND.split(data(truth_nk[1:]), 0.5, seed=0)
    with pytest.raises(InvalidInput, match="held_out"):
        KIND.split(data(truth_nk), 1.5, seed=0)


def test_asked_categories_odds_are_finite_and_keep_what_is_no_number() -> None:
    odds = category_odds(np.array([0.0, 0.5, 1.0, np.nan]))
    assert odds[:3] == pytest.approx([-13.8155, 0, 13.8155], abs=1e-3)
    assert np.isnan(odds[3])


def test_asked_categories_in_a_manifest_fit_their_bundle(bundle: BundleManifest) -> None:
    document = bundle.model_dump(mode="json")

    def refused(message: str, **changes: Any) -> None:
        tier = {**document["tiers"][1], **changes}
        with pytest.raises(ValueError, match=message):
            BundleManifest.model_validate({**document, "tiers": [document["tiers"][0], tier]})

    asks = document["tiers"][1]["language"]
    assert isinstance(BundleManifest.model_validate(document).tiers[1].language, Categories)
    refused("expected odds if it has no weights", moderation=document["tiers"][0]["moderation"])
    refused(
        "1 odds, but 2 thresholds",
        moderation={"odds": [{"slope": 1, "offset": 0}], "thresholds": [{"flag_at": 0.5}] * 2},
    )
    refused("expected the labels of the bundle", language={**asks, "categories": [{"name": "zed"}]})
    refused("overlap 400 is not below window 400", language={**asks, "overlap": 400})
    refused("expected clean beside", language={**asks, "scoring": "full"})
    refused("'zed' is a category", language={**asks, "clean": {"name": "zed"}})
    refused(
        "expected what a task of kind moderate asks",
        language={"labels": [{"name": name} for name in NAMES]},
    )
    head = {**document["tiers"][0], "moderation": document["tiers"][1]["moderation"]}
    with pytest.raises(ValueError, match="expected odds if it has no weights"):
        BundleManifest.model_validate({**document, "tiers": [head]})
