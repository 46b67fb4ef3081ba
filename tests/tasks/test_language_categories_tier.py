"""Tiers that ask a language model about categories: what they say, and how cascades bear it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from doubles import (
    WAIT_S,
    Generator,
    eventually,
    generative_model,
    moderator,
)
from languages import with_categories

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.engine.base import Choice, Chosen
from sprat.errors import ConfigError, EngineError, InvalidInput, QueueFull
from sprat.model import EncoderModel, GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.task_config import ThresholdsConfig
from sprat.tasks.category_heads_tier import CategoryHeadsTier
from sprat.tasks.language_categories_tier import WAVE, LanguageCategoriesTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.moderate_tier import Moderated
from sprat.tasks.tier import Part, Prompted
from sprat.values import Effort, Moderation, OnFailure

LIMITS = [{"flag_at": 0.5}] * 2
CLEAN = {"asks": {"clean": {"name": "fine"}}}


@pytest.fixture
def generator() -> Generator:
    return Generator(context_length=900)


@pytest.fixture
async def model(
    generator: Generator, permits: ComputePermits, pool: ComputePool
) -> AsyncIterator[GenerativeModel]:
    made = generative_model(generator, permits, pool, capacity=20_000)
    yield made
    generator.choices.gate.set()
    await asyncio.to_thread(made.close)


def two_tiers(encoder: EncoderModel, model: GenerativeModel, **changes: Any) -> Bundle:
    return with_categories(
        moderator(encoder.manifest, thresholds=LIMITS), model.manifest, **changes
    )


def language(made: Bundle, model: GenerativeModel) -> LanguageCategoriesTier:
    return LanguageCategoriesTier.of(made.manifest, 1, model)


def cascade(
    encoder: EncoderModel,
    model: GenerativeModel,
    pool: ComputePool,
    *,
    accept_at: Sequence[float] = (1.0, 0.0),
    on_failure: OnFailure = "abstain",
    **options: Any,
) -> ModerateTask:
    """Heads that pass everything on by default, and a language model."""
    made = two_tiers(encoder, model)
    tiers = CategoryHeadsTier.of(made, 0, encoder, pool), language(made, model)
    parts: list[Part[Any]] = [Part(at, tier, accept_at[at]) for at, tier in enumerate(tiers)]
    return ModerateTask("m", made.manifest, parts, on_failure=on_failure, **options)


async def judge(
    tier: LanguageCategoriesTier, texts: Sequence[str], mailbox: Mailbox, *, partial: bool = False
) -> Moderated:
    return await tier.judge(texts, partial=partial, deadline=math.inf, mailbox=mailbox)


def said(answer: Moderation) -> list[float]:
    return [each.probability for each in answer.categories]


def odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


# -- what a tier says ------------------------------------------------------------------------


async def test_language_tier_asks_yes_or_no_of_each_category(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    asked: list[Choice] = []
    generator.choices.on_start = asked.append
    named = [{"name": "quirk", "description": "What is odd."}, {"name": "zed"}]
    made = two_tiers(encoder, model, asks={"categories": named, "instructions": "Posts."})
    judged = await judge(language(made, model), ["a yes", "a no no"], mailbox)
    assert judged.index == [0, 1]
    assert len(asked) == 4
    prompt = "".join(map(chr, asked[0].prompt.tolist()[1:]))
    assert prompt.startswith(
        "<system>Posts.\nquirk: Is it quirk? What is odd. Answer yes or no.\n"
        "zed: Is it zed? Answer yes or no."
    )
    yes, no = judged.answers
    assert said(yes) == pytest.approx([9 / 10] * 2)
    assert said(no) == pytest.approx([1 / 18] * 2)
    assert (yes.action, yes.category, no.action) == ("flag", "zed", "allow")
    assert [(each.category, each.start, each.end) for each in yes.categories] == [
        ("zed", 0, 5),
        ("quirk", 0, 5),
    ]
    assert yes.chunks == 1
    assert yes.input_tokens > 0
    assert judged.cpu_ns[0] > 0
    assert judged.confidence == pytest.approx([0.81, (17 / 18) ** 2])


async def test_language_tier_asks_once_where_there_is_an_answer_for_clean_texts(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    asked: list[Choice] = []
    generator.choices.on_start = asked.append
    named = [{"name": "quirk"}, {"name": "zed"}]
    made = two_tiers(encoder, model, asks={"categories": named, "clean": {"name": "fine"}})
    judged = await judge(language(made, model), ["zed zed", "all fine"], mailbox)
    assert len(asked) == 2
    assert "- quirk\n- zed\n- fine<user>" in "".join(map(chr, asked[0].prompt.tolist()[1:]))
    assert said(judged.answers[0]) == pytest.approx([17 / 19, 1 / 19])
    assert said(judged.answers[1]) == pytest.approx([1 / 11, 1 / 11])
    assert [answer.category for answer in judged.answers] == ["zed", ""]


async def test_language_tier_is_calibrated_by_category(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    acts = {
        "odds": [{"slope": 2, "offset": 0}, {"slope": 0.5, "offset": -3}],
        "thresholds": [{"flag_at": 0.9, "block_at": 0.98}, {"flag_at": 0.1}],
    }
    tier = language(two_tiers(encoder, model, acts=acts), model)
    (answer,) = (await judge(tier, ["a yes"], mailbox)).answers
    expected = [1 / (1 + math.exp(-2 * odds(0.9))), 1 / (1 + math.exp(3 - odds(0.9) / 2))]
    assert said(answer) == pytest.approx(expected)
    assert [each.action for each in answer.categories] == ["block", "flag"]
    assert (answer.action, answer.category) == ("block", "zed")


async def test_language_tier_without_calibration_has_no_confidence(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    tier = language(two_tiers(encoder, model, calibration=None), model)
    assert tier.calibrated is False
    assert (await judge(tier, ["a yes"], mailbox)).confidence == [None]


@pytest.mark.parametrize(("changes", "choices"), [({}, 2), (CLEAN, 1)])
async def test_language_tier_reads_its_questions_before_there_is_a_text(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    mailbox: Mailbox,
    changes: dict[str, Any],
    choices: int,
) -> None:
    tier = language(two_tiers(encoder, model, **changes), model)
    assert isinstance(tier, Prompted)
    assert not tier.writes
    await tier.warm_up(mailbox)
    assert len(generator.choices.started) == choices


async def test_language_tier_scans_long_texts_in_windows(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    tier = language(two_tiers(encoder, model, asks={"window": 100, "overlap": 20}), model)
    text = "word " * 500 + "yes it is here " + "word " * 500
    assert len(text) > WAVE * 100
    judged = await judge(tier, [text, "short"], mailbox)
    answer, short = judged.answers
    assert answer.category == "zed"
    assert answer.chunks > WAVE
    for each in answer.categories:
        assert each.probability == pytest.approx(9 / 10)
        assert "yes" in text[each.start : each.end]
        assert each.end - each.start <= 100
    assert said(short) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("changes", [{}, CLEAN])
async def test_language_tier_halves_windows_that_the_model_has_no_room_for(
    encoder: EncoderModel,
    model: GenerativeModel,
    pool: ComputePool,
    mailbox: Mailbox,
    changes: dict[str, Any],
) -> None:
    asks = {"window": 5000, "overlap": 50, **changes.get("asks", {})}
    tier = language(two_tiers(encoder, model, asks=asks), model)
    text = "filler " * 400 + ("yes" if not changes else "quirk") + " filler" * 300
    judged = await judge(tier, [text], mailbox)
    (answer,) = judged.answers
    assert judged.failed == {}
    assert answer.chunks >= 4
    found = answer.categories[1]
    assert found.probability > 0.75
    assert ("yes" if not changes else "quirk") in text[found.start : found.end]
    assert found.end - found.start < 900


async def test_language_tier_lists_bad_texts_or_raises(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    tier = language(two_tiers(encoder, model), model)
    judged = await judge(tier, ["yes", " ", "no"], mailbox, partial=True)
    assert judged.index == [0, 2]
    assert [error.index for error in judged.errors] == [1]
    with pytest.raises(InvalidInput, match=r"texts\[1\]"):
        await judge(tier, ["yes", " "], mailbox)


async def test_language_tier_refuses_more_questions_than_the_model_takes(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool
) -> None:
    manifest = two_tiers(encoder, model).manifest.model_dump(mode="json")
    names = [f"category {number}" for number in range(33)]
    tier = manifest["tiers"][1]
    tier["language"]["categories"] = [{"name": name} for name in names]
    tier["moderation"] = {
        "odds": [{"slope": 1, "offset": 0}] * 33,
        "thresholds": [{"flag_at": 0.5}] * 33,
    }
    many = BundleManifest.model_validate({**manifest, "labels": names, "tiers": [tier]})
    with pytest.raises(InvalidInput, match="questions: expected 1 to 32, got 33"):
        LanguageCategoriesTier.of(many, 0, model)


# -- behind a cheaper tier -------------------------------------------------------------------


async def test_language_tier_moderates_what_the_heads_are_not_sure_of(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model, pool, accept_at=(0.95, 0.0))
    result = await task.run(["a b", "z q"], mailbox=mailbox)
    assert [item and item.tier for item in result.items] == [0, 0]
    strict = cascade(encoder, model, pool, accept_at=(1.0, 0.6))
    result = await strict.run(["a yes yes", "a b"], mailbox=mailbox)
    yes, unsure = result.items
    assert yes is not None
    assert unsure is not None
    assert (yes.tier, yes.category, yes.escalated, yes.abstained) == (1, "zed", True, False)
    assert [each.tier for each in yes.tiers] == [0, 1]
    assert (unsure.abstained, unsure.action, unsure.category) == (True, "flag", "")
    assert unsure.confidence == pytest.approx(0.25)
    assert (result.model, result.calibrated) == (model.info.name, True)


async def test_language_tier_keeps_the_thresholds_of_the_configuration(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    made = two_tiers(encoder, model)
    part = Part(1, language(made, model), 0.0)
    given = {"zed": ThresholdsConfig(flag_at=0.95), "quirk": ThresholdsConfig(block_at=0.8)}
    task = ModerateTask("m", made.manifest, [part], thresholds=given)
    (item,) = (await task.run(["a yes"], mailbox=mailbox)).items
    assert item is not None
    assert [each.action for each in item.categories] == ["allow", "block"]
    assert item.confidence is None
    with pytest.raises(ConfigError, match="expected none beside accept_at"):
        cascade(encoder, model, pool, thresholds=given)


@pytest.mark.parametrize("error", ["not finite", ""])
async def test_language_tier_that_fails_on_a_text_is_missed_for_it_alone(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
    error: str,
) -> None:
    """Whether the engine says so, or hands over what is no number."""
    task = cascade(encoder, model, pool)
    nan = np.full(2, np.nan, np.float32)
    # Of two questions about each text the second one about the second text.
    generator.choices.odd[3] = Chosen(3, error=error) if error else Chosen(3, nan)
    items = (await task.run(["a yes", "a yes", "a no"], mailbox=mailbox)).items
    found = [(item.tier, item.degraded, item.abstained, item.action) for item in items if item]
    assert found == [
        (1, None, False, "flag"),
        (0, "failure", True, "flag"),
        (1, None, False, "allow"),
    ]
    info = task.info.tiers[1]
    assert (info.asked, info.missed) == (2, 1)


async def test_language_tier_alone_names_the_text_that_it_fails_on(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    made = two_tiers(encoder, model)
    task = ModerateTask("m", made.manifest, [Part(1, language(made, model), 0.0)])
    generator.choices.odd[3] = Chosen(3, error="not finite")
    result = await task.run(["a yes", "a no"], partial=True, mailbox=mailbox)
    assert [item and item.category for item in result.items] == ["zed", None]
    assert [error.message for error in result.errors] == ["model gen failed on texts[1]"]


async def test_language_tier_whose_engine_fails_is_missed(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    def fail() -> None:
        raise EngineError("no")

    generator.choices.on_step = fail
    (item,) = (
        await cascade(encoder, model, pool, on_failure="answer").run(["a b"], mailbox=mailbox)
    ).items
    assert item is not None
    assert (item.tier, item.degraded, item.abstained, item.action) == (0, "failure", False, "allow")
    with pytest.raises(EngineError):
        await cascade(encoder, model, pool, on_failure="error").run(["a b"], mailbox=mailbox)


async def test_language_tier_without_time_is_missed(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    task = cascade(encoder, model, pool)
    generator.choices.gate.clear()
    (item,) = (await task.run(["a yes"], effort=Effort(budget_ms=100), mailbox=mailbox)).items
    assert item is not None
    assert (item.tier, item.degraded, item.action) == (0, "no_time", "flag")
    generator.choices.gate.set()
    await eventually(lambda: not generator.choices.live, "what was given up runs on")


async def test_language_tier_without_room_is_missed(
    encoder: EncoderModel, permits: ComputePermits, pool: ComputePool, mailbox: Mailbox
) -> None:
    generator = Generator(context_length=900)
    model = generative_model(generator, permits, pool, capacity=400)
    try:
        task = cascade(encoder, model, pool)
        tier = language(two_tiers(encoder, model), model)
        generator.choices.gate.clear()
        generator.choices.places = 1
        running = asyncio.ensure_future(judge(tier, ["z" * 300], mailbox))
        await eventually(lambda: generator.choices.live, "nothing runs")
        waiting = asyncio.ensure_future(judge(tier, ["z" * 300], mailbox))
        await asyncio.sleep(0)
        (item,) = (await task.run(["z" * 110], mailbox=mailbox)).items
        assert item is not None
        assert (item.tier, item.degraded) == (0, "overload")
        with pytest.raises(QueueFull):
            await judge(tier, ["z" * 300], mailbox)
        generator.choices.gate.set()
        await asyncio.wait_for(asyncio.gather(running, waiting), WAIT_S)
    finally:
        generator.choices.gate.set()
        await asyncio.to_thread(model.close)


async def test_language_tier_gives_up_what_a_cancelled_call_began(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    tier = language(two_tiers(encoder, model, asks={"window": 100, "overlap": 0}), model)
    generator.choices.gate.clear()
    call = asyncio.create_task(judge(tier, ["word " * 2000], mailbox))
    await eventually(lambda: generator.choices.live, "nothing was begun")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, WAIT_S)
    generator.choices.gate.set()
    await eventually(lambda: not generator.choices.live, "the call goes on")
    assert len(generator.choices.started) <= 2 * WAVE
