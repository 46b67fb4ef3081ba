"""Windows of long texts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.text.windows import windows


def test_windows_of_a_short_text_are_the_text() -> None:
    assert windows("It rains.", 9, 3) == [(0, 9)]


def test_windows_end_with_sentences_and_words() -> None:
    text = "It rains. We stay in. They do not."
    assert [text[a:b].strip() for a, b in windows(text, 24, 10)] == [
        "It rains. We stay in.",
        "stay in. They do not.",
    ]


@given(
    st.text(st.sampled_from("ab .。\n\u200b日"), min_size=1, max_size=300),
    st.integers(1, 40),
    st.integers(0, 39),
)
def test_windows_cover_every_character(text: str, room: int, overlap: int) -> None:
    overlap = min(overlap, room - 1)
    found = windows(text, room, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    for start, end in found:
        assert 0 < end - start <= room
    for (_, end), (start, following) in itertools.pairwise(found):
        assert end - overlap <= start <= end < following


@pytest.mark.parametrize(("room", "overlap"), [(0, 0), (4, 4), (4, -1)])
def test_windows_refuse_numbers_that_lead_nowhere(room: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"max_tokens|overlap"):
        windows("some words", room, overlap)
