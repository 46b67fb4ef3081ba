"""Classify: head, temperature, order, abstention."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from doubles import (
    ENCODER,
    LABELS,
    TASK,
    Encoder,
    bundle,
    classify_task,
    encoder_model,
    ids,
    vector,
)

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.errors import ConfigError, EngineError, InputTooLong, InvalidInput
from sprat.head import Head
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.values import Effort

TEXTS = ["a", "b c", "d e f", "g", "h i"]


@pytest.fixture
async def model() -> AsyncIterator[EncoderModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = encoder_model(Encoder(), permits, pool)
    yield made
    await asyncio.to_thread(made.close)
    pool.close()


def expected(head: Bundle, text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Probabilities as the definition says, in float64."""
    (fitted,) = head.heads
    logits = fitted.weight.astype(np.float64) @ vector(ids(text)) + fitted.bias
    powers: np.ndarray[tuple[int], np.dtype[np.float64]]
    powers = np.exp(logits / fitted.temperature)
    powers /= powers.sum()
    return powers


async def test_classify_scores_are_the_softmax_of_the_head(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    head = bundle(model.manifest)
    result = await classify_task(TASK, head, model).run(TEXTS, mailbox=mailbox)
    assert len(result.items) == len(TEXTS)
    for text, item in zip(TEXTS, result.items, strict=True):
        probabilities = expected(head, text)
        assert item is not None
        scores = {s.label: s.score for s in item.scores}
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        np.testing.assert_allclose([scores[label] for label in LABELS], probabilities, rtol=1e-5)
        assert item.label == LABELS[int(probabilities.argmax())]
        assert item.confidence == item.scores[0].score
        assert item.input_tokens == len(ids(text))
        assert (item.abstained, item.tier, item.escalated) == (False, 0, False)
        assert item.cpu_ms is not None
        assert item.cpu_ms > 0


async def test_classify_says_who_answered(model: EncoderModel, mailbox: Mailbox) -> None:
    task = classify_task("renamed", bundle(model.manifest), model)
    result = await task.run(["a"], mailbox=mailbox)
    assert (result.model, result.model_version) == (ENCODER, model.info.version)
    assert result.task_version == task.info.version
    assert result.calibrated is True
    timings = result.timings
    assert timings.total_ns >= timings.tokenize_ns + timings.infer_ns > 0
    info = task.info
    assert (info.name, info.kind, info.labels) == ("renamed", "classify", LABELS)
    assert info.models == ((ENCODER, model.info.version),)


@pytest.mark.parametrize("top_k", [1, 2, 3, 99])
async def test_classify_top_k_keeps_the_best(
    model: EncoderModel, mailbox: Mailbox, top_k: int
) -> None:
    task = classify_task(TASK, bundle(model.manifest), model)
    full = await task.run(["a b"], mailbox=mailbox)
    cut = await task.run(["a b"], top_k=top_k, mailbox=mailbox)
    assert full.items[0] is not None
    assert cut.items[0] is not None
    assert cut.items[0].scores == full.items[0].scores[:top_k]
    assert cut.items[0].label == full.items[0].label


@pytest.mark.parametrize("top_k", [0, -1])
async def test_classify_top_k_below_one_is_refused(
    model: EncoderModel, mailbox: Mailbox, top_k: int
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await classify_task(TASK, bundle(model.manifest), model).run(
            ["a"], top_k=top_k, mailbox=mailbox
        )
    assert caught.value.field == "top_k"


async def test_classify_equal_scores_keep_the_order_of_the_labels(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    head = bundle(model.manifest)
    (fitted,) = head.heads
    flat = Bundle(head.manifest, (Head(0 * fitted.weight, 0 * fitted.bias),))
    result = await classify_task(TASK, flat, model).run(["a"], mailbox=mailbox)
    assert result.items[0] is not None
    assert tuple(s.label for s in result.items[0].scores) == LABELS


async def test_classify_abstains_below_the_threshold_and_only_there(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    head = bundle(model.manifest)
    sure = [float(expected(head, text).max()) for text in TEXTS]
    threshold = sorted(sure)[2] - 1e-4
    result = await classify_task(TASK, head, model, accept_at=threshold).run(TEXTS, mailbox=mailbox)
    for confidence, item in zip(sure, result.items, strict=True):
        assert item is not None
        assert item.abstained is (confidence < threshold)
        assert (item.label == "") is item.abstained
        assert item.scores, "the scores are told in any case"
        assert item.confidence == pytest.approx(confidence, rel=1e-5)


async def test_classify_threshold_is_the_task_s_or_else_the_bundle_s(model: EncoderModel) -> None:
    head = bundle(model.manifest, accept_at=0.7)
    assert classify_task(TASK, head, model).info.accept_at == 0.7
    assert classify_task(TASK, head, model, accept_at=0.0).info.accept_at == 0.0


async def test_classify_exactly_at_the_threshold_answers(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    head = bundle(model.manifest)
    first = await classify_task(TASK, head, model).run(["a"], mailbox=mailbox)
    assert first.items[0] is not None
    threshold = first.items[0].confidence
    again = await classify_task(TASK, head, model, accept_at=threshold).run(["a"], mailbox=mailbox)
    assert again.items[0] is not None
    assert not again.items[0].abstained


async def test_classify_without_calibration_has_scores_but_no_confidence(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    head = bundle(model.manifest, calibrated=False)
    result = await classify_task(TASK, head, model).run(["a"], mailbox=mailbox)
    assert result.calibrated is False
    assert result.items[0] is not None
    assert result.items[0].confidence is None
    assert result.items[0].scores


async def test_classify_refuses_a_threshold_without_calibration(model: EncoderModel) -> None:
    """An uncalibrated score is no confidence: such a task would never abstain, silently."""
    head = bundle(model.manifest, calibrated=False)
    with pytest.raises(ConfigError, match="is not calibrated") as caught:
        classify_task(TASK, head, model, accept_at=0.5)
    assert caught.value.path == f"tasks.{TASK}.accept_at"
    with pytest.raises(ConfigError, match="is not calibrated"):
        classify_task(TASK, bundle(model.manifest, calibrated=False, accept_at=0.5), model)


async def test_classify_partial_keeps_the_places(model: EncoderModel, mailbox: Mailbox) -> None:
    task = classify_task(TASK, bundle(model.manifest), model)
    texts = ["a", "", "b", "c " * 99]
    with pytest.raises(InvalidInput):
        await task.run(texts, mailbox=mailbox)
    with pytest.raises(InputTooLong):
        await task.run(["a", "c " * 99], mailbox=mailbox)
    result = await task.run(texts, partial=True, mailbox=mailbox)
    alone = await task.run(["b"], mailbox=mailbox)
    assert [item is None for item in result.items] == [False, True, False, True]
    assert result.items[2] == alone.items[0]
    assert [error.index for error in result.errors] == [1, 3]


async def test_classify_partial_of_nothing_good(model: EncoderModel, mailbox: Mailbox) -> None:
    result = await classify_task(TASK, bundle(model.manifest), model).run(
        ["", ""], partial=True, mailbox=mailbox
    )
    assert result.items == (None, None)
    assert len(result.errors) == 2


async def test_classify_truncation_is_reported(model: EncoderModel, mailbox: Mailbox) -> None:
    task = classify_task(TASK, bundle(model.manifest), model)
    result = await task.run(["a " * 20], truncation="truncate", mailbox=mailbox)
    assert result.items[0] is not None
    assert (result.items[0].input_tokens, result.items[0].dropped_tokens) == (16, 6)


async def test_classify_confidence_is_that_of_the_curve_and_decides(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    plain = bundle(model.manifest)
    (tier,) = plain.manifest.tiers
    assert tier.calibration is not None
    curve = tier.calibration.model_copy(update={"isotonic": ((0.0, 0.0), (1.0, 0.5))})
    curved_tier = tier.model_copy(update={"calibration": curve})
    curved = Bundle(plain.manifest.model_copy(update={"tiers": (curved_tier,)}), plain.heads)
    before = await classify_task(TASK, plain, model).run(TEXTS, mailbox=mailbox)
    after = await classify_task(TASK, curved, model).run(TEXTS, mailbox=mailbox)
    for one, other in zip(before.items, after.items, strict=True):
        assert one is not None
        assert other is not None
        assert other.scores == one.scores
        assert other.label == one.label
        assert other.confidence == pytest.approx(one.scores[0].score / 2)
    strict = classify_task(TASK, curved, model, accept_at=0.51)
    assert all(
        item is not None and item.abstained
        for item in (await strict.run(TEXTS, mailbox=mailbox)).items
    )


async def test_classify_threshold_of_a_request_comes_first(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    task = classify_task(TASK, bundle(model.manifest, accept_at=0.9), model)
    for accept_at, abstained in ((1.0, True), (0.0, False)):
        effort = Effort(accept_at=accept_at, max_tier=0, budget_ms=1e-6)
        (item,) = (await task.run(["a"], effort=effort, mailbox=mailbox)).items
        assert item is not None
        assert (item.abstained, item.degraded, item.tiers) == (abstained, None, ())


async def test_classify_threshold_of_a_request_needs_a_confidence(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    task = classify_task(TASK, bundle(model.manifest, calibrated=False), model)
    with pytest.raises(InvalidInput, match="no calibrated confidence"):
        await task.run(["a"], effort=Effort(accept_at=0.5), mailbox=mailbox)
    await task.run(["a"], effort=Effort(accept_at=0.0), mailbox=mailbox)


async def test_classify_text_without_scores_is_an_error(
    model: EncoderModel, mailbox: Mailbox
) -> None:
    """A comparison with NaN would let it pass any threshold."""
    head = bundle(model.manifest, accept_at=0.9)
    (fitted,) = head.heads
    broken = Bundle(head.manifest, (Head(np.nan * fitted.weight, fitted.bias),))
    task = classify_task(TASK, broken, model)
    with pytest.raises(EngineError, match=r"model enc has no scores for texts\[0\]"):
        await task.run(["a"], mailbox=mailbox)
    result = await task.run(["a", ""], partial=True, mailbox=mailbox)
    assert result.items == (None, None)
    assert [(each.index, each.reason) for each in result.errors] == [
        (0, "ENGINE"),
        (1, "INVALID_INPUT"),
    ]


async def test_classify_version_covers_the_threshold(model: EncoderModel) -> None:
    head = bundle(model.manifest, accept_at=0.7)
    assert classify_task(TASK, head, model, accept_at=0.7).info.version == head.manifest.version
    assert classify_task(TASK, head, model, accept_at=0.6).info.version != head.manifest.version
