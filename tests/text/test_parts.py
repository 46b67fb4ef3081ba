"""Cutting long texts: parts that fit, overlap, and leave nothing out, whatever tokens look like."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.text.parts import TokenParts, cut, cut_tokens


def words(text: str) -> list[str]:
    """Tokens as byte-level BPE makes them: white space belongs to the word behind it."""
    return re.findall(r"\s*\S+|\s+$", text)


SENTENCES = " ".join(f"This is sentence number {n}." for n in range(40))


def test_parts_end_with_sentences_and_overlap() -> None:
    parts = cut(SENTENCES, words(SENTENCES), 20, 5)
    assert parts[0][0] == 0
    assert parts[-1][1] == len(SENTENCES)
    for start, end in parts:
        assert SENTENCES[start:end].endswith(".")
        assert len(words(SENTENCES[start:end])) <= 20
    for (_, end), (start, _) in pairwise(parts):
        assert start < end


def test_parts_of_a_short_text_are_itself() -> None:
    assert cut("So it is.", words("So it is."), 20, 5) == [(0, 9)]


@pytest.mark.parametrize(
    "tokens",
    [
        ["", " It", " rains", ".", " We", " stay", "."],  # a begin token, a space put in front
        ["It", "\ufffd", "\ufffd", "ains", ".", " We", "\ufffd", "."],
        ["\ufffd"] * 12,
        ["<s>", "It", " rains", ".", "<unknown>", "."],
    ],
)
def test_parts_cover_the_text_whatever_the_tokens_are(tokens: list[str]) -> None:
    text = "It rains. We stay."
    parts = cut(text, tokens, 4, 1)
    assert covered(text, parts)
    assert len(parts) > 1


def covered(text: str, parts: list[tuple[int, int]]) -> bool:
    """Whether no visible character is left out."""
    inside = {i for start, end in parts for i in range(start, end)}
    return all(i in inside for i, letter in enumerate(text) if not letter.isspace())


def test_parts_of_a_script_without_spaces() -> None:
    text = "我们明天晚上七点要一张四人桌。" * 20
    tokens = ["\ufffd", "\ufffd"] * len(text)
    parts = cut(text, tokens, 60, 10)
    assert covered(text, parts)
    assert all(end - start <= 31 for start, end in parts)


@given(
    st.text(alphabet="ab .\nß😀", min_size=1, max_size=60),
    st.lists(st.sampled_from(["a", "b", " a", "ab", ".", "\ufffd", "", "zz"]), min_size=1),
    st.integers(1, 12),
)
def test_parts_ascend_within_the_text(text: str, tokens: list[str], room: int) -> None:
    parts = cut(text, tokens, room, room // 2)
    assert all(0 <= start <= end <= len(text) for start, end in parts)
    assert parts == sorted(parts)


def test_parts_cut_tokens_are_those_of_the_same_parts() -> None:
    spans = np.array([match.span() for match in re.finditer(r"\w+|\.", SENTENCES)], np.int32)
    found = cut_tokens(SENTENCES, spans, 20, 5)
    assert found[0][0] == 0
    assert found[-1][1] == len(spans)
    for start, end in found:
        assert 0 < end - start <= 20
        assert SENTENCES[spans[start, 0] : spans[end - 1, 1]].endswith(".")
    for (_, end), (start, _) in pairwise(found):
        assert end - 5 <= start <= end
    # A view of every other row, as of spans without special tokens.
    assert cut_tokens(SENTENCES, np.repeat(spans, 2, axis=0)[::2], 20, 5) == found


@pytest.mark.parametrize(("limit", "parts"), [(22, 20), (1000, 1)])
def test_parts_of_tokens_join_to_every_token_once(limit: int, parts: int) -> None:
    places = [(0, 0), *(match.span() for match in re.finditer(r"\w+|\.", SENTENCES)), (0, 0)]
    ids = np.arange(len(places), dtype=np.int32)
    read = TokenParts.of(SENTENCES, ids, np.array(places, np.int32), limit)
    assert len(read.parts) == parts
    for row, (start, end), (low, high) in zip(read.rows, read.parts, read.kept, strict=True):
        assert (row[0], row[-1]) == (ids[0], ids[-1])
        assert len(row) <= limit
        assert start <= low < high <= end
    joined = read.join([row[:, None].astype(np.float32) for row in read.rows])
    assert joined.chunks == parts
    np.testing.assert_array_equal(joined.ids, ids[1:-1])
    np.testing.assert_array_equal(joined.states[:, 0], ids[1:-1])
