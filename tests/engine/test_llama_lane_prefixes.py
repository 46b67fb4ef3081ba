"""Kept prefixes: the same answer as from the whole prompt, decoded once, given up in turn."""

from __future__ import annotations

import pytest
from llamas import STORIES, run, text_of, tokens

from sprat.engine.base import Progress, Start
from sprat.engine.llama import SPARE_PLACES, LlamaEngine
from sprat.engine.llama_lane_prefixes import LEAST_TOKENS
from sprat.errors import EngineError
from sprat.values import IntArray, Sampling

HEADS = [
    f"This is collection {number} of stories about fish, fishermen and the sea, told by the people "
    f"of the harbour in the year {year}. "
    for number, year in enumerate((1801, 1802, 1803, 1804))
]


def shared(engine: LlamaEngine, head: str) -> int:
    return len(tokens(engine, head)) - 1


def prompt(engine: LlamaEngine, story: int, head: str = HEADS[0]) -> IntArray:
    return tokens(engine, head + STORIES[story])


def ask(engine: LlamaEngine, story: int, head: str = HEADS[0], number: int = 0) -> None:
    ids = prompt(engine, story, head)
    engine.start(Start(number, ids, Sampling(max_tokens=8), shared=shared(engine, head)))


def answered(engine: LlamaEngine) -> dict[int, list[Progress]]:
    return run(engine)


def cached(progress: list[Progress]) -> int:
    return sum(p.cached for p in progress)


@pytest.fixture
def whole(exact: LlamaEngine) -> list[str]:
    """The answers without any sharing."""
    texts = []
    for story in range(4):
        exact.start(Start(0, prompt(exact, story), Sampling(max_tokens=8)))
        texts.append(text_of(run(exact)[0]))
    return texts


def test_prefix_gives_the_answer_of_the_whole_prompt(exact: LlamaEngine, whole: list[str]) -> None:
    for story in range(4):
        ask(exact, story)
        progress = answered(exact)[0]
        assert text_of(progress) == whole[story]
        assert cached(progress) in (0, shared(exact, HEADS[0]))
    assert cached(progress) == shared(exact, HEADS[0])


def test_prefix_is_decoded_once_for_those_that_come_together(
    exact: LlamaEngine, whole: list[str]
) -> None:
    head = HEADS[3]
    for story in range(4):
        ask(exact, story, head, number=story)
    seen = answered(exact)
    tokens_shared = shared(exact, head)
    assert sorted(cached(p) for p in seen.values()) == [0, *[tokens_shared] * 3]


def test_prefix_whose_maker_stops_is_made_by_who_waits(exact: LlamaEngine) -> None:
    head = HEADS[1]
    ask(exact, 0, head, number=0)
    ask(exact, 1, head, number=1)
    exact.step(max_tokens=8, threads=2)
    exact.stop(0)
    seen = answered(exact)
    assert seen.keys() == {1}
    assert seen[1][-1].finish_reason == "length"
    ask(exact, 2, head)
    assert cached(answered(exact)[0]) == shared(exact, head)


def test_prefix_that_was_not_used_for_longest_is_given_up(exact: LlamaEngine) -> None:
    assert SPARE_PLACES == 2
    for head in HEADS[:2]:
        ask(exact, 0, head)
        answered(exact)
    ask(exact, 1, HEADS[0])
    assert cached(answered(exact)[0]) > 0
    ask(exact, 0, HEADS[2])
    answered(exact)
    ask(exact, 2, HEADS[0])
    assert cached(answered(exact)[0]) > 0
    ask(exact, 1, HEADS[1])
    assert cached(answered(exact)[0]) == 0


def test_prefix_too_short_to_pay_is_not_kept(exact: LlamaEngine) -> None:
    ids = prompt(exact, 0, HEADS[2])
    for _ in range(2):
        exact.start(Start(0, ids, Sampling(max_tokens=2), shared=LEAST_TOKENS - 1))
        assert cached(run(exact)[0]) == 0


def test_prefix_survives_places_that_move(exact: LlamaEngine) -> None:
    answers = []
    for count in (0, shared(exact, HEADS[0])):
        for story in range(4):
            ids = prompt(exact, story)
            exact.start(Start(story, ids, Sampling(max_tokens=8), shared=count))
        first = exact.step(max_tokens=512, threads=2)
        exact.stop(0)  # who has the last place moves to the first
        seen = answered(exact)
        answers.append(
            [text_of([p for p in first if p.sequence == n] + seen[n]) for n in (1, 2, 3)]
        )
    assert answers[0] == answers[1]


def test_prefix_longer_than_the_prompt_is_refused(exact: LlamaEngine) -> None:
    ids = prompt(exact, 0)
    for count in (-1, len(ids)):
        with pytest.raises(EngineError, match=f"shared: expected 0 to {len(ids) - 1}, got {count}"):
            exact.start(Start(0, ids, Sampling(), shared=count))
