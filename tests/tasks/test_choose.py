"""Choose: what labels may be, and what becomes of a model's probabilities."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from doubles import WAIT_S, Encoder, Generator, chances, eventually, generative_model, own, serving

from sprat.budget import ComputePermits
from sprat.engine.base import Choice, Chosen
from sprat.errors import (
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    InvalidInput,
    QueueFull,
    SpratError,
    TaskNotSupported,
)
from sprat.model import GenerativeModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tasks import choose
from sprat.values import ClassifyResult, Label, LabelSet

NAMES = ("red", "green", "blue")


def label_set(*names: str, **fields: Any) -> LabelSet:
    return LabelSet("gen", tuple(map(Label, names or NAMES)), **fields)


@pytest.fixture
def generator() -> Generator:
    return Generator(context_length=1000)


@pytest.fixture
async def model(generator: Generator) -> AsyncIterator[GenerativeModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = generative_model(generator, permits, pool, capacity=400)
    yield made
    generator.choices.gate.set()
    await asyncio.to_thread(made.close)
    pool.close()


def seen(generator: Generator) -> list[Choice]:
    """Every choice that the engine is handed from now on."""
    choices: list[Choice] = []
    generator.choices.on_start = choices.append
    return choices


async def test_choose_scores_are_the_models(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    choices = seen(generator)
    result = await choose.run(model, ["blue, blue and green", "red"], label_set(), mailbox=mailbox)
    first, second = result.items
    assert first is not None
    assert second is not None
    assert [score.label for score in first.scores] == ["blue", "green", "red"]
    assert [score.score for score in first.scores] == pytest.approx([17 / 27, 9 / 27, 1 / 27])
    assert (first.label, second.label) == ("blue", "red")
    assert first.confidence is None
    assert (first.abstained, first.tier, first.escalated, first.dropped_tokens) == (
        False,
        0,
        False,
        0,
    )
    for item, choice in zip((first, second), choices, strict=True):
        assert item.input_tokens == len(choice.prompt)
        assert item.cached_tokens == choice.shared
        assert item.cpu_ms is not None
        assert item.cpu_ms > 0


async def test_choose_that_fails_on_one_text_answers_the_others_where_it_may(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    for number in (1, 4):
        generator.choices.odd[number] = Chosen(number, error="not finite")
    texts = ["red", "green", "blue"]
    result = await choose.run(model, [*texts, ""], label_set(), partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["red", None, "blue", None]
    assert [error.index for error in result.errors] == [1, 3]
    assert result.errors[0].message == "model gen: not finite"
    with pytest.raises(EngineError, match="model gen: not finite"):
        await choose.run(model, texts, label_set(), mailbox=mailbox)
    again = await choose.run(model, texts, label_set(), mailbox=mailbox)
    assert [item and item.label for item in again.items] == texts


async def test_choose_says_who_answered_and_that_it_is_not_calibrated(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    result = await choose.run(model, ["red"], label_set(), mailbox=mailbox)
    assert (result.model, result.model_version) == (model.info.name, model.info.version)
    assert result.task_version == ""
    assert result.calibrated is False
    timings = result.timings
    assert timings.total_ns >= timings.tokenize_ns + timings.infer_ns > 0


async def test_choose_prompt_holds_instructions_labels_and_descriptions(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    choices = seen(generator)
    labels = LabelSet(
        "gen", (Label("red", "like a rose"), Label("blue")), instructions="Which colour?"
    )
    await choose.run(model, ["a rose"], labels, mailbox=mailbox)
    prompt = "".join(map(chr, choices[0].prompt.tolist()[1:]))
    assert prompt == (
        "<system>Which colour?\nAnswer with one of these labels and nothing else:\n"
        "- red: like a rose\n- blue<user>a rose"
    )
    assert own(choices[0]) == "a rose"
    assert choose.prompt(label_set()).startswith(choose.GENERAL_INSTRUCTIONS)


async def test_choose_text_that_merges_with_the_prompt_shares_nothing(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tokens of the prompt change with the text, the whole prompt is decoded."""
    choices = seen(generator)
    tokens = Generator.chat_tokens

    def merging(self: Generator, messages: Any) -> Any:
        made = tokens(self, messages)
        return made + 1 if messages[-1].content[0] == "!" else made

    monkeypatch.setattr(Generator, "chat_tokens", merging)
    await choose.run(model, ["red"], label_set(), mailbox=mailbox)
    await choose.run(model, ["!"], label_set(), mailbox=mailbox)
    assert choices[0].shared > 0
    assert choices[1].shared == 0


@pytest.mark.parametrize("top_k", [1, 2, 3, 99])
async def test_choose_top_k_keeps_the_best(
    model: GenerativeModel, mailbox: Mailbox, top_k: int
) -> None:
    full = await choose.run(model, ["blue green"], label_set(), mailbox=mailbox)
    cut = await choose.run(model, ["blue green"], label_set(), top_k=top_k, mailbox=mailbox)
    assert full.items[0] is not None
    assert cut.items[0] is not None
    assert cut.items[0].scores == full.items[0].scores[:top_k]


