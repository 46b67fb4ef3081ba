"""Drafts from the prompt change nothing but the time: the same tokens, in fewer passes."""

from __future__ import annotations

import numpy as np
import pytest
from llamas import STORIES, run, text_of, tokens

from sprat.engine.base import Progress, Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_draft import LEAST_DRAFT, MOST_DRAFT, Drafter
from sprat.values import Grammar, Sampling

SAID = (
    "The old fisherman sold three eels and a herring to the widow who lives behind the church, "
    "and gave the change to her youngest son."
)
COPYING = f"Text: {SAID}\nThe same text: {SAID}\nThe same text: The old"


def answer(
    engine: LlamaEngine, prompt: str, *, lookup: bool, others: int = 0, **sampling: float
) -> list[Progress]:
    given = Sampling(**({"max_tokens": 40} | sampling))
    engine.start(Start(0, tokens(engine, prompt), given, lookup=lookup))
    for number in range(1, others + 1):
        engine.start(Start(number, tokens(engine, STORIES[number]), Sampling(max_tokens=9)))
    return run(engine)[0]


def total(progress: list[Progress], name: str) -> int:
    return sum(getattr(p, name) for p in progress)


def test_draft_copies_in_fewer_passes(exact: LlamaEngine) -> None:
    plain = answer(exact, COPYING, lookup=False)
    drafted = answer(exact, COPYING, lookup=True)
    assert text_of(drafted) == text_of(plain)
    assert text_of(drafted).startswith(SAID.removeprefix("The old")[:60])
    assert len(plain) == 40
    assert len(drafted) <= 15
    assert total(drafted, "accepted") >= 20
    assert total(drafted, "tokens") == 40
    assert total(plain, "drafted") == 0


@pytest.mark.parametrize("story", range(4))
def test_draft_never_changes_a_greedy_answer(exact: LlamaEngine, story: int) -> None:
    prompt = f"{STORIES[story]} {STORIES[story][:40]}"
    plain = answer(exact, prompt, lookup=False)
    drafted = answer(exact, prompt, lookup=True)
    assert text_of(drafted) == text_of(plain)
    assert total(drafted, "tokens") == total(plain, "tokens")


def test_draft_never_changes_a_sampled_answer(exact: LlamaEngine) -> None:
    for seed in range(3):
        # Few tokens: a lone one is computed by kernels that round otherwise, and coins are strict.
        sampling = {"temperature": 0.2, "seed": seed, "repeat_penalty": 1.1, "max_tokens": 12}
        plain = answer(exact, COPYING, lookup=False, **sampling)
        drafted = answer(exact, COPYING, lookup=True, **sampling)
        assert text_of(drafted) == text_of(plain)
    assert total(drafted, "drafted") > 0


@pytest.mark.parametrize("most", range(1, 8))
def test_draft_ends_where_the_answer_must(exact: LlamaEngine, most: int) -> None:
    progress = answer(exact, COPYING, lookup=True, max_tokens=most)
    assert total(progress, "tokens") == most
    assert progress[-1].finish_reason == "length"


def test_draft_ends_at_a_stop_string(exact: LlamaEngine) -> None:
    start = Start(0, tokens(exact, COPYING), Sampling(max_tokens=40, stop=("widow",)), lookup=True)
    exact.start(start)
    progress = run(exact)[0]
    assert text_of(progress) == " fisherman sold three eels and a herring to the "
    assert progress[-1].finish_reason == "stop"


def test_draft_goes_with_a_grammar(exact: LlamaEngine) -> None:
    grammar = exact.compile(Grammar("regex", "[ a-z]{1,60}"))
    texts = []
    for lookup in (False, True):
        ids = tokens(exact, COPYING)
        exact.start(Start(0, ids, Sampling(max_tokens=40), grammar=grammar, lookup=lookup))
        progress = run(exact)[0]
        texts.append(text_of(progress))
    assert texts[0] == texts[1]
    assert total(progress, "accepted") > 0


def test_draft_is_for_those_that_are_alone(exact: LlamaEngine) -> None:
    progress = answer(exact, COPYING, lookup=True, others=2)
    alone = [p for p in progress if p.drafted]
    # The others end after 9 tokens; until then nothing is guessed.
    assert not any(p.drafted for p in progress[:8])
    assert alone


# -- the drafter -----------------------------------------------------------------------------


def drafter(*ids: int) -> Drafter:
    return Drafter(np.array(ids, np.int32))


def test_drafter_guesses_what_followed_before() -> None:
    made = drafter(1, 2, 3, 4, 5, 6, 7, 1, 2, 3)
    assert made.draft(100) == [4, 5, 6, 7, 1, 2, 3]
    assert made.draft(2) == [4, 5]
    assert made.draft(0) == []
    made.append([9])
    assert made.draft(100) == []


def test_drafter_grows_while_it_is_right() -> None:
    made = drafter(*range(100), 0, 1, 2)
    lengths = []
    for _ in range(4):
        guessed = made.draft(100)
        lengths.append(len(guessed))
        made.judge(len(guessed), len(guessed))
    assert lengths == [LEAST_DRAFT, 16, MOST_DRAFT, MOST_DRAFT]


def test_drafter_pauses_longer_and_longer_when_it_is_wrong() -> None:
    made = drafter(*[1, 2, 3, 4] * 40)
    pauses = []
    for _ in range(4):
        while guessed := made.draft(8):
            made.judge(len(guessed), 0)
        waited = 0
        while not made.draft(8):
            made.append([1 + waited % 4])
            waited += 1
        pauses.append(waited)
    assert pauses == sorted(pauses)
    assert pauses[0] >= 8
    assert pauses[-1] > pauses[0]
