from __future__ import annotations

import re
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _array, reference

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

# The ways in which tokenizers cut: pieces of words, a leading space, all of the text, characters.
TOKENIZERS = {
    "words": re.compile(r"\w+|[^\w\s]"),
    "pieces": re.compile(r"\w{1,3}|[^\w\s]"),
    "spaced pieces": re.compile(r" ?\w{1,4}|[^\w\s]|\s"),
    "everything": re.compile(r"\s*\w{1,4}|\s*[^\w\s]|\s+", re.DOTALL),
    "characters": re.compile(r".", re.DOTALL),
}
PROSE = (
    'The ferry leaves at 9.30 a.m. Be early! "Why?" she asked. (It fills up.) Tickets: 4.50 each…'
    " No card; cash only.\n\nA second paragraph, which has one rather long sentence that goes on"
    " and on without any end in sight for quite a while\r\n\r\nThird:"
    " Donaudampfschifffahrtsgesellschaft.\n漢字かな交じり文です。「次の文！」と言った。"
    "終わり？はい、Pythonで書く。\n„Ja.“ Und «nein!» Fin."
)


def tokens_of(text: str, tokenizer: str = "words") -> I32:
    spans = [found.span() for found in TOKENIZERS[tokenizer].finditer(text)]
    return np.array(spans, dtype=np.int32).reshape(-1, 2)


