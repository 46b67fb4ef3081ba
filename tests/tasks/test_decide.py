"""Decide: what questions may be, what the model is told, and what becomes of its probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from doubles import Encoder, Generator, eventually, serving

from sprat.config import LimitsConfig
from sprat.engine.base import Choice
from sprat.errors import DeadlineExceeded, InvalidInput, SpratError, TaskNotSupported
from sprat.service import Service
from sprat.tasks import decide
from sprat.values import DecideResult, Label, Question, QuestionSet

URGENT = Question("urgent", "Is it urgent?", "yes_no")
COLOUR = Question("colour", "Which colour?", "choice", (Label("red", "as a rose"), Label("blue")))
MOOD = Question("mood", "How angry?", "score", tuple(map(Label, ("calm", "cross", "furious"))))


def question_set(*questions: Question, **fields: Any) -> QuestionSet:
    return QuestionSet("gen", questions or (URGENT, COLOUR, MOOD), **fields)


@pytest.fixture
def generator() -> Generator:
    return Generator(context_length=2000)


@pytest.fixture
async def service(generator: Generator) -> AsyncIterator[Service]:
    limits = LimitsConfig(max_texts=20, max_text_bytes=400)
    async with serving(Encoder(), generator, limits=limits) as made:
        yield made


async def test_decide_answers_every_question(service: Service) -> None:
    result = await service.decide(question_set(), ["a blue one, furious, yes"])
    (item,) = result.items
    assert item is not None
    assert [(a.question, a.option) for a in item.answers] == [
        ("urgent", "yes"),
        ("colour", "blue"),
        ("mood", "furious"),
    ]
    urgent, colour, mood = item.answers
    assert {s.label: round(s.score * 10) for s in urgent.scores} == {"yes": 9, "no": 1}
    # In the order of the question, not of the scores.
    assert [s.label for s in colour.scores] == ["red", "blue"]
    assert (urgent.expected_level, colour.expected_level) == (None, None)
    assert mood.expected_level == pytest.approx((0 * 1 + 1 * 1 + 2 * 9) / 11)
    assert (result.model, result.task_version, result.calibrated) == ("gen", "", False)
    assert result.timings.total_ns > 0


async def test_decide_prompt_holds_every_question_once(
    service: Service, generator: Generator
) -> None:
    prompts: list[str] = []
    generator.choices.on_start = lambda choice: prompts.append(
        "".join(map(chr, choice.prompt.tolist()[1:]))
    )
    await service.decide(question_set(instructions="Mail to a shop."), ["a rose"])
    told = (
        "<system>Mail to a shop.\n"
        "urgent: Is it urgent? Answer yes or no.\n"
        "colour: Which colour? Answer with one of these.\n- red: as a rose\n- blue\n"
        "mood: How angry? Answer with one of these. They ascend.\n- calm\n- cross\n- furious"
        "<user>a rose"
    )
    assert prompts == [told + cue for cue in ("urgent:", "colour:", "mood:")]
    assert decide.prompt(question_set()).startswith(decide.GENERAL_INSTRUCTIONS)


async def test_decide_counts_what_questions_share_once(
    service: Service, generator: Generator
) -> None:
    seen: list[Choice] = []
    generator.choices.on_start = seen.append
    result = await service.decide(question_set(), ["a rose"])
    assert result.items[0] is not None
    cues = sum(len(choice.prompt) - choice.common for choice in seen)
    assert result.items[0].input_tokens == seen[0].common + cues
    assert result.items[0].cached_tokens == seen[0].shared


async def test_decide_one_question_about_many_texts(service: Service) -> None:
    result = await service.decide(question_set(COLOUR), ["a red one", "a blue one"] * 5)
    assert [item and item.answers[0].option for item in result.items] == ["red", "blue"] * 5


async def test_decide_partial_answers_the_good_texts(service: Service) -> None:
    with pytest.raises(InvalidInput):
        await service.decide(question_set(), ["a red one", ""])
    result = await service.decide(question_set(), ["", "a red one"], partial=True)
    assert result.items[0] is None
    assert result.items[1] is not None
    assert [(error.index, error.reason) for error in result.errors] == [(0, "INVALID_INPUT")]


MANY = tuple(Question(f"q{number}", "Well?", "yes_no") for number in range(33))
LEVELS = tuple(map(Label, map(str, range(11))))


async def test_decide_takes_32_questions(service: Service, generator: Generator) -> None:
    """More than the engine takes at a time: the others come behind."""
    generator.choices.steps_each = 2
    generator.choices.cells = 2000
    result = await service.decide(question_set(*MANY[:32]), ["so yes"])
    assert result.items[0] is not None
    assert [a.question for a in result.items[0].answers] == [q.name for q in MANY[:32]]


REFUSED: list[tuple[QuestionSet, str, str]] = [
    (QuestionSet("gen", ()), "questions", "expected 1 to 32, got 0"),
    (question_set(*MANY), "questions", "expected 1 to 32, got 33"),
    (question_set(URGENT, URGENT), "questions[1].name", "the same as questions[0].name"),
    (question_set(Question("", "a", "yes_no")), "questions[0].name", "is empty"),
    (question_set(Question("a", " ", "yes_no")), "questions[0].text", "no visible character"),
    (question_set(Question("a", "b", "maybe")), "questions[0].kind", "got 'maybe'"),  # type: ignore[arg-type]
    (
        question_set(Question("a", "b", "yes_no", (Label("c"),))),
        "questions[0].options",
        "expected none of a yes_no question, got 1",
    ),
    (
        question_set(URGENT, Question("a", "b", "choice", (Label("c"),))),
        "questions[1].options",
        "expected 2 to 256, got 1",
    ),
    (
        question_set(Question("a", "b", "score", LEVELS)),
        "questions[0].options",
        "expected 2 to 10, got 11",
    ),
    (
        question_set(Question("a", "b", "choice", (Label("c"), Label("c")))),
        "questions[0].options[1]",
        "the same as questions[0].options[0]",
    ),
    (
        question_set(Question("a", "b", "choice", (Label("c"), Label("d", "\ud800")))),
        "questions[0].options[1]",
        "surrogate",
    ),
    (question_set(instructions="\udfff"), "instructions", "surrogate"),
    (question_set(instructions="x" * 401), "instructions", "401 bytes"),
    (question_set(Question("a", "b" * 401, "yes_no")), "questions[0]", "402 bytes"),
    (
        question_set(Question("a", "b", "choice", (Label("c"), Label("d" * 401)))),
        "questions[0].options[1]",
        "401 bytes",
    ),
]


@pytest.mark.parametrize(("questions", "field", "message"), REFUSED)
async def test_decide_refuses_questions(
    service: Service, generator: Generator, questions: QuestionSet, field: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await service.decide(questions, ["a"])
    assert caught.value.field == field
    assert message in caught.value.message
    assert not generator.choices.started


async def test_decide_cancelled_call_frees_the_engine(
    service: Service, generator: Generator
) -> None:
    generator.choices.steps_each = 10**9
    call = asyncio.create_task(service.decide(question_set(), ["red", "blue"]))
    await eventually(lambda: len(generator.choices.live) == 6, "it never started")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not generator.choices.live, "it was never stopped")


async def test_decide_deadline(service: Service, generator: Generator) -> None:
    with pytest.raises(DeadlineExceeded):
        await service.decide(question_set(), ["red"], deadline=0.0)
    assert not generator.choices.started


async def test_decide_one_bad_call_among_eight_good_ones(
    service: Service, generator: Generator
) -> None:
    """200 rounds: what is wrong with one is nothing to the others."""
    wrong: list[tuple[QuestionSet, list[str], dict[str, Any]]] = [
        (question_set(), [""], {}),
        (question_set(URGENT, URGENT), ["a"], {}),
        (question_set(Question("x" * 390, "Well?", "yes_no")), ["a" * 600], {}),
        (question_set(), ["a"], {"deadline": 0.0}),
    ]
    for number in range(200):
        good = [service.decide(question_set(), [f"a {name} one"]) for name in ("red", "blue") * 4]
        questions, texts, options = wrong[number % len(wrong)]
        bad = service.decide(questions, texts, **options)
        *results, failed = await asyncio.gather(*good, bad, return_exceptions=True)
        assert isinstance(failed, SpratError)
        answers = [
            result.items[0].answers[1].option
            for result in results
            if isinstance(result, DecideResult) and result.items[0]
        ]
        assert answers == ["red", "blue"] * 4
    assert not generator.choices.live


async def test_decide_needs_a_generative_model(service: Service) -> None:
    with pytest.raises(TaskNotSupported, match="decide"):
        await service.decide(QuestionSet("enc", (URGENT,)), ["a"])
