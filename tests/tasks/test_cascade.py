"""Cascades: who answers, in which order, and what is done when a tier is not heard."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import WAIT_S, Encoder, encoder_model, eventually, ids
from tier_models import LONG, TierModel

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Route
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
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks.cascade import REPLY_S
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.route import RouteTask
from sprat.tasks.tier import Part
from sprat.values import (
    Classification,
    ClassifyResult,
    Effort,
    ItemError,
    OnFailure,
    TierAnswer,
)

LABELS = ("a", "b", "c", "d")
TIERS = ("static", "head", "finetune")


class Model(TierModel):
    """A model whose texts say how sure each tier is: ``b 0.4 0.9`` is label b, at the first 0.4.

    Instead of a number, ``nan`` gives no scores, and `LONG` is too long for that tier.
    """

    def __init__(self, place: int, engine: str) -> None:
        super().__init__(place, engine, dimension=len(LABELS))

    async def encode(
        self, texts: Sequence[str], *, partial: bool, deadline: float, **_: Any
    ) -> Encoded:
        await self.begin(texts, deadline)
        errors: list[ItemError] = []
        kept, vectors = [], []
        for index, text in enumerate(texts):
            if (found := self.read(index, text, errors, partial)) is None:
                continue
            label, confidence = found
            chances = np.full(len(LABELS), (1 - confidence) / (len(LABELS) - 1))
            chances[LABELS.index(label)] = confidence
            vectors.append(np.log(chances).astype(np.float32))
            kept.append(index)
        made = np.array(vectors, np.float32).reshape(-1, len(LABELS))
        tokens = [3 + self.place] * len(texts)
        cpu_ns = [1000 * (1 + self.place)] * len(texts)
        return Encoded(made, kept, tokens, [0] * len(texts), cpu_ns, tuple(errors), 1, 10, 100)


def bundle(accept_at: Sequence[float], *, calibrated: Sequence[bool]) -> Bundle:
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    manifest = BundleManifest.model_validate(
        {
            "name": "letters",
            "kind": "classify",
            "labels": LABELS,
            "tiers": [
                {
                    "name": name,
                    "base": {"name": f"model-{place}", "digest": "a" * 64},
                    "weights": f"{name}.safetensors",
                    "calibration": {"temperature": 1.0} if is_calibrated else None,
                    "accept_at": least,
                    "evaluation": {"n": 9, "metrics": {"accuracy": figure}},
                }
                for place, (name, least, is_calibrated) in enumerate(
                    zip(TIERS, accept_at, calibrated, strict=False)
                )
            ],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [],
        }
    )
    eye = np.eye(len(LABELS), dtype=np.float32)
    heads = tuple(Head(eye, np.zeros(len(LABELS), np.float32)) for _ in accept_at)
    return Bundle(manifest, heads)


def cascade(
    *accept_at: float,
    engine: str = "ct2",
    on_failure: OnFailure = "abstain",
    calibrated: Sequence[bool] = (True, True, True),
) -> tuple[ClassifyTask, list[Model]]:
    models = [Model(place, engine) for place in range(len(accept_at))]
    made = bundle(accept_at, calibrated=calibrated)
    parts = [part(made, place, models[place], least) for place, least in enumerate(accept_at)]
    return ClassifyTask("letters", made.manifest, parts, on_failure=on_failure), models


def part(made: Bundle, place: int, model: Any, accept_at: float) -> Part:
    return Part(place, HeadTier.of(made, place, model), accept_at)


async def run(
    task: ClassifyTask, texts: Sequence[str], mailbox: Mailbox, **options: Any
) -> list[Any]:
    """The answers, all of which must be there."""
    result = await task.run(texts, mailbox=mailbox, **options)
    assert result.errors == ()
    assert None not in result.items
    return list(result.items)


async def one(task: ClassifyTask, text: str, mailbox: Mailbox, **options: Any) -> Classification:
    (item,) = await run(task, [text], mailbox, **options)
    assert isinstance(item, Classification)
    return item


# -- who answers -----------------------------------------------------------------------------


async def test_cascade_keeps_the_order_and_asks_each_tier_once(mailbox: Mailbox) -> None:
    thresholds = (0.8, 0.7, 0.6)
    task, models = cascade(*thresholds)
    draw = np.random.default_rng(3)
    sure = draw.uniform(0.3, 0.99, (200, 3)).round(3)
    labels = draw.choice(LABELS, 200)
    texts = [f"{label} {' '.join(map(str, row))}" for label, row in zip(labels, sure, strict=True)]
    items = await run(task, texts, mailbox)
    reached: list[list[str]] = [[], [], []]
    for text, label, row, item in zip(texts, labels, sure, items, strict=True):
        least = [*(least_confidence(at, "ct2") for at in thresholds[:-1]), thresholds[-1]]
        tier = next((at for at in range(3) if row[at] >= least[at]), 2)
        for at in range(tier + 1):
            reached[at].append(text)
        assert item.tier == tier
        assert item.escalated is (tier > 0)
        assert item.abstained == (row[tier] < least[tier])
        assert item.label == ("" if item.abstained else label)
        assert item.scores[0].label == label
        assert item.confidence == pytest.approx(row[tier], abs=1e-6)
        assert [(each.tier, each.label) for each in item.tiers] == [
            (at, label) for at in range(tier + 1)
        ]
        assert [each.confidence for each in item.tiers] == pytest.approx(
            row[: tier + 1].tolist(), abs=1e-6
        )
        assert item.input_tokens == 3 + tier
        assert item.degraded is None
        costs = [(at + 1) / 1e3 for at in range(tier + 1)]
        assert [each.cpu_ms for each in item.tiers] == pytest.approx(costs)
        assert item.cpu_ms == pytest.approx(sum(costs))
    assert [model.calls for model in models] == [[rows] for rows in reached]
    assert 0 < len(reached[2]) < len(reached[1]) < 200


async def test_cascade_asks_no_further_than_it_must(mailbox: Mailbox) -> None:
    task, models = cascade(0.5, 0.0)
    result = await task.run(["a 0.9 0.9", "b 0.8 0.9"], mailbox=mailbox)
    assert models[1].calls == []
    assert (result.model, result.model_version) == ("model-0", "0" * 12)
    assert result.timings.tokenize_ns == 1


async def test_cascade_result_is_about_the_best_tier_heard(mailbox: Mailbox) -> None:
    task, _ = cascade(0.5, 0.5, 0.0)
    result = await task.run(["a 0.9 0.9 0.9", "b 0.3 0.9 0.9"], mailbox=mailbox)
    assert (result.model, result.model_version) == ("model-1", "1" * 12)
    assert (result.task_version, result.calibrated) == (task.info.version, True)
    timings = result.timings
    assert (timings.tokenize_ns, timings.queue_ns, timings.infer_ns) == (2, 20, 200)
    assert timings.total_ns > 0


async def test_cascade_last_tier_abstains_below_its_threshold_exactly(mailbox: Mailbox) -> None:
    task, _ = cascade(0.9, 0.75)
    at, below = await run(task, ["a 0.3 0.7501", "a 0.3 0.7499"], mailbox)
    assert (at.label, at.abstained) == ("a", False)
    assert (below.label, below.abstained, below.tier) == ("", True, 1)
    never, _ = cascade(0.9, 0.0)
    assert (await one(never, "a 0.3 0.3", mailbox)).label == "a"


async def test_cascade_passes_on_what_is_too_near_the_threshold(mailbox: Mailbox) -> None:
    """Another batch might move it below."""
    least = least_confidence(0.8, "ct2")
    assert 0.8 < least < 0.9
    task, _ = cascade(0.8, 0.0)
    texts = [f"a {sure:.5f} 0.9" for sure in (0.8001, least - 1e-4, least + 1e-4)]
    assert [item.tier for item in await run(task, texts, mailbox)] == [1, 1, 0]
    exact, _ = cascade(0.8, 0.0, engine="static")
    assert [item.tier for item in await run(exact, texts, mailbox)] == [0, 0, 0]


async def test_cascade_top_k(mailbox: Mailbox) -> None:
    task, _ = cascade(0.8, 0.0)
    items = await run(task, ["a 0.9 0.9", "b 0.4 0.9"], mailbox, top_k=2)
    assert [len(item.scores) for item in items] == [2, 2]
    with pytest.raises(InvalidInput, match="top_k"):
        await task.run(["a 0.9 0.9"], top_k=0, mailbox=mailbox)


async def test_cascade_last_tier_needs_no_calibration(mailbox: Mailbox) -> None:
    task, _ = cascade(0.8, 0.0, calibrated=(True, False))
    assert task.info.calibrated is False
    item = await one(task, "a 0.3 0.4", mailbox)
    assert (item.label, item.confidence, item.tier) == ("a", None, 1)
    assert item.tiers[1] == TierAnswer(1, "a", None, 0.002)
    with pytest.raises(InvalidInput, match="no calibrated confidence") as caught:
        await task.run(["a 0.3 0.4"], effort=Effort(accept_at=0.5), mailbox=mailbox)
    assert caught.value.field == "accept_at"


@pytest.mark.parametrize(
    ("accept_at", "calibrated", "tier"),
    [((0.8, 0.0), (False, True), "static"), ((0.8, 0.5), (True, False), "head")],
)
def test_cascade_threshold_needs_a_calibration(
    accept_at: tuple[float, ...], calibrated: tuple[bool, ...], tier: str
) -> None:
    with pytest.raises(ConfigError, match="is not calibrated") as caught:
        cascade(*accept_at, calibrated=calibrated)
    assert caught.value.path == f"tasks.letters.tiers.{tier}.accept_at"


async def test_cascade_info_says_what_each_tier_did(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.7, 0.0)
    assert task.info.models == tuple((f"model-{i}", str(i) * 12) for i in range(3))
    assert task.info.accept_at == 0.0
    models[2].failure = EngineError("broken")
    await task.run(["a 0.9 0.9 0.9", "a 0.4 0.9 0.9", "a 0.4 0.4 0.9"], mailbox=mailbox)
    assert [(t.name, t.accept_at, t.asked, t.answered, t.missed) for t in task.info.tiers] == [
        ("static", 0.8, 3, 1, 0),
        ("head", 0.7, 2, 2, 0),
        ("finetune", 0.0, 0, 0, 1),
    ]


def test_cascade_tiers_have_the_labels_of_the_bundle() -> None:
    made = bundle((0.8, 0.0), calibrated=(True, True))
    first = part(made, 0, Model(0, "ct2"), 0.8)
    model: Any = Model(1, "ct2")
    for labels in (LABELS[:3], LABELS[::-1]):
        other = Part(1, replace(HeadTier.of(made, 1, model), labels=labels), 0.0)
        with pytest.raises(ConfigError, match="labels that are not the 4 of bundle") as caught:
            ClassifyTask("letters", made.manifest, [first, other])
        assert caught.value.path == "tasks.letters.tiers.head"


def test_cascade_version_covers_its_thresholds() -> None:
    made = bundle((0.8, 0.5), calibrated=(True, True))

    def version(*accept_at: float) -> str:
        parts = [part(made, i, Model(i, "ct2"), at) for i, at in enumerate(accept_at)]
        return ClassifyTask("letters", made.manifest, parts).info.version

    assert version(0.8, 0.5) == made.manifest.version
    assert len({version(0.8, 0.5), version(0.7, 0.5), version(0.8, 0.4)}) == 3


# -- what a request may ask ------------------------------------------------------------------


async def test_cascade_goes_no_further_than_the_request_allows(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.7, 0.0)
    texts = ["a 0.9 0.9 0.9", "b 0.75 0.9 0.9", "c 0.81 0.9 0.9"]
    items = await run(task, texts, mailbox, effort=Effort(max_tier=0))
    assert [(item.label, item.tier, item.abstained) for item in items] == [
        ("a", 0, False),
        ("", 0, True),
        ("c", 0, False),  # No better tier may answer, so the threshold is taken as it is.
    ]
    assert [item.degraded for item in items] == [None] * 3
    assert models[1].calls == models[2].calls == []
    (further,) = await run(task, [texts[1]], mailbox, effort=Effort(max_tier=99))
    assert further.tier == 1


@pytest.mark.parametrize(("accept_at", "tier"), [(0.0, 0), (0.5, 1), (0.9, 2), (1.0, 2)])
async def test_cascade_threshold_of_a_request_is_that_of_every_tier(
    mailbox: Mailbox, accept_at: float, tier: int
) -> None:
    task, _ = cascade(0.8, 0.7, 0.6)
    item = await one(task, "a 0.4 0.6 0.8", mailbox, effort=Effort(accept_at=accept_at))
    assert (item.tier, item.abstained) == (tier, accept_at > 0.8)


@pytest.mark.parametrize(
    ("effort", "field"),
    [
        (Effort(max_tier=-1), "max_tier"),
        (Effort(accept_at=-0.1), "accept_at"),
        (Effort(accept_at=1.1), "accept_at"),
        (Effort(accept_at=math.nan), "accept_at"),
        (Effort(budget_ms=0.0), "budget_ms"),
        (Effort(budget_ms=-1.0), "budget_ms"),
        (Effort(budget_ms=math.inf), "budget_ms"),
        (Effort(budget_ms=math.nan), "budget_ms"),
    ],
)
async def test_cascade_refuses_numbers_out_of_range(
    mailbox: Mailbox, effort: Effort, field: str
) -> None:
    task, models = cascade(0.8, 0.0)
    with pytest.raises(InvalidInput) as caught:
        await task.run(["a 0.4 0.9"], effort=effort, mailbox=mailbox)
    assert caught.value.field == field
    assert models[0].calls == []


# -- time ------------------------------------------------------------------------------------


async def test_cascade_gives_up_a_tier_when_the_budget_is_spent(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0)
    models[1].takes_s = WAIT_S
    began = time.monotonic()
    items = await run(task, ["a 0.9 0.9", "b 0.4 0.9"], mailbox, effort=Effort(budget_ms=300))
    assert time.monotonic() - began < WAIT_S / 2
    assert [(item.label, item.tier, item.degraded) for item in items] == [
        ("a", 0, None),
        ("", 0, "no_time"),
    ]
    assert models[1].cancelled == 1


async def test_cascade_answers_before_the_deadline(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0, on_failure="answer")
    models[1].takes_s = WAIT_S
    deadline = time.monotonic() + 0.5
    item = await one(task, "a 0.4 0.9", mailbox, deadline=deadline)
    assert (item.label, item.abstained, item.degraded) == ("a", False, "no_time")
    assert models[0].deadlines == [deadline]
    assert models[1].deadlines == [deadline - REPLY_S]


async def test_cascade_begins_nothing_that_it_cannot_finish(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0)
    models[1].takes_s = 0.05
    assert (await one(task, "a 0.4 0.9", mailbox)).tier == 1
    item = await one(task, "a 0.4 0.9", mailbox, effort=Effort(budget_ms=10))
    assert (item.tier, item.degraded) == (0, "no_time")
    assert len(models[1].calls) == 1
    assert (await one(task, "a 0.4 0.9", mailbox, effort=Effort(budget_ms=5000))).tier == 1


async def test_cascade_first_tier_is_asked_whatever_the_budget(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0)
    models[0].takes_s = 0.02
    items = await run(task, ["a 0.9 0.9", "b 0.4 0.9"], mailbox, effort=Effort(budget_ms=0.001))
    assert [item.degraded for item in items] == [None, "no_time"]
    assert models[0].deadlines == [math.inf]
    assert models[1].calls == []


# -- tiers that are not heard ----------------------------------------------------------------

MISSED = {
    "overload": QueueFull("full"),
    "failure": EngineError("broken"),
    "no_time": DeadlineExceeded("late"),
}


@pytest.mark.parametrize("reason", MISSED)
@pytest.mark.parametrize("policy", ["answer", "abstain"])
async def test_cascade_policy_falls_back_on_the_tier_before(
    mailbox: Mailbox, reason: str, policy: OnFailure
) -> None:
    task, models = cascade(0.8, 0.7, 0.0, on_failure=policy)
    models[1].failure = MISSED[reason]
    items = await run(task, ["a 0.9 0.9 0.9", "b 0.4 0.9 0.9", "c 0.5 0.4 0.9"], mailbox)
    expected = ["a", "b", "c"] if policy == "answer" else ["a", "", ""]
    assert [item.label for item in items] == expected
    assert [item.abstained for item in items] == [not label for label in expected]
    assert [item.degraded for item in items] == [None, reason, reason]
    assert [item.tier for item in items] == [0, 0, 0]
    assert [item.confidence for item in items] == pytest.approx([0.9, 0.4, 0.5], abs=1e-6)
    assert models[2].calls == [], "nobody behind a tier that is not heard is asked"


@pytest.mark.parametrize("reason", MISSED)
async def test_cascade_policy_error_fails_the_call_or_the_texts(
    mailbox: Mailbox, reason: str
) -> None:
    task, models = cascade(0.8, 0.0, on_failure="error")
    error = models[1].failure = MISSED[reason]
    texts = ["b 0.4 0.9", "a 0.9 0.9", "c 0.5 0.4"]
    with pytest.raises(SpratError) as caught:
        await task.run(texts, mailbox=mailbox)
    assert caught.value is error
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == [None, "a", None]
    assert result.errors == tuple(ItemError(index, error.reason, error.message) for index in (0, 2))


@pytest.mark.parametrize("error", [NotReady("draining"), ZeroDivisionError()])
async def test_cascade_policy_is_not_for_what_nobody_foresaw(
    mailbox: Mailbox, error: Exception
) -> None:
    task, models = cascade(0.8, 0.0, on_failure="answer")
    models[1].failure = error
    with pytest.raises(type(error)):
        await task.run(["a 0.4 0.9"], mailbox=mailbox)


@pytest.mark.parametrize("reason", MISSED)
async def test_cascade_errors_of_the_first_tier_are_those_of_the_call(
    mailbox: Mailbox, reason: str
) -> None:
    task, models = cascade(0.8, 0.0, on_failure="answer")
    models[0].failure = MISSED[reason]
    with pytest.raises(type(MISSED[reason])):
        await task.run(["a 0.9 0.9"], mailbox=mailbox)


async def test_cascade_text_without_scores_fails_alone(mailbox: Mailbox) -> None:
    texts = ["a 0.4 0.9 0.9", "b 0.4 nan 0.9", "c 0.9 nan 0.9", "d 0.4 0.4 0.9"]
    task, models = cascade(0.8, 0.7, 0.0, on_failure="answer")
    items = await run(task, texts, mailbox)
    assert [(item.label, item.tier, item.degraded) for item in items] == [
        ("a", 1, None),
        ("b", 0, "failure"),
        ("c", 0, None),
        ("d", 2, None),
    ]
    assert models[2].calls == [["d 0.4 0.4 0.9"]]
    strict, _ = cascade(0.8, 0.7, 0.0, on_failure="error")
    with pytest.raises(EngineError, match=r"model-1 has no scores for texts\[1\]"):
        await strict.run(texts, mailbox=mailbox)
    result = await strict.run(texts, partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["a", None, "c", "d"]
    assert [(each.index, each.reason) for each in result.errors] == [(1, "ENGINE")]


async def test_cascade_text_without_scores_at_the_first_tier(mailbox: Mailbox) -> None:
    task, _ = cascade(0.8, 0.0, on_failure="answer")
    texts = ["a 0.9 0.9", "b nan 0.9", "c 0.4 0.9"]
    with pytest.raises(EngineError, match=r"model-0 has no scores for texts\[1\]"):
        await task.run(texts, mailbox=mailbox)
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["a", None, "c"]
    assert [error.index for error in result.errors] == [1]


async def test_cascade_text_that_a_later_tier_cannot_read(mailbox: Mailbox) -> None:
    texts = [f"a {LONG} 0.9", "b 0.9 0.9", "c 0.4 0.9", f"d 0.4 {LONG}"]
    task, _ = cascade(0.8, 0.0)
    with pytest.raises(InputTooLong) as caught:
        await task.run(texts[1:], mailbox=mailbox)
    assert caught.value.field == "texts[2]"
    assert str(caught.value).startswith("texts[2]: 99 tokens, at most 16")
    assert caught.value.message == str(caught.value)
    assert caught.value.tokens == 99
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == [None, "b", "c", None]
    assert [error.index for error in result.errors] == [0, 3]
    assert [error.message.partition(":")[0] for error in result.errors] == ["texts[0]", "texts[3]"]


async def test_cascade_of_texts_that_all_are_bad(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0)
    result = await task.run([f"a {LONG} 0.9"], partial=True, mailbox=mailbox)
    assert result.items == (None,)
    assert models[1].calls == []


async def test_cascade_cancelled_leaves_nothing_queued(mailbox: Mailbox) -> None:
    permits = ComputePermits(1)
    pool = ComputePool(permits)
    engine = Encoder()
    better = encoder_model(engine, permits, pool)
    made = bundle((0.8, 0.0), calibrated=(True, True))
    first = Model(0, "ct2")
    parts = [part(made, 0, first, 0.8), part(made, 1, better, 0.0)]
    task = ClassifyTask("letters", made.manifest, parts)
    engine.gate.clear()
    busy = asyncio.ensure_future(better.encode(["x"], mailbox=mailbox))
    await eventually(lambda: engine.calls, "nothing runs")
    for budget_ms in (None, 60_000.0):  # With a budget there is a timer too.
        effort = Effort(budget_ms=budget_ms)
        call = asyncio.ensure_future(task.run(["b 0.4 0.9"], effort=effort, mailbox=mailbox))
        await eventually(lambda: first.calls, "the first tier was not asked")
        first.calls.clear()
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    engine.gate.set()
    await asyncio.wait_for(busy, WAIT_S)
    await better.encode(["y"], mailbox=mailbox)
    assert engine.rows == [ids("x"), ids("y")]
    await asyncio.to_thread(better.close)
    pool.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not count cancellations")
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_cascade_cancelled_when_the_time_is_over_is_cancelled(
    mailbox: Mailbox, is_cancelled: bool
) -> None:
    task, models = cascade(0.8, 0.0)
    models[1].takes_s = WAIT_S
    left: list[int] = []

    async def ask() -> Classification:
        item = await one(task, "a 0.4 0.9", mailbox, effort=Effort(budget_ms=20))
        current = asyncio.current_task()
        assert current is not None
        left.append(current.cancelling())
        return item

    call = asyncio.ensure_future(ask())
    await eventually(lambda: models[1].calls, "the second tier was not asked")
    if not is_cancelled:
        assert (await call).degraded == "no_time"
        assert left == [0], "who waits for the call must not take it for cancelled"
        return
    asyncio.get_running_loop().call_later(0.02, call.cancel)
    time.sleep(0.1)  # Both are due now: the loop runs their callbacks one after the other.
    with pytest.raises(asyncio.CancelledError):
        await call
    assert models[1].cancelled == 1


async def test_cascade_calls_side_by_side_do_not_mix(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.0)
    models[1].takes_s = 0.01

    async def ask(label: str) -> ClassifyResult:
        return await task.run([f"{label} 0.4 0.9", f"{label} 0.9 0.9"], mailbox=mailbox)

    results = await asyncio.gather(*(ask(LABELS[i % 4]) for i in range(20)))
    for number, result in enumerate(results):
        assert [item and item.label for item in result.items] == [LABELS[number % 4]] * 2
    assert task.info.tiers[1].answered == 20


# -- routes ----------------------------------------------------------------------------------


async def test_cascade_routes(mailbox: Mailbox) -> None:
    task, models = cascade(0.8, 0.7)
    targets = Route(targets={label: f"queue://{label}" for label in LABELS}, default_target="all")
    routes = RouteTask(task, targets)
    models[1].failure = QueueFull("full")
    result = await routes.run(["a 0.9 0.9", "b 0.4 0.9"], mailbox=mailbox)
    assert [item and item.target for item in result.items] == ["queue://a", "all"]
    assert [item and item.classification.degraded for item in result.items] == [None, "overload"]
    models[1].failure = None
    limited = await routes.run(["b 0.4 0.9"], effort=Effort(accept_at=0.1), mailbox=mailbox)
    assert limited.items[0] is not None
    assert (limited.items[0].target, limited.items[0].classification.tier) == ("queue://b", 0)
    assert routes.info.tiers[1].missed == 1