def chunk(text: Any, spans: Any, max_tokens: Any, overlap_tokens: Any) -> tuple[I64, I32]:
    got, expected = agree(
        lambda: _array.chunk(text, spans, max_tokens, overlap_tokens),
        lambda: reference.chunk(text, spans, max_tokens, overlap_tokens),
    )
    for one, other, dtype in zip(got, expected, (np.int64, np.int32), strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.flags.c_contiguous
        assert one.flags.writeable
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    return expected


def pieces(text: str, max_tokens: int, overlap_tokens: int = 0, by: str = "words") -> list[str]:
    _, characters = chunk(text, tokens_of(text, by), max_tokens, overlap_tokens)
    return [text[start:end] for start, end in characters]


def check(text: str, spans: I32, max_tokens: int, overlap_tokens: int) -> None:
    """Hold the windows against what is promised of any."""
    tokens, characters = chunk(text, spans, max_tokens, overlap_tokens)
    count = len(spans)
    assert [*tokens[:, 0][:1], *tokens[:, 1][-1:]] == ([0, count] if count else [])
    sizes = tokens[:, 1] - tokens[:, 0]
    assert ((sizes >= 1) & (sizes <= max_tokens)).all()
    assert (np.diff(tokens, axis=0) > 0).all()
    shared = tokens[:-1, 1] - tokens[1:, 0]
    assert ((shared >= 0) & (shared <= overlap_tokens)).all()
    np.testing.assert_array_equal(characters[:, 0], spans[tokens[:, 0], 0])
    np.testing.assert_array_equal(characters[:, 1], spans[tokens[:, 1] - 1, 1])


def inside_word(text: str, spans: I32, token: int) -> bool:
    """Whether two word characters of no script without spaces touch in front of a token."""
    if not 0 < token < len(spans):
        return False
    before, at = spans[token - 1, 1], spans[token, 0]
    return before == at and re.fullmatch(r"[a-zA-Z]{2}", text[before - 1 : at + 1]) is not None


def test_chunk_ends_windows_with_a_sentence() -> None:
    text = "One two three. Four five! Six seven? Eight nine ten eleven twelve."
    assert pieces(text, 8) == [
        "One two three. Four five!",
        "Six seven? Eight nine ten eleven",
        "twelve.",
    ]
    assert pieces(text, 9) == [
        "One two three. Four five!",
        "Six seven? Eight nine ten eleven twelve.",
    ]


def test_chunk_leaves_a_short_text_whole() -> None:
    text = "One. Two. Three."
    for max_tokens in (6, 7, 2**31 - 1):
        assert pieces(text, max_tokens, max_tokens - 1) == [text]


def test_chunk_wants_the_sentence_in_the_second_half() -> None:
    text = "a b c. d e f g h i j k l m n"
    assert pieces(text, 8)[0] == "a b c. d e f g"  # ends at 4, not beyond 8 // 2
    assert pieces(text, 7)[0] == "a b c."


def test_chunk_ends_with_a_word_where_no_sentence_ends() -> None:
    text = "abcabc defdef ghighi jkljkl"
    assert pieces(text, 5, by="pieces") == ["abcabc defdef", "ghighi jkljkl"]
    assert pieces(text, 3, by="pieces") == text.split()


def test_chunk_splits_a_word_that_is_too_long_only() -> None:
    text = "ab abcdefghijklmn cd"
    assert pieces(text, 3, by="pieces") == ["ab", "abcdefghi", "jklmn cd"]
    assert pieces(text, 3, 1, by="pieces") == ["ab", "abcdefghi", "ghijklmn", "cd"]


def test_chunk_shares_whole_words() -> None:
    text = "abcabc defdef ghighi jkljkl mnomno"
    assert pieces(text, 6, 2, by="pieces") == [
        "abcabc defdef ghighi",
        "ghighi jkljkl mnomno",
    ]
    assert pieces(text, 6, 3, by="pieces") == [
        "abcabc defdef ghighi",
        "ghighi jkljkl mnomno",
    ]
    assert pieces(text, 6, 1, by="pieces") == ["abcabc defdef ghighi", "jkljkl mnomno"]


def test_chunk_shares_less_where_the_next_word_would_not_fit() -> None:
    text = "a b c d efghijklmnop q"
    assert pieces(text, 5, 4, by="pieces") == ["a b c d", "d efghijklmnop", "efghijklmnop q"]


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("Yes. No", "N"),
        ("Yes! No", "N"),
        ("Yes? No", "N"),
        ("Yes… No", "N"),
        ('"Yes." No', "N"),
        ("(Yes.)\tNo", "N"),
        ("„Ja.“ No", "N"),
        ("«Oui!» No", "N"),
        ("Yes?! No", "N"),
        ("Yes\n\nNo", "N"),
        ("Yes\r\n\r\nNo", "N"),
        ("Yes \r \r No", "N"),
        ("Yes\n \t\nNo", "N"),
        ("Yes\u2003.\u3000No", "N"),
        ("字。次", "次"),
        ("字！次", "次"),
        ("字？」次", "次"),
        ("字。「次", "「"),
        ("字。”“次", "“"),
        ("字。 次", "次"),
        ("字！？次", "次"),
        ("字．No", "N"),
        ("Yes No", ""),
        ("Yes\nNo", ""),
        ("Yes\r\nNo", ""),
        ("3.14", ""),
        ("Yes.No", ""),
        ("Yes, No", ""),
        ("Yes. ) No", ")"),
        ("Yes …No", ""),
        ("字，次", ""),
    ],
)
@pytest.mark.parametrize("by", ["words", "characters"])
def test_chunk_knows_where_a_sentence_begins(text: str, begins: str, by: str) -> None:
    padded = "x " * 20 + text + " x" * 40
    spans = tokens_of(padded, by)
    first = [padded[start] for start, _ in spans]
    beyond = len(spans) - next(i for i, c in enumerate(reversed(first)) if c not in " x")
    for max_tokens in range(beyond, 2 * first.index(text[0])):
        end = first.index(begins) if begins else max_tokens
        assert chunk(padded, spans, max_tokens, 0)[0][0, 1] == end


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("漢字漢字", ["漢字漢", "字"]),
        ("漢字、漢字", ["漢字、", "漢字"]),
        ("漢字漢、字", ["漢字", "漢、字"]),
        ("漢字（漢字", ["漢字", "（漢字"]),
        ("漢abc", ["漢", "abc"]),
        ("ab漢c", ["ab漢", "c"]),
        ("a-bcd", ["a-b", "cd"]),
        ("ab cd", ["ab", "cd"]),
        ("カナー字", ["カナー", "字"]),
        ("漢カナー", ["漢カ", "ナー"]),
    ],
)
def test_chunk_knows_where_a_word_begins(text: str, windows: list[str]) -> None:
    assert [piece.strip() for piece in pieces(text, 3, by="characters")] == windows


# Where the first window ends says what the character in the middle is.
@pytest.mark.parametrize(
    ("before", "after", "max_tokens"),
    [
        (" 漢", "", 2),  # whether a word begins before it
        (" a", "", 2),
        (" ", "漢", 2),  # or behind it
        (" ", "a", 2),
        ("。", "x", 2),  # whether it closes after a wide end
        (".", " x y", 5),  # or after another one
        ("a", " x y", 5),  # whether it ends a sentence
        (".", "x yz", 3),  # whether it is white space
        ("a\n", "\nb cd", 5),
    ],
)
def test_chunk_classifies_characters_alike(before: str, after: str, max_tokens: int) -> None:
    edges = [0x1680, 0x1AFF0, 0x1B16F, 0x1F41F, 0x20000, 0x3FFFF, 0xFEFF, 0x10FFFE]
    edges += [0x3400, 0x4DBF, 0x4E00, 0x9FFF, 0xAC00, 0xD800, 0xDFFF, 0xF900, 0xFAFF]
    points = [*range(0x300), *range(0x2000, 0x2070), *range(0x2E70, 0x3210), *range(0xFF00, 0xFFF0)]
    for point in points + [edge + i for edge in edges for i in (-1, 0, 1)]:
        text = before + chr(point) + after
        chunk(text, tokens_of(text, "characters"), max_tokens, 0)


