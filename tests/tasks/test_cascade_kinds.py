"""Cascades of moderate and extract tasks: the same machinery over other kinds of answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from doubles import WAIT_S, eventually
from tier_models import LONG, TierModel

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.calibration import least_confidence
from sprat.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    NotReady,
    QueueFull,
    SpratError,
)
from sprat.head import Head
from sprat.model import Encoded
from sprat.model.common import readable
from sprat.model.encoder import EncodedTokens
from sprat.scheduler import ComputePool, Mailbox
from sprat.tagger import Tagger, tags_of
from sprat.tasks.cascade import REPLY_S
from sprat.tasks.category_heads_tier import CategoryHeadsTier
from sprat.tasks.extract_task import ExtractTask
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.tag_tier import TagTier
from sprat.tasks.tier import Part
from sprat.values import (
    Effort,
    Extraction,
    ItemError,
    Moderation,
    OnFailure,
    TokenStates,
)

KINDS = ("moderate", "extract")
TIERS = ("static", "head", "finetune")
SAME = ((0.0, 0.0), (1.0, 1.0))
"""A curve that leaves chances as they are."""

Task = ModerateTask | ExtractTask


class Model(TierModel):
    """A model whose texts say how sure each tier is, from 0.5 to 1: ``yes 0.6 0.9``.

    ``yes`` is a text of the category, or its first word a span of the field; ``no`` is none.
    Instead of a number, ``nan`` gives no scores, and `LONG` is too long for that tier.
    """

    def __init__(self, place: int, engine: str) -> None:
        super().__init__(place, engine, dimension=1)

    async def encode(
        self, texts: Sequence[str], *, deadline: float, partial: bool = False, **_: Any
    ) -> Encoded:
        kept, logits, errors = await self._judge(texts, partial, deadline)
        vectors = np.array(logits, np.float32).reshape(-1, 1)
        tokens = [3 + self.place] * len(texts)
        spent = [1000] * len(texts)
        return Encoded(vectors, kept, tokens, [0] * len(texts), spent, tuple(errors), 1, 10, 100)

    async def states(
        self, texts: Sequence[str], *, deadline: float, partial: bool, **_: Any
    ) -> EncodedTokens:
        kept, logits, errors = await self._judge(texts, partial, deadline)
        items: list[TokenStates | None] = [None] * len(texts)
        for index, logit in zip(kept, logits, strict=True):
            word = len(texts[index].partition(" ")[0])
            items[index] = TokenStates(
                np.array([7], np.int32),
                np.array([[0, word]], np.int32),
                np.array([[logit]], np.float32),
            )
        tokens = [3 + self.place] * len(texts)
        spent = [1000] * len(texts)
        return EncodedTokens(tuple(items), tokens, spent, tuple(errors), 1, 10, 100)

    async def _judge(
        self, texts: Sequence[str], partial: bool, deadline: float
    ) -> tuple[list[int], list[float], list[ItemError]]:
        await self.begin(texts, deadline)
        errors: list[ItemError] = []
        kept, logits = [], []
        for index in readable(texts, errors, partial):
            if (found := self.read(index, texts[index], errors, partial)) is None:
                continue
            word, chance = found
            kept.append(index)
            logits.append(math.log(chance / (1 - chance)) * (1 if word == "yes" else -1))
        return kept, logits, errors


def bundle(kind: str, accept_at: Sequence[float], calibrated: Sequence[bool]) -> Bundle:
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    moderation = {
        "window": 200,
        "overlap": 20,
        "ngram_buckets": 0,
        "thresholds": [{"flag_at": 0.5, "block_at": 0.75}],
    }
    manifest = BundleManifest.model_validate(
        {
            "name": "kinds",
            "kind": kind,
            "labels": ("spam",),
            "extract": {} if kind == "extract" else None,
            "tiers": [
                {
                    "name": name,
                    "base": {"name": f"model-{place}", "digest": "a" * 64},
                    "weights": f"{name}.safetensors",
                    "calibration": {"temperature": 1.0, "isotonic": SAME if is_whole else ()},
                    "accept_at": least,
                    "evaluation": {"n": 9, "metrics": {"micro_f1": figure}},
                    "moderation": moderation if kind == "moderate" else None,
                }
                for place, (name, least, is_whole) in enumerate(
                    zip(TIERS, accept_at, calibrated, strict=False)
                )
            ],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [],
        }
    )
    if kind == "moderate":
        head = Head(np.ones((1, 1), np.float32), np.zeros(1, np.float32))
        return Bundle(manifest, (head,) * len(accept_at))
    tags = tags_of(("spam",))
    weights = np.zeros((1, 1, len(tags)), np.float32)
    weights[0, 0, tags.index("S-spam")] = 1
    tagger = Tagger(
        ("spam",),
        frozenset(),
        states=weights,
        bias=np.zeros(len(tags), np.float32),
        vocabulary=np.zeros(0, np.int32),
        indicators=np.zeros((0, len(tags)), np.float32),
        transitions=np.zeros((len(tags), len(tags)), np.float32),
        start=np.zeros(len(tags), np.float32),
        end=np.zeros(len(tags), np.float32),
    )
    return Bundle(manifest, taggers=(tagger,) * len(accept_at))


@pytest.fixture(scope="module")
def pool() -> Iterator[ComputePool]:
    made = ComputePool(ComputePermits(1))
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Make:
    """Tasks of one kind."""

    def __init__(self, kind: str, pool: ComputePool) -> None:
        self.kind = kind
        self._pool = pool

    def __call__(
        self,
        *accept_at: float,
        engine: str = "ct2",
        on_failure: OnFailure = "abstain",
        calibrated: Sequence[bool] = (True, True, True),
    ) -> tuple[Task, list[Model]]:
        models = [Model(place, engine) for place in range(len(accept_at))]
        made = bundle(self.kind, accept_at, calibrated)
        if self.kind == "moderate":
            heads = [
                Part(place, CategoryHeadsTier.of(made, place, cast(Any, model), self._pool), least)
                for place, (model, least) in enumerate(zip(models, accept_at, strict=True))
            ]
            return ModerateTask("t", made.manifest, heads, on_failure=on_failure), models
        taggers = [
            Part(place, TagTier.of(made, place, cast(Any, model), self._pool), least)
            for place, (model, least) in enumerate(zip(models, accept_at, strict=True))
        ]
        return ExtractTask("t", made.manifest, taggers, on_failure=on_failure), models


@pytest.fixture
def make(kind: str, pool: ComputePool) -> Make:
    return Make(kind, pool)


async def run(task: Task, texts: Sequence[str], mailbox: Mailbox, **options: Any) -> list[Any]:
    """The answers, all of which must be there."""
    result = await task.run(texts, mailbox=mailbox, **options)
    assert result.errors == ()
    assert None not in result.items
    return list(result.items)


async def one(task: Task, text: str, mailbox: Mailbox, **options: Any) -> Any:
    (item,) = await run(task, [text], mailbox, **options)
    return item


def said(item: Moderation | Extraction) -> str:
    """``yes`` or ``no``; nothing of an abstention, which must look like one."""
    if isinstance(item, Moderation):
        if item.abstained:
            assert (item.action, item.category) == ("flag", "")
            return ""
        assert (item.category == "spam") is (item.action != "allow")
        return "no" if item.action == "allow" else "yes"
    if item.abstained:
        assert (item.value, item.json) == (None, "")
        return ""
    assert item.value == ({"spam": "yes"} if item.fields else {})
    return "yes" if item.fields else "no"


# -- who answers -----------------------------------------------------------------------------


async def test_cascade_kinds_keep_the_order_and_ask_each_tier_once(
    make: Make, mailbox: Mailbox
) -> None:
    thresholds = (0.9, 0.8, 0.7)
    task, models = make(*thresholds)
    draw = np.random.default_rng(3)
    sure = draw.uniform(0.5, 0.99, (60, 3)).round(3)
    words = draw.choice(["yes", "no"], 60)
    texts = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, sure, strict=True)]
    items = await run(task, texts, mailbox)
    least = [*(least_confidence(at, "ct2") for at in thresholds[:-1]), thresholds[-1]]
    reached: list[list[str]] = [[], [], []]
    for text, word, row, item in zip(texts, words, sure, items, strict=True):
        tier = next((at for at in range(3) if row[at] >= least[at]), 2)
        for at in range(tier + 1):
            reached[at].append(text)
        assert (item.tier, item.escalated, item.degraded) == (tier, tier > 0, None)
        assert item.abstained == (row[tier] < least[tier])
        assert said(item) == ("" if item.abstained else word)
        assert item.confidence == pytest.approx(row[tier], abs=1e-5)
        assert [each.tier for each in item.tiers] == list(range(tier + 1))
        assert [each.confidence for each in item.tiers] == pytest.approx(
            row[: tier + 1].tolist(), abs=1e-5
        )
        assert item.input_tokens == 3 + tier
        assert item.cpu_ms == pytest.approx(0.001 * (tier + 1))
    assert [model.calls for model in models] == [[rows] for rows in reached]
    assert 0 < len(reached[2]) < len(reached[1]) < 60


async def test_cascade_kinds_say_what_each_tier_would_have_said(
    make: Make, mailbox: Mailbox
) -> None:
    task, _ = make(0.95, 0.5)
    items = await run(task, ["yes 0.6 0.9", "yes 0.9 0.6", "no 0.6 0.9"], mailbox)
    labels = [[each.label for each in item.tiers] for item in items]
    if make.kind == "moderate":
        assert labels == [["spam", "spam"], ["spam", "spam"], ["allow", "allow"]]
        assert [item.action for item in items] == ["block", "flag", "allow"]
    else:
        assert labels == [["", ""]] * 3, "values are no words"


async def test_cascade_kinds_result_is_about_the_best_tier_heard(
    make: Make, mailbox: Mailbox
) -> None:
    task, models = make(0.8, 0.8, 0.0)
    result = await task.run(["yes 0.9 0.9 0.9", "no 0.6 0.9 0.9"], mailbox=mailbox)
    assert (result.model, result.model_version) == ("model-1", "1" * 12)
    assert (result.task_version, result.calibrated) == (task.info.version, True)
    timings = result.timings
    assert (timings.tokenize_ns, timings.queue_ns, timings.infer_ns) == (2, 20, 200)
    assert models[2].calls == []


async def test_cascade_kinds_of_one_tier_are_no_cascade(make: Make, mailbox: Mailbox) -> None:
    task, _ = make(0.8)
    sure, unsure = await run(task, ["yes 0.9", "no 0.7"], mailbox)
    assert [said(item) for item in (sure, unsure)] == ["yes", ""]
    assert (sure.tier, sure.escalated, sure.tiers, task.info.tiers) == (0, False, (), ())
    assert task.info.accept_at == 0.8
    loose = await one(task, "no 0.7", mailbox, effort=Effort(accept_at=0.6))
    assert said(loose) == "no"


async def test_cascade_kinds_info_says_what_each_tier_did(make: Make, mailbox: Mailbox) -> None:
    task, models = make(0.8, 0.7, 0.0)
    models[2].failure = EngineError("broken")
    await task.run(["yes 0.9 0.9 0.9", "no 0.6 0.9 0.9", "no 0.6 0.6 0.9"], mailbox=mailbox)
    assert [(t.name, t.accept_at, t.asked, t.answered, t.missed) for t in task.info.tiers] == [
        ("static", 0.8, 3, 1, 0),
        ("head", 0.7, 2, 2, 0),
        ("finetune", 0.0, 0, 0, 1),
    ]
    assert (task.info.kind, task.info.labels) == (make.kind, ("spam",))
    assert task.info.models == tuple((f"model-{i}", str(i) * 12) for i in range(3))


def test_cascade_kinds_version_covers_thresholds(make: Make) -> None:
    versions = {make(*at)[0].info.version for at in ((0.8, 0.5), (0.7, 0.5), (0.8, 0.4))}
    assert len(versions) == 3


@pytest.mark.parametrize(
    ("accept_at", "calibrated", "path"),
    [
        ((0.8, 0.0), (False, True), "t.tiers.static.accept_at"),
        ((0.8, 0.5), (True, False), "t.tiers.head.accept_at"),
        ((0.8,), (False,), "t.accept_at"),
    ],
)
def test_cascade_kinds_threshold_needs_a_calibration_of_whole_answers(
    make: Make, accept_at: tuple[float, ...], calibrated: tuple[bool, ...], path: str
) -> None:
    with pytest.raises(ConfigError, match="is not calibrated") as caught:
        make(*accept_at, calibrated=calibrated)
    assert caught.value.path == f"tasks.{path}"


async def test_cascade_kinds_without_calibration_answer_without_confidence(
    make: Make, mailbox: Mailbox
) -> None:
    task, _ = make(0.8, 0.0, calibrated=(True, False))
    item = await one(task, "no 0.6 0.6", mailbox)
    assert (said(item), item.confidence, item.tiers[1].confidence) == ("no", None, None)
    with pytest.raises(InvalidInput, match="no calibrated confidence"):
        await task.run(["no 0.6 0.6"], effort=Effort(accept_at=0.5), mailbox=mailbox)


# -- what a request may ask, and time --------------------------------------------------------


async def test_cascade_kinds_go_no_further_than_the_request_allows(
    make: Make, mailbox: Mailbox
) -> None:
    task, models = make(0.8, 0.7, 0.0)
    texts = ["yes 0.9 0.9 0.9", "no 0.75 0.9 0.9", "no 0.81 0.9 0.9"]
    items = await run(task, texts, mailbox, effort=Effort(max_tier=0))
    assert [(said(item), item.tier) for item in items] == [("yes", 0), ("", 0), ("no", 0)]
    assert models[1].calls == models[2].calls == []
    strict = await run(task, texts, mailbox, effort=Effort(accept_at=0.95))
    assert [(item.tier, item.abstained) for item in strict] == [(2, True)] * 3
    for effort in (Effort(max_tier=-1), Effort(accept_at=math.nan), Effort(budget_ms=0.0)):
        with pytest.raises(InvalidInput):
            await task.run(texts, effort=effort, mailbox=mailbox)


async def test_cascade_kinds_give_up_a_tier_when_the_budget_is_spent(
    make: Make, mailbox: Mailbox
) -> None:
    task, models = make(0.8, 0.0)
    models[1].takes_s = WAIT_S
    began = time.monotonic()
    items = await run(task, ["yes 0.9 0.9", "no 0.6 0.9"], mailbox, effort=Effort(budget_ms=300))
    assert time.monotonic() - began < WAIT_S / 2
    assert [(said(item), item.tier, item.degraded) for item in items] == [
        ("yes", 0, None),
        ("", 0, "no_time"),
    ]
    assert models[1].cancelled == 1


async def test_cascade_kinds_answer_before_the_deadline(make: Make, mailbox: Mailbox) -> None:
    task, models = make(0.8, 0.0, on_failure="answer")
    models[1].takes_s = WAIT_S
    deadline = time.monotonic() + 0.5
    item = await one(task, "no 0.6 0.9", mailbox, deadline=deadline)
    assert (said(item), item.abstained, item.degraded) == ("no", False, "no_time")
    assert models[0].deadlines == [deadline]
    assert models[1].deadlines == [deadline - REPLY_S]


async def test_cascade_kinds_cancelled_give_up_the_tier(make: Make, mailbox: Mailbox) -> None:
    task, models = make(0.8, 0.0)
    models[1].takes_s = WAIT_S
    for budget_ms in (None, 60_000.0):  # With a budget the tier runs in a task of its own.
        call = asyncio.ensure_future(
            task.run(["no 0.6 0.9"], effort=Effort(budget_ms=budget_ms), mailbox=mailbox)
        )
        await eventually(lambda: models[1].calls, "the second tier was not asked")
        models[1].calls.clear()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert models[1].cancelled == 2


# -- tiers that are not heard, texts that are bad --------------------------------------------

MISSED = {
    "overload": QueueFull("full"),
    "failure": EngineError("broken"),
    "no_time": DeadlineExceeded("late"),
}


@pytest.mark.parametrize("reason", MISSED)
@pytest.mark.parametrize("policy", ["answer", "abstain"])
async def test_cascade_kinds_policy_falls_back_on_the_tier_before(
    make: Make, mailbox: Mailbox, reason: str, policy: OnFailure
) -> None:
    task, models = make(0.8, 0.7, 0.0, on_failure=policy)
    models[1].failure = MISSED[reason]
    items = await run(task, ["yes 0.9 0.9 0.9", "no 0.6 0.9 0.9"], mailbox)
    assert [said(item) for item in items] == ["yes", "no" if policy == "answer" else ""]
    assert [item.degraded for item in items] == [None, reason]
    assert [item.tier for item in items] == [0, 0]
    assert items[1].confidence == pytest.approx(0.6, abs=1e-5)
    assert models[2].calls == []


@pytest.mark.parametrize("reason", MISSED)
async def test_cascade_kinds_policy_error_fails_the_call_or_the_texts(
    make: Make, mailbox: Mailbox, reason: str
) -> None:
    task, models = make(0.8, 0.0, on_failure="error")
    error = models[1].failure = MISSED[reason]
    texts = ["no 0.6 0.9", "yes 0.9 0.9", "no 0.7 0.9"]
    with pytest.raises(SpratError) as caught:
        await task.run(texts, mailbox=mailbox)
    assert caught.value is error
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and said(item) for item in result.items] == [None, "yes", None]
    assert result.errors == tuple(ItemError(index, error.reason, error.message) for index in (0, 2))


@pytest.mark.parametrize("error", [NotReady("draining"), ZeroDivisionError()])
async def test_cascade_kinds_policy_is_not_for_what_nobody_foresaw(
    make: Make, mailbox: Mailbox, error: Exception
) -> None:
    task, models = make(0.8, 0.0, on_failure="answer")
    models[1].failure = error
    with pytest.raises(type(error)):
        await task.run(["no 0.6 0.9"], mailbox=mailbox)


@pytest.mark.parametrize("reason", MISSED)
async def test_cascade_kinds_errors_of_the_first_tier_are_those_of_the_call(
    make: Make, mailbox: Mailbox, reason: str
) -> None:
    task, models = make(0.8, 0.0, on_failure="answer")
    models[0].failure = MISSED[reason]
    with pytest.raises(type(MISSED[reason])):
        await task.run(["yes 0.9 0.9"], mailbox=mailbox)


async def test_cascade_kinds_text_without_scores_fails_alone(make: Make, mailbox: Mailbox) -> None:
    texts = ["no 0.6 0.9 0.9", "no 0.6 nan 0.9", "yes 0.9 nan 0.9", "yes 0.6 0.6 0.9"]
    task, models = make(0.8, 0.7, 0.0, on_failure="answer")
    items = await run(task, texts, mailbox)
    assert [(said(item), item.tier, item.degraded) for item in items] == [
        ("no", 1, None),
        ("no", 0, "failure"),
        ("yes", 0, None),
        ("yes", 2, None),
    ]
    assert models[2].calls == [["yes 0.6 0.6 0.9"]]
    strict, _ = make(0.8, 0.7, 0.0, on_failure="error")
    with pytest.raises(EngineError, match=r"model-1 has no (scores|states) for texts\[1\]"):
        await strict.run(texts, mailbox=mailbox)
    result = await strict.run(texts, partial=True, mailbox=mailbox)
    assert [item and said(item) for item in result.items] == ["no", None, "yes", "yes"]
    assert [(each.index, each.reason) for each in result.errors] == [(1, "ENGINE")]


async def test_cascade_kinds_text_without_scores_at_the_first_tier(
    make: Make, mailbox: Mailbox
) -> None:
    for task, _ in (make(0.8, 0.0, on_failure="answer"), make(0.0)):
        texts = ["yes 0.9 0.9", "no nan 0.9", "no 0.6 0.9"]
        with pytest.raises(EngineError, match=r"model-0 has no (scores|states) for texts\[1\]"):
            await task.run(texts, mailbox=mailbox)
        result = await task.run(texts, partial=True, mailbox=mailbox)
        assert [item and said(item) for item in result.items] == ["yes", None, "no"]
        assert [error.index for error in result.errors] == [1]


async def test_cascade_kinds_bad_texts_beside_good_ones(make: Make, mailbox: Mailbox) -> None:
    task, models = make(0.8, 0.0)
    texts = ["", "yes 0.9 0.9", "no 0.6 0.9", "\ud800"]
    with pytest.raises(InvalidInput, match=r"texts\[0\]"):
        await task.run(texts, mailbox=mailbox)
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and said(item) for item in result.items] == [None, "yes", "no", None]
    assert [error.index for error in result.errors] == [0, 3]
    assert models[1].calls == [["no 0.6 0.9"]]
    nothing = await task.run(["", " "], partial=True, mailbox=mailbox)
    assert nothing.items == (None, None)


async def test_cascade_extract_text_that_a_later_tier_cannot_read(
    pool: ComputePool, mailbox: Mailbox
) -> None:
    texts = ["yes 0.9 0.9", "no 0.6 0.9", f"no 0.6 {LONG}"]
    task, _ = Make("extract", pool)(0.8, 0.0)
    with pytest.raises(InputTooLong) as caught:
        await task.run(texts, mailbox=mailbox)
    assert caught.value.field == "texts[2]"
    assert str(caught.value).startswith("texts[2]: 99 tokens, at most 16")
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and said(item) for item in result.items] == ["yes", "no", None]
    assert [error.message.partition(":")[0] for error in result.errors] == ["texts[2]"]


async def test_cascade_kinds_calls_side_by_side_do_not_mix(make: Make, mailbox: Mailbox) -> None:
    task, models = make(0.8, 0.0)
    models[1].takes_s = 0.01
    words = ("yes", "no")

    async def ask(word: str) -> Any:
        return await task.run([f"{word} 0.6 0.9", f"{word} 0.9 0.9"], mailbox=mailbox)

    results = await asyncio.gather(*(ask(words[i % 2]) for i in range(20)))
    for number, result in enumerate(results):
        assert [item and said(item) for item in result.items] == [words[number % 2]] * 2
    assert task.info.tiers[1].answered == 20
