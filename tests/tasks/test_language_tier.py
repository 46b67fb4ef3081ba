"""Tiers that ask a language model: what they say, and how a cascade bears with them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import (
    LABELS,
    WAIT_S,
    Generator,
    bundle,
    eventually,
    generative_model,
)
from languages import with_language

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.calibration import tempered
from sprat.engine.base import Choice, Chosen
from sprat.errors import DeadlineExceeded, EngineError, InputTooLong, InvalidInput, QueueFull
from sprat.model import EncoderModel, GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import choose
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.language_tier import LanguageTier
from sprat.tasks.tier import Judged, Part
from sprat.values import Classification, Effort, OnFailure

TEXTS = ("third third first", "second", "no label")


@pytest.fixture
def generator() -> Generator:
    return Generator(context_length=1000)


@pytest.fixture
async def model(
    generator: Generator, permits: ComputePermits, pool: ComputePool
) -> AsyncIterator[GenerativeModel]:
    made = generative_model(generator, permits, pool, capacity=400)
    yield made
    generator.choices.gate.set()
    await asyncio.to_thread(made.close)


def two_tiers(encoder: EncoderModel, model: GenerativeModel, **changes: Any) -> Bundle:
    return with_language(bundle(encoder.manifest), model.manifest, **changes)


def cascade(
    encoder: EncoderModel,
    model: GenerativeModel,
    *,
    accept_at: Sequence[float] = (1.0, 0.0),
    on_failure: OnFailure = "abstain",
) -> ClassifyTask:
    """A head that passes everything on by default, and a language model."""
    made = two_tiers(encoder, model)
    tiers = HeadTier.of(made, 0, encoder), LanguageTier.of(made.manifest, 1, model)
    parts = [Part(at, tier, accept_at[at]) for at, tier in enumerate(tiers)]
    return ClassifyTask("t", made.manifest, parts, on_failure=on_failure)


async def judge(tier: LanguageTier, texts: Sequence[str], mailbox: Mailbox, **given: Any) -> Judged:
    options: dict[str, Any] = {"top_k": None, "truncation": "refuse", "partial": False}
    options |= {"deadline": math.inf, "mailbox": mailbox, **given}
    return await tier.judge(texts, **options)


async def answers(
    task: ClassifyTask, texts: Sequence[str], mailbox: Mailbox, **options: Any
) -> list[Classification]:
    result = await task.run(texts, mailbox=mailbox, **options)
    assert result.errors == ()
    return [item for item in result.items if item is not None]


# -- what a tier says ------------------------------------------------------------------------


async def test_language_tier_says_what_choose_does_at_its_temperature(
    encoder: EncoderModel, model: GenerativeModel, mailbox: Mailbox
) -> None:
    made = two_tiers(encoder, model, calibration={"temperature": 2.0, "ceiling": 0.6})
    tier = LanguageTier.of(made.manifest, 1, model)
    plain = await choose.run(model, TEXTS, tier.spec, mailbox=mailbox)
    judged = await judge(tier, TEXTS, mailbox)
    assert judged.index == [0, 1, 2]
    assert judged.failed == {}
    for row, (item, text) in enumerate(zip(plain.items, TEXTS, strict=True)):
        assert item is not None
        scores = {score.label: score.score for score in item.scores}
        given = np.array([[scores[label] for label in LABELS]], np.float32)
        (expected,) = tempered(given, 2.0)
        ranked = judged.ranked[row]
        assert judged.label(row) == item.label
        np.testing.assert_allclose(judged.probabilities[row], expected[ranked], rtol=1e-6)
        assert sorted(ranked) == [0, 1, 2]
        assert judged.confidence[row] == pytest.approx(min(expected.max(), 0.6))
        assert judged.input_tokens[row] == item.input_tokens
        assert judged.cached_tokens[row] > 0, text
        assert judged.cpu_ns[row] > 0
    assert judged.probabilities[2] == pytest.approx([1 / 3] * 3)
    assert judged.ranked[2] == [0, 1, 2], "in the order of the bundle"


async def test_language_tier_without_calibration_has_no_confidence(
    encoder: EncoderModel, model: GenerativeModel, mailbox: Mailbox
) -> None:
    tier = LanguageTier.of(two_tiers(encoder, model, calibration=None).manifest, 1, model)
    judged = await judge(tier, TEXTS[:1], mailbox, top_k=2)
    assert tier.calibrated is False
    assert judged.confidence == [None]
    assert judged.probabilities[0] == pytest.approx([17 / 27, 9 / 27])


async def test_language_tier_reads_labels_in_their_own_order_with_what_describes_them(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    asked: list[Choice] = []
    generator.choices.on_start = asked.append
    named = [{"name": "third", "description": "the last"}, {"name": "first"}, {"name": "second"}]
    made = two_tiers(encoder, model, asks={"labels": named, "instructions": "Which one?"})
    tier = LanguageTier.of(made.manifest, 1, model)
    judged = await judge(tier, TEXTS, mailbox)
    assert [judged.label(row) for row in range(3)] == ["third", "second", "first"]
    prompt = "".join(map(chr, asked[0].prompt.tolist()[1:]))
    assert prompt.startswith("<system>Which one?\nAnswer with one of these labels")
    assert "- third: the last\n- first\n- second<user>" in prompt


async def test_language_tier_alone_is_a_classifier(
    encoder: EncoderModel, model: GenerativeModel, mailbox: Mailbox
) -> None:
    made = two_tiers(encoder, model)
    tier = LanguageTier.of(made.manifest, 1, model)
    task = ClassifyTask("t", made.manifest, [Part(1, tier, 0.4)])
    result = await task.run(TEXTS, mailbox=mailbox, truncation="truncate")
    assert [item and item.label for item in result.items] == ["third", "second", ""]
    assert (result.model, result.model_version) == (model.info.name, model.info.version)
    assert result.calibrated


async def test_language_tier_refuses_what_its_model_cannot_be_asked(
    encoder: EncoderModel, model: GenerativeModel
) -> None:
    made = two_tiers(encoder, model, asks={"normalize_length": True})
    with pytest.raises(InvalidInput, match="normalize_length: expected full scoring"):
        LanguageTier.of(made.manifest, 1, model)


# -- behind a cheaper tier -------------------------------------------------------------------


async def test_language_tier_answers_what_the_head_is_not_sure_of(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    head = await cascade(encoder, model).run(
        ["a", "b c", "third z"], effort=Effort(max_tier=0, accept_at=0.0), mailbox=mailbox
    )
    sure = sorted(item.confidence or 0.0 for item in head.items if item)
    task = cascade(encoder, model, accept_at=(sure[1], 0.0))
    items = await answers(task, ["a", "b c", "third z"], mailbox)
    assert {item.tier for item in items} == {0, 1}
    for item in items:
        assert len(item.tiers) == item.tier + 1
        assert item.cpu_ms == pytest.approx(sum(said.cpu_ms or 0 for said in item.tiers))
        assert all(said.cpu_ms for said in item.tiers)
    asked = sum(item.tier for item in items)
    assert len(generator.choices.started) == asked


async def test_language_tier_that_fails_on_one_text_answers_the_others(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model)
    generator.choices.odd[1] = Chosen(1, error="not finite")
    generator.choices.odd[2] = Chosen(2, np.full(3, np.nan, np.float32))
    items = await answers(task, ["first", "second", "a", "third"], mailbox)
    assert [(item.label, item.tier, item.degraded) for item in items] == [
        ("first", 1, None),
        ("", 0, "failure"),
        ("", 0, "failure"),
        ("third", 1, None),
    ]
    assert [(tier.asked, tier.missed) for tier in task.info.tiers] == [(4, 0), (2, 2)]


@pytest.mark.parametrize("on_failure", ["abstain", "answer"])
async def test_language_tier_whose_scores_are_no_numbers_is_a_failure(
    encoder: EncoderModel,
    model: GenerativeModel,
    generator: Generator,
    mailbox: Mailbox,
    on_failure: OnFailure,
) -> None:
    """Whether the engine says so, or hands the numbers over."""
    task = cascade(encoder, model, on_failure=on_failure)
    nan = np.full(3, np.nan, np.float32)
    for number, odd in enumerate((Chosen(0, error="not finite"), Chosen(1, nan))):
        generator.choices.odd[number] = replace(odd, number=number)
        (item,) = await answers(task, ["a"], mailbox)
        assert (item.tier, item.degraded) == (0, "failure")
        assert item.abstained is (on_failure == "abstain")
    assert task.info.tiers[1].missed == 2
    (item,) = await answers(task, ["third"], mailbox)
    assert (item.label, item.tier) == ("third", 1)


async def test_language_tier_alone_names_the_text_without_scores(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    made = two_tiers(encoder, model)
    tier = LanguageTier.of(made.manifest, 1, model)
    task = ClassifyTask("t", made.manifest, [Part(1, tier, 0.0)])
    generator.choices.odd[1] = Chosen(1, np.full(3, np.nan, np.float32))
    result = await task.run(["first", "second"], partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["first", None]
    assert [error.message for error in result.errors] == ["model gen has no scores for texts[1]"]


async def test_language_tier_has_no_time(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model)
    generator.choices.gate.clear()
    began = time.monotonic()
    (item,) = await answers(task, ["a"], mailbox, effort=Effort(budget_ms=200))
    assert (item.tier, item.degraded, item.abstained) == (0, "no_time", True)
    (item,) = await answers(task, ["a"], mailbox, deadline=time.monotonic() + 0.2)
    assert (item.tier, item.degraded) == (0, "no_time")
    assert time.monotonic() - began < WAIT_S
    generator.choices.gate.set()
    await eventually(lambda: not generator.choices.live, "what was given up runs on")
    (item,) = await answers(task, ["third"], mailbox)
    assert (item.label, item.tier) == ("third", 1)


async def test_language_tier_is_too_busy(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model)
    generator.choices.gate.clear()
    generator.choices.places = 1
    tier = LanguageTier.of(two_tiers(encoder, model).manifest, 1, model)
    running = asyncio.ensure_future(judge(tier, ["z" * 350], mailbox))
    await eventually(lambda: generator.choices.live, "nothing runs")
    waiting = asyncio.ensure_future(judge(tier, ["z" * 350], mailbox))
    await asyncio.sleep(0)
    (item,) = await answers(task, ["z" * 60], mailbox)
    assert (item.tier, item.degraded) == (0, "overload")
    with pytest.raises(QueueFull):
        await judge(tier, ["z" * 350], mailbox)
    generator.choices.gate.set()
    await asyncio.wait_for(asyncio.gather(running, waiting), WAIT_S)


async def test_language_tier_of_a_broken_engine_is_missed(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    task = cascade(encoder, model, on_failure="answer")
    generator.choices.on_step = fail
    items = await answers(task, ["a", "b"], mailbox)
    assert [(item.tier, item.degraded, bool(item.label)) for item in items] == [
        (0, "failure", True)
    ] * 2
    strict = cascade(encoder, model, on_failure="error")
    with pytest.raises(EngineError):
        await strict.run(["a"], mailbox=mailbox)


async def test_language_tier_cancelled_leaves_nothing_live(
    encoder: EncoderModel, model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model)
    for budget_ms in (None, 60_000.0):  # With a budget the tier runs in a task of its own.
        generator.choices.gate.clear()
        call = asyncio.ensure_future(
            task.run(["a", "b"], effort=Effort(budget_ms=budget_ms), mailbox=mailbox)
        )
        await eventually(lambda: len(generator.choices.live) == 2, "the tier was not asked")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        generator.choices.gate.set()
        await eventually(lambda: not generator.choices.live, "a cancelled choice lives on")
    (item,) = await answers(task, ["third"], mailbox)
    assert (item.label, item.tier) == ("third", 1)


async def test_language_tier_refuses_a_text_that_does_not_fit(
    encoder: EncoderModel, model: GenerativeModel, mailbox: Mailbox
) -> None:
    tier = LanguageTier.of(two_tiers(encoder, model).manifest, 1, model)
    with pytest.raises(InputTooLong, match=r"texts\[1\]"):
        await judge(tier, ["a", "b" * 1000], mailbox, truncation="truncate")
    judged = await judge(tier, ["b" * 1000, "third"], mailbox, partial=True)
    assert judged.index == [1]
    assert [error.index for error in judged.errors] == [0]
    assert judged.cpu_ns[0] == judged.input_tokens[0] == 0
    assert judged.label(0) == "third"


async def test_language_tier_that_expired_before_it_was_asked(
    encoder: EncoderModel, model: GenerativeModel, mailbox: Mailbox
) -> None:
    tier = LanguageTier.of(two_tiers(encoder, model).manifest, 1, model)
    with pytest.raises(DeadlineExceeded):
        await judge(tier, ["a"], mailbox, deadline=time.monotonic() - 1)
