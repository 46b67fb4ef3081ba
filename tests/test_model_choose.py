"""What a generative model makes of texts and questions: prompts, cues, shared tokens, priors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from doubles import Generator, chances, generative_model, own

from sprat.budget import ComputePermits
from sprat.engine.base import Choice
from sprat.errors import EngineError, InputTooLong, InvalidInput
from sprat.model import Branch, Choices, GenerativeModel, prior
from sprat.model.prior import CONTENT_FREE, MOST_KEPT, Priors, corrected
from sprat.scheduler import ComputePool, Mailbox
from sprat.values import IntArray, Message

BRANCHES = (Branch(("yes", "no"), "a", cue="urgent:"), Branch(("red", "blue"), "b", cue="colour:"))


class Templated(Generator):
    """A generator whose template is one of those that are met in the wild."""

    kind = "takes"

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        if self.kind == "refuses" and messages[0].role == "system":
            raise InvalidInput("the chat template refuses this chat", field="chat")
        if self.kind == "ignores":
            messages = [message for message in messages if message.role != "system"]
        return super().chat_tokens(messages)


@pytest.fixture
def generator() -> Templated:
    return Templated(context_length=1000)


@pytest.fixture
async def model(generator: Generator) -> AsyncIterator[GenerativeModel]:
    permits = ComputePermits(2)
    pool = ComputePool(permits)
    made = generative_model(generator, permits, pool, capacity=2000)
    yield made
    await asyncio.to_thread(made.close)
    pool.close()


@pytest.fixture
def seen(generator: Generator) -> list[Choice]:
    """Every choice that the engine is handed."""
    choices: list[Choice] = []
    generator.choices.on_start = choices.append
    return choices


async def ask(
    model: GenerativeModel, *texts: str, branches: Sequence[Branch] = BRANCHES, **options: Any
) -> Choices:
    mailbox = Mailbox(asyncio.get_running_loop())
    return await model.choose("Well?", texts, branches, mailbox=mailbox, **options)


def text(ids: IntArray) -> str:
    return "".join(map(chr, ids.tolist()))


# -- prompts ---------------------------------------------------------------------------------


async def test_model_choose_branches_share_the_prompt_about_their_text(
    model: GenerativeModel, seen: list[Choice]
) -> None:
    found = await ask(model, "red yes", "no")
    assert [text(choice.prompt[1:]) for choice in seen[:3]] == [
        "<system>Well?<user>red yesurgent:",
        "<system>Well?<user>red yescolour:",
        "<system>Well?<user>nourgent:",
    ]
    for choice in seen:
        assert text(choice.prompt[1 : choice.shared]) == "<system>Well?<user>"
        assert text(choice.prompt[choice.common :]) in ("urgent:", "colour:")
    assert [text(option) for option in seen[0].options] == [" yes", " no"]
    assert [index for index, _ in found.kept] == [0, 1]
    # Once for what is shared, and once for each cue.
    assert found.kept[0][1] == len("_<system>Well?<user>red yes") + len("urgent:colour:")


async def test_model_choose_one_branch_shares_with_nobody(
    model: GenerativeModel, seen: list[Choice]
) -> None:
    await ask(model, "red", branches=BRANCHES[:1])
    assert seen[0].common == 0
    assert own(seen[0]) == "redurgent:"


async def test_model_choose_cue_ends_where_it_merges_with_an_option(
    model: GenerativeModel, generator: Templated, seen: list[Choice], monkeypatch: Any
) -> None:
    """A tokenizer with a token for ": ": what is merged belongs to the options."""
    plain = Generator.tokenize

    def tokenize(self: Generator, text: str, **options: bool) -> IntArray:
        return plain(self, text.replace(": ", "\u2026"), **options)

    monkeypatch.setattr(Templated, "tokenize", tokenize)
    await ask(model, "red")
    assert text(seen[0].prompt[seen[0].common :]) == "urgent"
    assert [text(option) for option in seen[0].options] == ["\u2026yes", "\u2026no"]


@pytest.mark.parametrize("kind", ["refuses", "ignores"])
async def test_model_choose_template_without_a_system_gets_instructions_from_the_user(
    model: GenerativeModel, generator: Templated, seen: list[Choice], kind: str
) -> None:
    generator.kind = kind
    await ask(model, "red", "blue")
    assert text(seen[0].prompt[1:]) == "<user>Well?\n\nredurgent:"
    assert text(seen[0].prompt[1 : seen[0].shared]) == "<user>Well?\n\n"


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        (("yes", "yes"), InvalidInput, "b[1]"),
        (("yes", "n" * 32), InputTooLong, "b[1]"),
    ],
)
async def test_model_choose_refuses_options_by_their_place(
    model: GenerativeModel,
    seen: list[Choice],
    options: tuple[str, ...],
    kind: type[InvalidInput | InputTooLong],
    field: str,
) -> None:
    branches = (BRANCHES[0], Branch(options, "b", cue="?"))
    with pytest.raises(kind) as caught:
        await ask(model, "red", branches=branches, partial=True)
    assert caught.value.field == field
    assert not seen


async def test_model_choose_text_must_leave_room_for_the_longest_cue(
    model: GenerativeModel,
) -> None:
    limit = 1000 - len(" blue") - len("colour:") - len("_<system>Well?<user>")
    await ask(model, "x" * limit)
    with pytest.raises(InputTooLong):
        await ask(model, "x" * (limit + 1))


async def test_model_choose_queue_counts_what_is_shared_once(
    model: GenerativeModel, generator: Templated
) -> None:
    """Thirty questions about a text of 500 tokens are not 15,000 tokens that wait."""
    branches = [Branch(("yes", "no"), f"q{number}", cue=f"q{number}:") for number in range(30)]
    generator.choices.steps_each = 3
    calls = (ask(model, name * 500, branches=branches) for name in "xy")
    assert len(await asyncio.gather(*calls)) == 2


async def test_model_choose_failure_of_one_question_drops_its_call_alone(
    model: GenerativeModel, generator: Templated
) -> None:
    def on_start(choice: Choice) -> None:
        if own(choice) == "badcolour:":
            raise EngineError("cannot")

    generator.choices.on_start = on_start
    generator.choices.steps_each = 20
    bad, good = await asyncio.gather(ask(model, "bad"), ask(model, "red"), return_exceptions=True)
    assert isinstance(bad, EngineError)
    assert isinstance(good, Choices)
    assert len(good.chosen[0]) == 2
    assert not generator.choices.live


# -- priors ----------------------------------------------------------------------------------


async def test_model_choose_prior_is_divided_out_and_computed_once(
    model: GenerativeModel, generator: Templated, seen: list[Choice]
) -> None:
    # "N/A" and the others mention "A": the model prefers it whatever the text says.
    branches = [Branch(("A", "b"), "labels")]
    plain = await ask(model, "b", branches=branches)
    found = await ask(model, "b", branches=branches, correct_prior=True)
    prompts = [text(choice.prompt).partition("<user>")[2] for choice in seen[1:]]
    assert prompts == [*CONTENT_FREE, "b"]
    without = np.mean([chances(choice) for choice in seen[1:4]], axis=0)
    expected = plain.chosen[0][0].probabilities / without
    np.testing.assert_allclose(
        found.chosen[0][0].probabilities, expected / expected.sum(), rtol=1e-5
    )
    await ask(model, "A", "c", branches=branches, correct_prior=True)
    assert [own(choice) for choice in seen[5:]] == ["A", "c"]
    assert not any(choice.is_pruned for choice in seen[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"branches": [Branch(("A", "c"), "labels")]},
        {"scoring": "full"},
        {"scoring": "full", "normalize_length": True},
        {"branches": [Branch(("A", "b"), "labels", cue="so:")]},
    ],
)
async def test_model_choose_prior_is_of_its_options_and_scoring(
    model: GenerativeModel, seen: list[Choice], options: dict[str, Any]
) -> None:
    branches = [Branch(("A", "b"), "labels")]
    await ask(model, "b", branches=branches, correct_prior=True)
    await ask(model, "b", **{"branches": branches, "correct_prior": True, **options})
    assert len(seen) == 8


async def test_model_choose_priors_of_questions_are_kept_one_by_one(
    model: GenerativeModel, seen: list[Choice]
) -> None:
    more = (*BRANCHES, Branch(("A", "b"), "c", cue="letter:"))
    await ask(model, "red", correct_prior=True)
    assert len(seen) == 2 * 4
    found = await ask(model, "red", branches=more, correct_prior=True)
    assert len(seen) == 8 + 3 + 3
    assert [len(group) for group in found.chosen] == [3]


async def test_model_choose_nothing_good_needs_no_prior(
    model: GenerativeModel, seen: list[Choice]
) -> None:
    found = await ask(model, "", correct_prior=True, partial=True)
    assert [error.index for error in found.errors] == [0]
    assert not seen


def test_prior_corrected_is_a_distribution_even_of_nothing() -> None:
    probabilities = np.array([1, 0, 0], np.float32)
    for without in ([0, 0.5, 0.5], [1, 0, 0], [1 / 3] * 3):
        found = corrected(probabilities, np.array(without, np.float32))
        np.testing.assert_allclose(found, [1, 0, 0])
        assert found.dtype == np.float32
    found = corrected(np.array([0.5, 0.5], np.float32), np.array([0.8, 0.2], np.float32))
    np.testing.assert_allclose(found, [0.2, 0.8], rtol=1e-6)


def test_prior_keeps_those_that_were_used_last() -> None:
    priors = Priors()
    for number in range(MOST_KEPT):
        priors.keep((number,), np.array([number], np.float32))
    assert priors.get((0,)) is not None
    priors.keep(("new",), np.array([1], np.float32))
    assert priors.get((1,)) is None
    assert priors.get((0,)) is not None
    np.testing.assert_allclose(prior.mean([np.array([1, 0], np.float32)] * 3), [1, 0])
