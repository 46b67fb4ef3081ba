"""Moderate: windows, thresholds, the place of the reason, and who gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from doubles import (
    ENCODER,
    MAX_TOKENS,
    Encoder,
    encoder_model,
    eventually,
    ids,
    moderate_task,
    moderator,
)
from hypothesis import given
from hypothesis import strategies as st

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.errors import ConfigError, DeadlineExceeded, EngineError, InvalidInput
from sprat.head import Head
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.task_config import ThresholdsConfig
from sprat.tasks.category_heads_tier import CLOSE_UP, CategoryHeadsTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.tier import Part
from sprat.text.ngrams import ngram_features
from sprat.values import Effort, ModerateResult, Moderation

BUCKETS = 4096
WINDOW = 120
CATEGORIES = ("zed", "quirk")
THRESHOLDS: tuple[dict[str, float], ...] = ({"flag_at": 0.5, "block_at": 0.9}, {"flag_at": 0.6})


class Setting:
    """A task over the double of an encoder."""

    def __init__(
        self, *, capacity: int = 100_000, thresholds: Sequence[dict[str, float]] = THRESHOLDS
    ) -> None:
        self.engine = Encoder()
        permits = ComputePermits(2)
        self.pool = ComputePool(permits)
        self.model: EncoderModel = encoder_model(self.engine, permits, self.pool, capacity=capacity)
        made = moderator(self.model.manifest, thresholds=thresholds)
        self.task = moderate_task("moderator", made, self.model, self.pool)

    async def run(self, *texts: str, **options: Any) -> ModerateResult:
        mailbox = Mailbox(asyncio.get_running_loop())
        return await self.task.run(texts, mailbox=mailbox, **options)

    async def one(self, text: str) -> Moderation:
        (item,) = (await self.run(text)).items
        assert item is not None
        return item

    async def close(self) -> None:
        self.engine.gate.set()
        await asyncio.to_thread(self.model.close)
        await asyncio.to_thread(self.pool.close)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    made = Setting()
    yield made
    await made.close()


async def test_moderate_finds_every_category_of_a_text(setting: Setting) -> None:
    result = await setting.run("a b c", "a z", "q r", "z q")
    actions = [[each.action for each in item.categories] for item in result.items if item]
    assert actions == [["allow", "allow"], ["block", "allow"], ["allow", "flag"], ["block", "flag"]]
    summaries = [(item.action, item.category) for item in result.items if item]
    assert summaries == [("allow", ""), ("block", "zed"), ("flag", "quirk"), ("block", "zed")]
    assert (result.model, result.model_version) == (ENCODER, setting.model.info.version)
    assert result.task_version == setting.task.info.version
    assert result.calibrated is True
    assert result.timings.total_ns >= result.timings.infer_ns > 0
    assert setting.task.info.labels == CATEGORIES
    assert setting.task.info.kind == "moderate"


@pytest.mark.parametrize(
    ("limits", "action"),
    [
        ({"flag_at": 0.01}, "flag"),
        ({"flag_at": 0.01, "block_at": 0.01}, "block"),
        ({"flag_at": 0.01, "block_at": 1.0}, "flag"),
        ({"flag_at": 1.0, "block_at": 1.0}, "allow"),
    ],
)
async def test_moderate_acts_by_its_thresholds(limits: dict[str, float], action: str) -> None:
    setting = Setting(thresholds=[limits, {"flag_at": 1.0}])
    item = await setting.one("a z")
    assert (item.action, item.categories[0].action) == (action, action)
    assert 0.5 < item.categories[0].probability < 1
    await setting.close()


async def test_moderate_probability_is_the_sigmoid_of_the_head(setting: Setting) -> None:
    item = await setting.one("a z")
    # " a z ": z is one of 4 characters (counting space), 4 pairs and 3 triples.
    runs = np.count_nonzero(ngram_features(["a z"], BUCKETS))
    expected = 1 / (1 + np.exp(5 - 60 / np.sqrt(runs)))
    assert item.categories[0].probability == pytest.approx(expected, rel=1e-5)
    assert item.categories[1].probability == pytest.approx(1 / (1 + np.exp(5)), rel=1e-5)


@pytest.mark.parametrize("place", [0, 1, 50, 2_000, 4_990, 4_999])
async def test_moderate_reads_long_texts_to_their_end(setting: Setting, place: int) -> None:
    words = ["ab"] * 5_000
    words[place] = "z"
    text = " ".join(words)
    item = await setting.one(text)
    assert item.action == "block"
    found = item.categories[0]
    assert "z" in text[found.start : found.end]
    assert found.end - found.start <= CLOSE_UP
    assert item.chunks >= len(text) / WINDOW
    assert item.input_tokens > 5_000
    assert item.categories[1].action == "allow"


async def test_moderate_span_is_the_sentence_or_else_the_window(setting: Setting) -> None:
    text = "abab " * 9 + "abab. z ab. " + "a" * 30
    assert CLOSE_UP < len(text) <= WINDOW
    item = await setting.one(text)
    found = item.categories[0]
    assert item.chunks == 1
    assert "z ab." in text[found.start : found.end]
    assert found.end - found.start <= CLOSE_UP
    # Allowed: the window that scored highest, here the only one.
    other = (await setting.one(text)).categories[1]
    assert (other.start, other.end) == (0, len(text))
    short = (await setting.one("  a z ")).categories[0]
    assert (short.start, short.end) == (2, 5)


async def test_moderate_halves_windows_of_too_many_tokens(setting: Setting) -> None:
    text = " ".join(["a"] * 40 + ["z"] + ["a"] * 15)
    assert len(text) <= WINDOW
    assert len(text.split()) > 2 * MAX_TOKENS
    item = await setting.one(text)
    assert item.action == "block"
    assert item.chunks > 2
    found = item.categories[0]
    assert "z" in text[found.start : found.end]
    # Nothing that was cut off was scored.
    assert max(len(row) for _, rows in setting.engine.calls for row in rows) <= MAX_TOKENS


@pytest.mark.parametrize("blank", ["\u200b" * 500, " " * 500, "\n\n" * 300, "\x07" * 400])
async def test_moderate_skips_windows_without_visible_characters(
    setting: Setting, blank: str
) -> None:
    item = await setting.one(f"{blank} z {blank}")
    assert item.action == "block"


async def test_moderate_one_bad_text_fails_alone_where_that_is_asked_for(setting: Setting) -> None:
    texts = ("a", "", "a z", "\ud800", " \n")
    with pytest.raises(InvalidInput, match=r"texts\[1\]: is empty"):
        await setting.run(*texts)
    result = await setting.run(*texts, partial=True)
    assert [item is None for item in result.items] == [False, True, False, True, True]
    assert [error.index for error in result.errors] == [1, 3, 4]
    assert {error.reason for error in result.errors} == {"INVALID_INPUT"}
    assert result.items[2] is not None
    assert result.items[2].action == "block"


async def test_moderate_of_nothing_good(setting: Setting) -> None:
    result = await setting.run("", " ", partial=True)
    assert result.items == (None, None)
    assert setting.engine.calls == []


@given(st.lists(st.text(st.sampled_from("ab zq. \n"), max_size=400), min_size=1, max_size=4))
def test_moderate_texts_do_not_disturb_each_other(texts: list[str]) -> None:
    async def run() -> None:
        setting = Setting()
        try:
            together = await setting.run(*texts, partial=True)
            for index, text in enumerate(texts):
                alone = await setting.run(text, partial=True)
                assert alone.items == (together.items[index],)
                item = alone.items[0]
                if item is None:
                    assert not text.strip()
                    continue
                for each, letter in zip(item.categories, "zq", strict=True):
                    assert 0 <= each.start < each.end <= len(text)
                    assert (each.action != "allow") <= (letter in text)
                    if each.action != "allow":
                        assert letter in text[each.start : each.end]
        finally:
            await setting.close()

    asyncio.run(run())


async def test_moderate_long_text_does_not_fill_the_queue() -> None:
    setting = Setting(capacity=3_000)
    item = await setting.one("a b c d e f g h " * 2_000)
    assert item.input_tokens > 16_000
    await setting.close()


async def test_moderate_cancelled_call_stops_between_waves(setting: Setting) -> None:
    setting.engine.gate.clear()
    call = asyncio.create_task(setting.run("a b c d e f g h " * 5_000))
    await eventually(lambda: setting.engine.calls, "no batch was begun")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    setting.engine.gate.set()
    # The model is free for others, and the windows that waited are not computed.
    assert (await setting.one("a z")).action == "block"
    assert len(setting.engine.calls) < 20


async def test_moderate_ends_at_its_deadline(setting: Setting) -> None:
    with pytest.raises(DeadlineExceeded):
        await setting.run("a z", deadline=time.monotonic() - 1)


# -- confidence and abstention ---------------------------------------------------------------


def task_of(made: Bundle, setting: Setting, accept_at: float, **options: Any) -> ModerateTask:
    return moderate_task("t", made, setting.model, setting.pool, accept_at=accept_at, **options)


async def test_moderate_confidence_is_that_all_categories_are_on_their_side(
    setting: Setting,
) -> None:
    for text in ("a b c", "a z", "q r", "z q", "ab " * 60 + "z"):
        item = await setting.one(text)
        expected = 1.0
        for each in item.categories:
            expected *= each.probability if each.action != "allow" else 1 - each.probability
        assert item.confidence == pytest.approx(expected)
        assert (item.tier, item.escalated, item.abstained, item.tiers) == (0, False, False, ())


async def test_moderate_flags_what_it_abstains_from(setting: Setting) -> None:
    made = moderator(setting.model.manifest, thresholds=THRESHOLDS)
    task = task_of(made, setting, 0.99)
    mailbox = Mailbox(asyncio.get_running_loop())
    items = (await task.run(["a b c", "z"], mailbox=mailbox)).items
    assert [item and item.abstained for item in items] == [True, False]
    unsure, sure = items
    assert unsure is not None
    assert (unsure.action, unsure.category) == ("flag", "")
    assert [each.action for each in unsure.categories] == ["allow", "allow"], "as it would be"
    assert sure is not None
    assert (sure.action, sure.category) == ("block", "zed")


async def test_moderate_with_other_thresholds_has_no_confidence(setting: Setting) -> None:
    made = moderator(setting.model.manifest, thresholds=THRESHOLDS)
    other = {"zed": ThresholdsConfig(flag_at=0.3)}
    task = task_of(made, setting, 0.0, thresholds=other)
    mailbox = Mailbox(asyncio.get_running_loop())
    result = await task.run(["a z"], mailbox=mailbox)
    assert result.items[0] is not None
    assert (result.items[0].action, result.items[0].confidence) == ("block", None)
    assert result.calibrated, "probabilities of categories still are"
    with pytest.raises(InvalidInput, match="no calibrated confidence"):
        await task.run(["a z"], effort=Effort(accept_at=0.5), mailbox=mailbox)
    with pytest.raises(ConfigError, match="expected none beside accept_at"):
        task_of(made, setting, 0.5, thresholds=other)
    same = task_of(made, setting, 0.5, thresholds={"zed": ThresholdsConfig(flag_at=0.5)})
    assert same.info.accept_at == 0.5


async def test_moderate_cascade_reads_long_texts_in_every_tier(setting: Setting) -> None:
    made = moderator(setting.model.manifest, thresholds=THRESHOLDS)
    (tier,), (head,) = made.manifest.tiers, made.heads
    first = tier.model_copy(update={"name": "static", "weights": "static.safetensors"})
    weak = Head(head.weight / 8, head.bias / 8)
    both = Bundle(made.manifest.model_copy(update={"tiers": (first, tier)}), (weak, head))
    parts = [
        Part(at, CategoryHeadsTier.of(both, at, setting.model, setting.pool), least)
        for at, least in enumerate((0.9, 0.0))
    ]
    task = ModerateTask("t", both.manifest, parts)
    text = "ab " * 400 + "z " + "ab " * 400
    mailbox = Mailbox(asyncio.get_running_loop())
    (item, short) = (await task.run([text, "ab"], mailbox=mailbox)).items
    alone = await setting.one(text)
    assert item is not None
    assert (item.tier, item.escalated) == (1, True)
    assert (item.action, item.categories, item.chunks) == (
        alone.action,
        alone.categories,
        alone.chunks,
    )
    assert item.chunks > 10
    assert "z" in text[item.categories[0].start : item.categories[0].end]
    assert short is not None
    assert short.action == "allow"


async def test_moderate_text_with_one_window_without_scores_has_none(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, broken = setting.engine.encode, ids("w")[1]

    def partly(rows: Sequence[Any], *, threads: int) -> Any:
        vectors = encode(rows, threads=threads)
        vectors[[broken in row for row in rows]] = np.nan
        return vectors

    monkeypatch.setattr(setting.engine, "encode", partly)
    texts = ("ab " * 100 + "w" + " ab" * 100, "z")
    result = await setting.run(*texts, partial=True)
    assert [item and item.action for item in result.items] == [None, "block"]
    assert [(each.index, each.reason) for each in result.errors] == [(0, "ENGINE")]
    with pytest.raises(EngineError, match=r"has no scores for texts\[0\]"):
        await setting.run(*texts)
