"""Several choices about one text on a real model: read once, exact, and gone with the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import llama_cpp
import numpy as np
import pytest
from choosers import CROWD, TOLERANCE, check, check_nothing_is_left, one, run

from sprat.benchmarks.exactness import Oracle, Prompts
from sprat.engine.base import Choice, Chosen
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import CHOICES, PREFIXES, TEXTS, Chooser, option_cells
from sprat.errors import EngineError
from sprat.values import IntArray

STORY = "My card was swallowed by a machine in Lisbon, and I need cash by tonight."
OTHER = "How much is a pound in euros?"


@pytest.fixture(scope="module")
def small(choice_engine: LlamaEngine) -> Prompts:
    return Prompts(choice_engine, ["card", "card lost", "transfer", "cash machine"])


def alone(choice: Choice) -> Choice:
    """The same prompt, which shares nothing."""
    return replace(choice, shared=0, common=0)


def own_tokens(choice: Choice) -> int:
    return len(choice.prompt) - choice.common


def sequences(chooser: Chooser) -> list[int]:
    """Sequences of prefixes that hold cells."""
    last = llama_cpp.llama_memory_seq_pos_max
    return [s for s in range(PREFIXES + TEXTS) if last(chooser._memory, s) >= 0]


def step(chooser: Chooser, *, max_tokens: int = 64) -> list[Chosen]:
    found = chooser.step(max_tokens=max_tokens, threads=2)
    assert not any(chosen.error for chosen in found)
    return found


def finish(chooser: Chooser) -> list[Chosen]:
    found: list[Chosen] = []
    while chooser.busy:
        found += step(chooser)
    return found


def test_llama_questions_steps_say_for_whom_they_decode(chooser: Chooser, small: Prompts) -> None:
    chooser._forget_all()
    questions = [*small.questions(STORY, ("about", "urgent")), small.choice(OTHER, "full")]
    for number, question in enumerate(questions):
        chooser.start(number, question)
    decoded: Counter[int] = Counter()
    found: list[Chosen] = []
    while chooser.busy:
        found += step(chooser)
        decoded.update(chooser.step_tokens)
    assert decoded == {chosen.number: chosen.decoded_tokens for chosen in found}
    assert len(decoded) == 3


# -- exactness -------------------------------------------------------------------------------


def test_llama_questions_equal_the_same_prompts_alone(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    """Two questions about each of two texts, side by side, and one call beside them."""
    chooser._forget_all()
    cues = ("about", "urgent")
    questions = [*small.questions(STORY, cues), *small.questions(OTHER, cues)]
    found = run(chooser, [*questions, small.choice("I need cash", "full")])
    for chosen, question in zip(found[:-1], questions, strict=True):
        check(chosen, oracle(question)["constrained"], CROWD)
    whole = one(chooser, alone(questions[1]))
    np.testing.assert_allclose(found[1].probabilities, whole.probabilities, atol=CROWD)
    check(found[-1], oracle(small.choice("I need cash"))["full"], CROWD)


def test_llama_questions_in_an_empty_context_equal_the_oracle(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    chooser._forget_all()
    question = small.questions(OTHER)[0]
    check(one(chooser, question), oracle(question)["constrained"], TOLERANCE)


def test_llama_questions_do_not_see_each_other(chooser: Chooser, small: Prompts) -> None:
    """What is asked beside makes no difference, as long as it has as many tokens."""
    found = []
    for other in ("urgent", "angry"):
        chooser._forget_all()
        found.append(run(chooser, small.questions(STORY, ["about", other]))[0].probabilities)
    np.testing.assert_array_equal(found[0], found[1])


def test_llama_questions_read_the_text_once(chooser: Chooser, small: Prompts) -> None:
    chooser._forget_all()
    questions = small.questions(STORY)
    found = run(chooser, questions)
    read = [chosen.decoded_tokens for chosen in found]
    text = questions[0].common
    options = sum(map(len, small.options)) + len(small.options)
    assert text + own_tokens(questions[0]) <= read[0] <= text + own_tokens(questions[0]) + options
    for chosen, question in zip(found[1:], questions[1:], strict=True):
        own = own_tokens(question)
        assert own <= chosen.decoded_tokens <= own + options
    # What is kept, not what goes with the text, is what another text gets for nothing.
    assert [chosen.cached_tokens for chosen in found] == [0, small.shared, small.shared]
    again = run(chooser, small.questions(OTHER))
    assert [chosen.cached_tokens for chosen in again] == [small.shared] * 3


def test_llama_questions_small_steps_change_nothing(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    questions = small.questions(STORY)
    for chosen, question in zip(run(chooser, questions, max_tokens=32), questions, strict=True):
        check(chosen, oracle(question)["constrained"])


def test_llama_questions_behind_nothing_that_is_kept(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    chooser._forget_all()
    questions = [replace(question, shared=0) for question in small.questions(STORY)]
    for chosen, question in zip(run(chooser, questions), questions, strict=True):
        check(chosen, oracle(question)["constrained"])
        assert chosen.cached_tokens == 0
    assert not chooser._prefixes._kept.taken


def test_llama_questions_unpruned_leave_nothing_open(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    choice = small.choice(STORY, is_pruned=False)
    chosen = one(chooser, choice)
    check(chosen, oracle(choice)["constrained"])
    assert chosen.pruned == 0


# -- what a text leaves ----------------------------------------------------------------------


def test_llama_questions_text_goes_with_its_last_question(chooser: Chooser, small: Prompts) -> None:
    chooser._forget_all()
    first, second, third = small.questions(STORY)
    chooser.start(0, first)
    chooser.start(1, second)
    while len(chooser._live) == 2:
        step(chooser)
    finish(chooser)
    # The next question may be about to start: it finds the text as it was.
    assert len(sequences(chooser)) == 2
    chooser.start(2, third)
    (chosen,) = finish(chooser)
    assert chosen.decoded_tokens < third.common
    # A step about something else is the end of it.
    one(chooser, small.choice(OTHER))
    assert len(sequences(chooser)) == 1


def test_llama_questions_start_of_another_text_makes_an_unused_one_go(
    chooser: Chooser, small: Prompts
) -> None:
    run(chooser, small.questions(STORY))
    chooser.start(0, small.questions(OTHER)[0])
    assert len(chooser._prefixes._texts.taken) == 1
    assert len(finish(chooser)) == 1


def test_llama_questions_more_than_places_go_in_turns(chooser: Chooser, small: Prompts) -> None:
    """As the scheduler hands them over: 32 questions, and the text is read once."""
    chooser._forget_all()
    questions = small.questions(STORY, [f"number {number}" for number in range(2 * CHOICES)])
    found = run(chooser, questions)
    reading = [chosen for chosen in found if chosen.decoded_tokens > questions[0].common]
    assert len(reading) == 1


def test_llama_questions_more_texts_than_places_wait(chooser: Chooser, small: Prompts) -> None:
    asked = [small.questions(f"Number {number}", ["about"])[0] for number in range(TEXTS + 1)]
    for number, question in enumerate(asked[:TEXTS]):
        chooser.start(number, question)
    assert not chooser.has_room(asked[TEXTS])
    with pytest.raises(EngineError, match="no room"):
        chooser.start(99, asked[TEXTS])
    # Another question about a text that is there, and a text that shares nothing, need no place.
    assert chooser.has_room(small.questions("Number 0", ["angry"])[0])
    assert chooser.has_room(small.choice(OTHER))
    assert len(finish(chooser)) == TEXTS
    assert len(run(chooser, asked)) == TEXTS + 1


def test_llama_questions_stopped_half_way_leave_the_others_unharmed(
    chooser: Chooser, small: Prompts, oracle: Oracle
) -> None:
    """The one that reads for all is dropped after each number of steps."""
    questions = small.questions(STORY)
    right = oracle(questions[1])["constrained"]
    for steps in (0, 1, 2, 3):
        if steps % 2:
            chooser._forget_all()
        for number, question in enumerate(questions):
            chooser.start(number, question)
        found: list[Chosen] = []
        for _ in range(steps):
            found += step(chooser, max_tokens=32)
        chooser.stop(0)
        found += finish(chooser)
        check(next(chosen for chosen in found if chosen.number == 1), right)
        check_nothing_is_left(chooser)


def test_llama_questions_failed_batch_forgets_texts(
    chooser: Chooser, small: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = small.questions(STORY)
    for number, question in enumerate(questions):
        chooser.start(number, question)
    step(chooser)
    with monkeypatch.context() as patch:
        patch.setattr(chooser, "_decode", lambda *_: 2)
        failed = chooser.step(max_tokens=64, threads=2)
    assert [chosen.number for chosen in failed] == [0, 1, 2]
    assert sequences(chooser) == []
    assert len(run(chooser, questions)) == 3


# -- cells -----------------------------------------------------------------------------------


def filled(length: int, start: int) -> IntArray:
    return (start + np.arange(length) % 7).astype(np.int32)


def test_llama_questions_count_cells_of_a_text_once(
    choice_engine: LlamaEngine, small: Prompts
) -> None:
    options = small.options
    chooser = Chooser(
        choice_engine._lib,
        choice_engine._model,
        cells=256,
        end=choice_engine._vocabulary.end_id,
        vocabulary_size=choice_engine._vocabulary.size,
        threads=2,
        adapters={},
    )

    def question(text: int, cue: int, *, start: int = 100) -> Choice:
        prompt = np.concatenate([filled(100, 50), filled(text, start), filled(10, cue)])
        return Choice(prompt, 100, options, common=100 + text)

    try:
        # 100 kept, the text, and for each question ten tokens and its options.
        each = 10 + option_cells(options)
        text = 256 - 100 - 4 * each
        asked = [question(text, cue) for cue in (200, 300, 400, 500)]
        for number, choice in enumerate(asked):
            assert chooser.has_room(choice)
            chooser.start(number, choice)
        assert not chooser.has_room(question(text, 600))
        assert not chooser.has_room(question(1, 200, start=700))
        assert len(finish(chooser)) == 4
        # Not in use any more, the text is in nobody's way.
        assert chooser.has_room(question(text, 200, start=700))
        assert len(run(chooser, [question(text, cue, start=700) for cue in (200, 300)])) == 2
        # Nor is what is kept.
        whole = Choice(filled(256 - option_cells(options), 90), 0, options)
        assert chooser.has_room(whole)
        assert len(run(chooser, [whole, asked[0]])) == 2
        check_nothing_is_left(chooser)
    finally:
        chooser.close()


@pytest.mark.parametrize("common", [-1, 1, 5, 10, 11])
def test_llama_questions_refuse_what_cannot_be_common(
    chooser: Chooser, small: Prompts, common: int
) -> None:
    with pytest.raises(EngineError, match="more common tokens than the 5 that are shared"):
        chooser.start(0, Choice(filled(10, 100), 5, small.options, common=common))


def test_llama_questions_rounds_of_all_kinds_leave_nothing(
    chooser: Chooser, small: Prompts
) -> None:
    rng = np.random.default_rng(7)

    def question(text: int, cue: int, shared: int) -> Choice:
        parts = (filled(shared, 50 + shared), filled(6, text), filled(2, cue))
        return Choice(np.concatenate(parts), shared, small.options, common=shared + 6)

    choices: Sequence[Any] = [
        question(text, cue, shared)
        for text in (100, 200, 300)
        for cue in (400, 500)
        for shared in (0, 5, 8)
    ]
    for _ in range(15):
        for number in range(int(rng.integers(1, 4))):
            choice = choices[rng.integers(len(choices))]
            if chooser.has_room(choice):
                chooser.start(number, choice)
        if rng.random() < 0.4:
            step(chooser)
            chooser.stop(0)
        if rng.random() < 0.7:
            finish(chooser)
        for number in list(chooser._live):
            chooser.stop(number)
        if rng.random() < 0.5:
            check_nothing_is_left(chooser)
