"""What counts as said before."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.train.novelty import SHINGLE, Novelty

FIRST = "Where is the parcel that I ordered last week?"


@pytest.mark.parametrize(
    "text",
    [
        FIRST,
        FIRST.upper(),
        "  Where is the parcel,\nthat I ordered last week!!",
        "Where is the parcel that I ordered last weeks?",
        "where is that parcel that i ordered last week",
        "Where is the parcel that I ordered last \uff57eek?",
    ],
)
def test_novelty_sees_repeats_and_near_repeats(text: str) -> None:
    novelty = Novelty()
    assert novelty.add(FIRST)
    assert not novelty.add(text)


@pytest.mark.parametrize(
    "text",
    [
        "Where is the invoice that I asked for yesterday?",
        "I ordered a parcel last week and it did not come.",
        "Where is it?",
        "???",
    ],
)
def test_novelty_lets_other_texts_in(text: str) -> None:
    novelty = Novelty()
    assert novelty.add(FIRST)
    assert novelty.add(text)
    assert not novelty.add(text)


@pytest.mark.parametrize("text", ["", "a", "?", "é", "日本"])
def test_novelty_takes_texts_shorter_than_a_shingle(text: str) -> None:
    novelty = Novelty()
    assert novelty.add(text)
    assert not novelty.add(text)


def test_novelty_forgets_what_it_refused() -> None:
    """Else a chain of small changes would shut texts out that are far from all that are in."""
    novelty = Novelty()
    novelty.add("aaaa bbbb cccc dddd eeee ffff gggg hhhh")
    assert not novelty.add("aaaa bbbb cccc dddd eeee ffff gggg xxxx")
    assert novelty.add("aaaa bbbb cccc dddd yyyy zzzz wwww xxxx")


def resemblance(one: str, other: str) -> float:
    first, second = (
        {t[i : i + SHINGLE] for i in range(max(1, len(t) - SHINGLE + 1))} for t in (one, other)
    )
    return len(first & second) / len(first | second)


@given(st.lists(st.text("abc ", min_size=1).map(lambda t: " ".join(t.split()) or "a"), max_size=12))
def test_novelty_agrees_with_comparing_all_pairs(texts: list[str]) -> None:
    novelty = Novelty(0.6)
    taken: list[str] = []
    for text in texts:
        expected = all(resemblance(text, other) < 0.6 for other in taken)
        assert novelty.add(text) == expected
        if expected:
            taken.append(text)


def test_novelty_is_fast_enough_for_thousands() -> None:
    words = ["".join(pair) for pair in itertools.product("bcdfgklmnprst", "aeiou")]
    draw = random.Random(0)
    novelty = Novelty()
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(1500)]
    assert sum(map(novelty.add, texts)) > 1400