async def test_choose_equal_scores_keep_the_order_of_the_labels(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    result = await choose.run(model, ["what"], label_set(), mailbox=mailbox)
    assert result.items[0] is not None
    assert tuple(score.label for score in result.items[0].scores) == NAMES


NUMBERS = [f"label {number}" for number in range(257)]


async def test_choose_takes_2_and_256_labels(model: GenerativeModel, mailbox: Mailbox) -> None:
    wide = Generator(context_length=100_000)
    wide.choices.cells = 100_000
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    large = generative_model(wide, permits, pool)
    result = await choose.run(large, ["label 255"], label_set(*NUMBERS[:256]), mailbox=mailbox)
    assert result.items[0] is not None
    assert len(result.items[0].scores) == 256
    await asyncio.to_thread(large.close)
    pool.close()
    await choose.run(model, ["red"], label_set("red", "blue"), mailbox=mailbox)


REFUSED: list[tuple[LabelSet, str, str]] = [
    (LabelSet("gen", ()), "labels", "expected 2 to 256, got 0"),
    (label_set("red"), "labels", "expected 2 to 256, got 1"),
    (label_set(*NUMBERS), "labels", "expected 2 to 256, got 257"),
    (label_set("red", ""), "labels[1]", "is empty"),
    (label_set("red", " \n"), "labels[1]", "holds no visible character"),
    (label_set("red", "\ud800"), "labels[1]", "surrogate"),
    (label_set("red", "blue", "red"), "labels[2]", "the same as labels[0]"),
    (LabelSet("gen", (Label("a"), Label("b", "\ud800"))), "labels[1]", "surrogate"),
    (label_set(instructions="\udfff"), "instructions", "surrogate"),
    (label_set(scoring="best"), "scoring", "expected constrained or full, got 'best'"),
    (label_set(normalize_length=True), "normalize_length", "expected full scoring"),
]


@pytest.mark.parametrize(("labels", "field", "message"), REFUSED)
async def test_choose_refuses_labels(
    model: GenerativeModel, mailbox: Mailbox, labels: LabelSet, field: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await choose.run(model, ["a"], labels, mailbox=mailbox)
    assert caught.value.field == field
    assert message in caught.value.message
    assert "red" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "field"),
    [({"top_k": 0}, "top_k"), ({"top_k": -1}, "top_k"), ({"truncation": "truncate"}, "truncation")],
)
async def test_choose_refuses_options(
    model: GenerativeModel, mailbox: Mailbox, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await choose.run(model, ["a"], label_set(), mailbox=mailbox, **options)
    assert caught.value.field == field


async def test_choose_refuses_labels_of_too_many_tokens(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    await choose.run(model, ["a"], label_set("a", "b" * 32), mailbox=mailbox)
    with pytest.raises(InputTooLong) as caught:
        await choose.run(model, ["a"], label_set("a", "b" * 33), partial=True, mailbox=mailbox)
    error = caught.value
    assert (error.field, error.tokens, error.limit) == ("labels[1]", 33, 32)


async def test_choose_normalizes_length_with_full_scoring(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    choices = seen(generator)
    labels = label_set(scoring="full", normalize_length=True)
    await choose.run(model, ["a"], labels, mailbox=mailbox)
    assert (choices[0].scoring, choices[0].normalize_length) == ("full", True)


async def test_choose_partial_answers_the_good_ones(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    texts = ["red", "", "x" * 2000, "blue"]
    for bad, kind in ((texts[:2], InvalidInput), (texts[2:], InputTooLong)):
        with pytest.raises(kind):
            await choose.run(model, bad, label_set(), mailbox=mailbox)
    result = await choose.run(model, texts, label_set(), partial=True, mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["red", None, None, "blue"]
    assert [(error.index, error.reason) for error in result.errors] == [
        (1, "INVALID_INPUT"),
        (2, "INPUT_TOO_LONG"),
    ]


async def test_choose_partial_with_nothing_good(model: GenerativeModel, mailbox: Mailbox) -> None:
    result = await choose.run(model, ["", " "], label_set(), partial=True, mailbox=mailbox)
    assert result.items == (None, None)
    assert [error.index for error in result.errors] == [0, 1]


async def test_choose_more_texts_than_the_queue_holds_are_answered(
    model: GenerativeModel, mailbox: Mailbox
) -> None:
    """A call alone is never refused for its own texts."""
    texts = [f"red {'x' * 50} {number}" for number in range(20)]
    result = await choose.run(model, texts, label_set(), mailbox=mailbox)
    assert [item and item.label for item in result.items] == ["red"] * 20


async def test_choose_full_queue_leaves_nothing_behind(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    gate = threading.Event()
    generator.on_chooser = lambda: gate.wait(WAIT_S)
    waiting = asyncio.create_task(choose.run(model, ["x" * 390], label_set(), mailbox=mailbox))
    await eventually(lambda: model._scheduler._choices, "it never waited")
    with pytest.raises(QueueFull):
        await choose.run(model, ["red", "x" * 20], label_set(), mailbox=mailbox)
    gate.set()
    await waiting
    assert len(generator.choices.started) == 1


async def test_choose_failure_of_one_text_drops_the_others_silently(
    model: GenerativeModel,
    generator: Generator,
    mailbox: Mailbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No result is left that asyncio would complain about."""

    def on_start(choice: Choice) -> None:
        if own(choice) == "bad":
            raise EngineError("cannot")

    generator.choices.on_start = on_start
    generator.choices.steps_each = 10**9
    with pytest.raises(EngineError, match="cannot"):
        await choose.run(model, ["red", "bad", "blue", "bad"], label_set(), mailbox=mailbox)
    await eventually(lambda: not model._scheduler._choices, "choices are left")
    await asyncio.sleep(0.01)
    gc.collect()
    assert "never retrieved" not in caplog.text
    # The others, as far as they had begun.
    assert sorted(generator.choices.stopped) == sorted(generator.choices.started)


async def test_choose_cancelled_call_frees_the_engine(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    generator.choices.steps_each = 10**9
    call = asyncio.create_task(choose.run(model, ["red", "blue"], label_set(), mailbox=mailbox))
    await eventually(lambda: len(generator.choices.live) == 2, "it never started")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not generator.choices.live, "it was never stopped")


async def test_choose_deadline(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    with pytest.raises(DeadlineExceeded):
        await choose.run(model, ["red"], label_set(), deadline=0.0, mailbox=mailbox)
    assert not generator.choices.started


async def test_choose_one_bad_call_among_eight_good_ones(
    model: GenerativeModel, generator: Generator, mailbox: Mailbox
) -> None:
    """200 rounds: what is wrong with one is nothing to the others."""
    wrong: list[tuple[list[str], LabelSet, dict[str, Any]]] = [
        (["a"], label_set("red"), {}),
        (["a"], label_set("red", "red"), {}),
        ([""], label_set(), {}),
        (["x" * 2000], label_set(), {}),
        (["a"], label_set("a", "b" * 40), {}),
        (["a"], label_set(), {"deadline": 0.0}),
        (["a"], label_set(), {"top_k": 0}),
    ]

    async def call(texts: list[str], labels: LabelSet, options: dict[str, Any]) -> ClassifyResult:
        return await choose.run(model, texts, labels, mailbox=mailbox, **options)

    for number in range(200):
        good = [call([name], label_set(), {}) for name in (*NAMES, *NAMES, "red", "blue")]
        bad = call(*wrong[number % len(wrong)])
        *results, failed = await asyncio.gather(*good, bad, return_exceptions=True)
        assert isinstance(failed, SpratError)
        labels = [r.items[0].label for r in results if isinstance(r, ClassifyResult) and r.items[0]]
        assert labels == [*NAMES, *NAMES, "red", "blue"]
    assert not generator.choices.live


async def test_choose_needs_a_generative_model() -> None:
    async with serving(Encoder(), Generator(context_length=1000)) as service:
        with pytest.raises(TaskNotSupported, match="choose"):
            await service.choose(LabelSet("enc", (Label("a"), Label("b"))), ["a"])


async def test_choose_service_bounds_every_text_of_a_request() -> None:
    from sprat.config import LimitsConfig

    limits = LimitsConfig(max_texts=2, max_text_bytes=400)
    async with serving(Encoder(), Generator(context_length=1000), limits=limits) as service:
        good = LabelSet("gen", (Label("a"), Label("b")))
        assert (await service.choose(good, ["a"])).items[0] is not None
        for labels, texts, field in (
            (good, ["a"] * 3, "texts"),
            (good, ["a" * 401], "texts[0]"),
            (LabelSet("gen", good.labels, instructions="a" * 401), ["a"], "instructions"),
            (LabelSet("gen", (Label("a"), Label("b" * 401))), ["a"], "labels[1]"),
            (LabelSet("gen", (Label("a"), Label("b", "b" * 401))), ["a"], "labels[1]"),
        ):
            with pytest.raises(InvalidInput) as caught:
                await service.choose(labels, texts)
            assert caught.value.field == field


async def test_choose_doubles_answer_as_they_say(generator: Generator) -> None:
    text = generator.tokenize("red", add_special=False, parse_special=False)
    other = generator.tokenize("blue", add_special=False, parse_special=False)
    assert chances(Choice(text, 0, (text, other))).tolist() == pytest.approx([0.9, 0.1])
