"""Tiers that ask a generative model for fields: what they say, and how a cascade bears it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from doubles import WAIT_S, Encoder, encoder_model, eventually, generative_model, manifest
from fields import FIELDS, extract_bundle, with_language_fields
from writer import CHANCE, Writer

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.engine.base import Progress
from sprat.errors import EngineError, InputTooLong, InvalidInput
from sprat.model import EncoderModel, GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks.extract_task import ExtractTask
from sprat.tasks.extract_tier import Extracted
from sprat.tasks.language_fields_tier import LanguageFieldsTier
from sprat.tasks.tag_tier import TagTier
from sprat.tasks.tier import Part
from sprat.values import Effort, Extraction, OnFailure

TEXT = "ada and bea come"
VALUE = {"guests": ["Bea"], "name": "Ada"}


@pytest.fixture
async def pool(permits: ComputePermits) -> AsyncIterator[ComputePool]:
    made = ComputePool(permits)
    yield made
    made.close()


@pytest.fixture
async def encoder(permits: ComputePermits, pool: ComputePool) -> AsyncIterator[EncoderModel]:
    made = encoder_model(Encoder(), permits, pool)
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def writer() -> Writer:
    return Writer(answer=lambda text: json.dumps(VALUE))


@pytest.fixture
async def model(writer: Writer) -> AsyncIterator[GenerativeModel]:
    # Permits of its own: a model that a test holds in a step keeps all of them.
    permits = ComputePermits(1)
    pool = ComputePool(permits)
    made = generative_model(writer, permits, pool, capacity=20_000)
    yield made
    writer.gate.set()
    await asyncio.to_thread(made.close)
    pool.close()


def both(model: GenerativeModel, **asks: Any) -> Bundle:
    return with_language_fields(extract_bundle(manifest("encoder")), model.manifest, **asks)


def cascade(
    encoder: EncoderModel,
    model: GenerativeModel,
    pool: ComputePool,
    *,
    on_failure: OnFailure = "abstain",
    accept_at: float = 0.0,
) -> ExtractTask:
    """A tagger that is never sure, and a language model."""
    made = both(model)
    tagger = TagTier.of(made, 0, encoder, pool)
    tier = LanguageFieldsTier.of(made.manifest, 1, model)
    parts = [Part(0, tagger, 1.0), Part(1, tier, accept_at)]
    return ExtractTask("t", made.manifest, parts, on_failure=on_failure)


async def judge(tier: LanguageFieldsTier, mailbox: Mailbox, *texts: str, **given: Any) -> Extracted:
    options = {"requested": (), "long_input": "refuse", "partial": False, "deadline": math.inf}
    return await tier.judge(texts, mailbox=mailbox, **{**options, **given})


async def only(task: ExtractTask, mailbox: Mailbox, **options: Any) -> Extraction:
    (item,) = (await task.run([TEXT], mailbox=mailbox, **options)).items
    assert item is not None
    return item


async def test_language_fields_are_as_sure_as_all_that_was_written(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    tier = LanguageFieldsTier.of(both(model).manifest, 1, model)
    heard = await judge(tier, mailbox, TEXT, "nobody")
    # The second text has none of the strings.
    assert (heard.index, heard.is_sound) == ([0, 1], [True, False])
    written = json.dumps(VALUE)
    assert heard.confidence == [pytest.approx(CHANCE ** len(written)), 0.0]
    own = heard.answers[0]
    assert own.value == {"guests": ["bea"], "name": "ada"}
    places = [(f.path, f.start, f.end, f.score, f.confidence) for f in own.fields]
    assert places == [
        ("/guests/0", 8, 11, pytest.approx(CHANCE**5), None),
        ("/name", 0, 3, pytest.approx(CHANCE**5), None),
    ]
    assert (tier.labels, tier.calibrated) == (FIELDS, True)
    assert writer.starts[0].adapter == ""


async def test_language_fields_have_the_confidence_of_the_curve(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    made = both(model).manifest
    curve = {"temperature": 1.0, "isotonic": ((0.0, 0.3), (1.0, 0.9)), "ceiling": 0.8}
    for calibration, sure in ((curve, pytest.approx(0.3)), (None, None)):
        document = made.model_dump(mode="json")
        document["tiers"][1]["calibration"] = calibration
        tier = LanguageFieldsTier.of(type(made).model_validate(document), 1, model)
        heard = await judge(tier, mailbox, TEXT)
        assert heard.confidence == [sure]
        assert tier.calibrated is (calibration is not None)


async def test_language_fields_answer_what_the_tagger_is_not_sure_of(
    encoder: EncoderModel, model: GenerativeModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = cascade(encoder, model, pool)
    item = await only(task, mailbox, requested=["name"])
    assert (item.tier, item.json) == (1, '{"guests":["bea"],"name":"ada"}')
    assert (item.escalated, item.complete, item.abstained) == (True, True, False)
    assert item.output_tokens == len(json.dumps(VALUE))
    first, second = item.tiers
    assert item.cpu_ms == pytest.approx((first.cpu_ms or 0) + (second.cpu_ms or 0))
    early = await only(task, mailbox, effort=Effort(max_tier=0))
    assert (early.tier, early.abstained) == (0, True)
    unsure = await only(cascade(encoder, model, pool, accept_at=0.5), mailbox)
    assert (unsure.tier, unsure.abstained, unsure.value) == (1, True, None)


@pytest.mark.parametrize(
    "answer",
    [
        '{"guests":[],"name":"Cleo"}',
        '{"guests":["Bea","Cleo"],"name":null}',
        '{"guests":[],"name":' + "1" * 200,
        "{" + '"x":' * 40,
    ],
)
@pytest.mark.parametrize("on_failure", ["abstain", "answer"])
async def test_language_fields_that_do_not_hold_are_abstained_from(
    encoder: EncoderModel,
    model: GenerativeModel,
    writer: Writer,
    pool: ComputePool,
    mailbox: Mailbox,
    answer: str,
    on_failure: OnFailure,
) -> None:
    writer.answer = lambda text: answer
    item = await only(cascade(encoder, model, pool, on_failure=on_failure), mailbox)
    assert (item.tier, item.abstained, item.value, item.json) == (1, True, None, "")
    assert (item.confidence, item.degraded) == (0.0, None)


@pytest.mark.parametrize("on_failure", ["abstain", "answer"])
async def test_language_fields_of_a_text_that_the_model_fails_on_are_missed(
    encoder: EncoderModel,
    model: GenerativeModel,
    writer: Writer,
    pool: ComputePool,
    mailbox: Mailbox,
    on_failure: OnFailure,
) -> None:
    writer.broken = "bad"
    task = cascade(encoder, model, pool, on_failure=on_failure)
    texts = [TEXT, "a bad text of ada", TEXT]
    good, bad, other = (await task.run(texts, mailbox=mailbox)).items
    assert good is not None
    assert other is not None
    assert (good.tier, other.tier, good.degraded) == (1, 1, None)
    assert bad is not None
    assert (bad.tier, bad.degraded, bad.abstained) == (0, "failure", on_failure == "abstain")
    assert bad.value == (None if on_failure == "abstain" else {})
    assert task.info.tiers[1].missed == 1
    failing = cascade(encoder, model, pool, on_failure="error")
    with pytest.raises(EngineError, match="it broke"):
        await failing.run(texts, mailbox=mailbox)
    listed = await failing.run(texts, partial=True, mailbox=mailbox)
    assert [error.index for error in listed.errors] == [1]


async def test_language_fields_whose_scores_are_no_numbers_are_a_failure(
    encoder: EncoderModel,
    model: GenerativeModel,
    writer: Writer,
    pool: ComputePool,
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = writer.step

    def odd(*, max_tokens: int, threads: int) -> list[Progress]:
        return [
            replace(
                each,
                logprobs=tuple(
                    replace(token, chosen=replace(token.chosen, logprob=math.nan))
                    for token in each.logprobs
                ),
            )
            for each in step(max_tokens=max_tokens, threads=threads)
        ]

    monkeypatch.setattr(writer, "step", odd)
    item = await only(cascade(encoder, model, pool), mailbox)
    assert (item.tier, item.degraded, item.abstained) == (0, "failure", True)
    tier = LanguageFieldsTier.of(both(model).manifest, 1, model)
    heard = await judge(tier, mailbox, TEXT)
    assert (heard.index, list(heard.failed)) == ([], [0])
    assert heard.failed[0].message == "model gen has no scores for texts[0]"


async def test_language_fields_of_long_texts_are_refused_or_read_in_parts(
    model: GenerativeModel, writer: Writer, mailbox: Mailbox
) -> None:
    tier = LanguageFieldsTier.of(both(model).manifest, 1, model)
    found, nothing = (json.dumps({"guests": [], "name": name}) for name in ("ada", None))
    writer.answer = lambda text: found if "ada" in text else nothing
    long = "ada " + "and so on " * 500
    with pytest.raises(InputTooLong, match=r"texts\[1\]"):
        await judge(tier, mailbox, TEXT, long)
    listed = await judge(tier, mailbox, long, TEXT, partial=True)
    assert (listed.index, [error.index for error in listed.errors]) == ([1], [0])
    asked = len(writer.starts)
    parts = await judge(tier, mailbox, long, long_input="chunk")
    count = len(writer.starts) - asked
    assert parts.answers[0].chunks == count > 1
    assert parts.answers[0].value == {"name": "ada"}
    # As sure as all parts together.
    written = len(found) + (count - 1) * len(nothing)
    assert parts.confidence == [pytest.approx(CHANCE**written)]


async def test_language_fields_have_no_time(
    encoder: EncoderModel,
    model: GenerativeModel,
    writer: Writer,
    pool: ComputePool,
    mailbox: Mailbox,
) -> None:
    task = cascade(encoder, model, pool)
    writer.gate.clear()
    item = await only(task, mailbox, effort=Effort(budget_ms=200))
    assert (item.tier, item.degraded, item.abstained) == (0, "no_time", True)
    item = await only(task, mailbox, deadline=time.monotonic() + 0.2)
    assert (item.tier, item.degraded) == (0, "no_time")
    writer.gate.set()
    await eventually(lambda: not writer.live, "what was given up runs on")
    item = await asyncio.wait_for(only(task, mailbox), WAIT_S)
    assert item.tier == 1


async def test_language_fields_that_the_model_cannot_be_asked_are_refused(
    model: GenerativeModel, writer: Writer
) -> None:
    writer.refusal = "too large"
    with pytest.raises(InvalidInput, match="schema: too large"):
        LanguageFieldsTier.of(both(model).manifest, 1, model)