def test_chunk_takes_every_character_of_the_basic_plane() -> None:
    text = "".join(f"aa{chr(point)}" for point in range(0x10000))
    check(text, tokens_of(text, "characters"), 4, 0)


@pytest.mark.parametrize("by", TOKENIZERS)
def test_chunk_keeps_its_promises_on_prose(by: str) -> None:
    spans = tokens_of(PROSE, by)
    for max_tokens in (1, 2, 3, 5, 8, 13, 21, 34, 55, len(spans) - 1, len(spans)):
        for overlap_tokens in {0, 1, max_tokens // 4, max_tokens - 1}:
            if overlap_tokens < max_tokens:
                check(PROSE, spans, max_tokens, overlap_tokens)
                tokens, _ = chunk(PROSE, spans, max_tokens, overlap_tokens)
                if max_tokens >= 13 and by != "characters":
                    assert not any(inside_word(PROSE, spans, token) for token in tokens.flat)


@given(
    text=st.text("ab .!?\n\r\"')]」“。！…漢ア、「\u00e9🐟", max_size=60),
    by=st.sampled_from([*TOKENIZERS]),
    max_tokens=st.integers(1, 20),
    overlap=st.floats(0, 0.999),
)
def test_chunk_property(text: str, by: str, max_tokens: int, overlap: float) -> None:
    check(text, tokens_of(text, by), max_tokens, int(overlap * max_tokens))


@given(
    text=st.text("ab. \n。漢", max_size=20),
    edges=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30),
    max_tokens=st.integers(1, 9),
    overlap=st.floats(0, 0.999),
)
def test_chunk_property_of_any_ascending_spans(
    text: str, edges: list[tuple[int, int]], max_tokens: int, overlap: float
) -> None:
    starts = sorted(min(start, len(text)) for start, _ in edges)
    ends = sorted(min(end, len(text)) for _, end in edges)
    spans = [(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]
    ascending = np.array(spans, dtype=np.int32).reshape(-1, 2)
    check(text, ascending, max_tokens, int(overlap * max_tokens))


@pytest.mark.parametrize(
    "text",
    ["漢字です。" * 2000, "a" * 10_000, ")" * 10_000, "." * 10_000, " \n" * 5_000, "a. " * 3333],
    ids=["ideographs", "one word", "closing", "ends", "space", "sentences"],
)
def test_chunk_takes_long_monotonous_texts(text: str) -> None:
    spans = tokens_of(text, "characters")
    for max_tokens, overlap_tokens in [(1, 0), (64, 0), (64, 16), (5000, 4999)]:
        check(text, spans, max_tokens, overlap_tokens)


@pytest.mark.timeout(60)
def test_chunk_takes_a_megabyte_of_anything() -> None:
    for unit in ("漢字です。", "a", ")", ".", " \n", "ordinary words here. "):
        text = unit * (2**20 // len(unit))
        places = np.arange(len(text), dtype=np.int32)
        spans = np.stack([places, places + 1], axis=1)
        tokens, _ = _array.chunk(text, spans, 512, 128)
        assert tokens[-1, 1] == len(text)


def test_chunk_takes_no_tokens() -> None:
    for text in ("", "   "):
        tokens, characters = chunk(text, tokens_of(text), 5, 1)
        assert tokens.shape == characters.shape == (0, 2)


def test_chunk_takes_lone_surrogates_and_every_width_of_text() -> None:
    for mark in ("a", "é", "漢", "\ud83d", "🐟"):
        text = f"one {mark} two. three {mark} four."
        assert pieces(text, 6)[0].endswith("two.")


def test_chunk_leaves_its_input_alone() -> None:
    spans = tokens_of(PROSE)
    before = spans.copy()
    spans.flags.writeable = False
    tokens, characters = chunk(PROSE, spans, 8, 2)
    tokens += 1
    characters += 1
    np.testing.assert_array_equal(spans, before)


TEXT = "ab cd"
NOT_BEFORE = "spans[1]: expected a start and an end not before those of the span ahead,"
SPANS = np.array([[0, 2], [3, 5]], dtype=np.int32)


def spans_of(*pairs: tuple[int, int]) -> I32:
    return np.array(pairs, dtype=np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"ab cd", SPANS, 2, 0), "text: expected str, got bytes"),
        ((None, SPANS, 2, 0), "text: expected str, got NoneType"),
        ((TEXT, SPANS.tolist(), 2, 0), "spans: expected a numpy array, got list"),
        ((TEXT, SPANS.astype(np.int64), 2, 0), "spans: expected dtype int32, got int64"),
        ((TEXT, SPANS.astype(">i4"), 2, 0), "spans: expected dtype int32, got >i4"),
        ((TEXT, SPANS, 2.0, 0), "max_tokens: expected int, got float"),
        ((TEXT, SPANS, True, 0), "max_tokens: expected int, got bool"),
        ((TEXT, SPANS, 2, None), "overlap_tokens: expected int, got NoneType"),
        ((TEXT, SPANS, 2, np.int32(1)), "overlap_tokens: expected int, got int32"),
    ],
)
def test_chunk_refuses_another_type(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        chunk(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TEXT, SPANS[0], 2, 0), "spans: expected ndim 2, got 1"),
        ((TEXT, np.zeros((2, 3), np.int32), 2, 0), "spans: expected 2 columns, got 3"),
        ((TEXT, np.zeros((0, 0), np.int32), 2, 0), "spans: expected 2 columns, got 0"),
        (
            (TEXT, np.zeros((2, 4), np.int32)[:, ::2], 2, 0),
            "spans: expected an aligned, C-contiguous array, got strides (16, 8)",
        ),
        (
            (TEXT, np.asfortranarray(SPANS), 2, 0),
            "spans: expected an aligned, C-contiguous array, got strides (4, 8)",
        ),
        (
            (TEXT, np.zeros(17, np.uint8)[1:].view(np.int32).reshape(2, 2), 2, 0),
            "spans: expected an aligned, C-contiguous array, got strides (8, 4)",
        ),
        ((TEXT, SPANS, 0, 0), "max_tokens: expected an int in [1, 2147483647], got 0"),
        (
            (TEXT, SPANS, 10**30, 0),
            f"max_tokens: expected an int in [1, 2147483647], got {10**30}",
        ),
        (
            (TEXT, SPANS, -(2**63) - 1, 0),
            f"max_tokens: expected an int in [1, 2147483647], got {-(2**63) - 1}",
        ),
        ((TEXT, SPANS, 2, 2), "overlap_tokens: expected an int in [0, 1], got 2"),
        ((TEXT, SPANS, 2, -1), "overlap_tokens: expected an int in [0, 1], got -1"),
        (
            (TEXT, spans_of((0, 2), (3, 6)), 2, 0),
            "spans[1]: expected 0 <= start <= end <= 5, got [3, 6]",
        ),
        (
            (TEXT, spans_of((-1, 2), (3, 5)), 2, 0),
            "spans[0]: expected 0 <= start <= end <= 5, got [-1, 2]",
        ),
        (
            (TEXT, spans_of((0, 2), (4, 3)), 2, 0),
            "spans[1]: expected 0 <= start <= end <= 5, got [4, 3]",
        ),
        (
            (TEXT, spans_of((0, 2**31 - 1)), 2, 0),
            "spans[0]: expected 0 <= start <= end <= 5, got [0, 2147483647]",
        ),
        (
            (TEXT, spans_of((3, 5), (0, 2)), 2, 0),
            f"{NOT_BEFORE} got [0, 2] after [3, 5]",
        ),
        (
            (TEXT, spans_of((0, 5), (1, 2)), 2, 0),
            f"{NOT_BEFORE} got [1, 2] after [0, 5]",
        ),
    ],
)
def test_chunk_refuses_another_value(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(text|spans|max_tokens|overlap_tokens)") as caught:
        chunk(*arguments)
    assert str(caught.value) == message


def test_chunk_releases_the_gil() -> None:
    text = "ordinary words here. " * 50_000
    spans = tokens_of(text)
    go, ran = threading.Event(), threading.Event()

    def run() -> None:
        go.wait()
        ran.set()

    other = threading.Thread(target=run)
    other.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(60)  # Until then the other thread runs only if `chunk` lets it.
    try:
        go.set()
        for _ in range(1000):
            _array.chunk(text, spans, 64, 16)
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval_s)
        other.join()
