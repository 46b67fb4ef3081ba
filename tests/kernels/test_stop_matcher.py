from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _text, reference

# One, two, three and four bytes of UTF-8, a neighbour of each in its last byte, a lone surrogate.
ALPHABET = "abéè√∛🐟🐠\ud83d"
OVERLAPPING = [
    ["aab"],
    ["xaby", "ab"],
    ["ab", "xab"],
    ["a", "aa", "aaa"],
    ["aaab", "aab", "b!"],
    ["abcd", "bcd", "cd", "d"],
    ["abcabd", "cabc", "bca"],
    ["<|end|>", "<|e", "\n\nUser:", "\n\n"],
    ["🐟🐠", "🐠é", "éé"],
    ["twice", "twice"],
]


class EveryStopMatcher:
    """`StopMatcher` of every implementation, fed alike."""

    def __init__(self, stop: Any) -> None:
        self._native, self._specified = agree(
            lambda: _text.StopMatcher(stop), lambda: reference.StopMatcher(stop)
        )

    def feed(self, text: Any) -> str:
        got, expected = agree(lambda: self._native.feed(text), lambda: self._specified.feed(text))
        assert (got, self._native.matched) == (expected, self.matched)
        return expected

    def flush(self) -> str:
        got, expected = self._native.flush(), self._specified.flush()
        assert (got, self._native.matched) == (expected, self.matched)
        return expected

    @property
    def matched(self) -> str | None:
        assert self._native.stopped is self._specified.stopped
        assert (self._specified.matched is not None) is self._specified.stopped
        return self._specified.matched


def match(stop: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = EveryStopMatcher(stop)
    return "".join([*map(matcher.feed, pieces), matcher.flush()]), matcher.matched


def expected(stop: list[str], text: str) -> tuple[str, str | None]:
    """What the words of the docstring say, one character at a time."""
    for end in range(1, len(text) + 1):
        ended = [s for s in stop if text[:end].endswith(s)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def every_cut(text: str) -> Iterator[list[str]]:
    """Yield `text` cut at every subset of its inner positions."""
    inner = range(1, len(text))
    for count in range(max(1, len(text))):
        for cuts in itertools.combinations(inner, count):
            edges = [0, *cuts, len(text)]
            yield [text[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("stop", OVERLAPPING)
def test_stop_matcher_takes_every_pair_of_stop_strings_at_every_cut(stop: list[str]) -> None:
    for first, second in itertools.product(stop, repeat=2):
        text = first[:-1] + second
        for pieces in every_cut(text[:9]):
            assert match(stop, pieces) == expected(stop, text[:9])


@pytest.mark.parametrize(
    ("text", "stop", "shown", "matched"),
    [
        ("xaby", ["xaby", "ab"], "x", "ab"),  # "ab" is complete first
        ("xab", ["ab", "xab"], "", "xab"),  # they end together: the longer one
        ("one two", ["two", "one"], "", "one"),
        ("aaa", ["aa"], "", "aa"),
        ("stop", ["stop"], "", "stop"),
        ("a\x00b", ["\x00"], "a", "\x00"),
        ("all of it", [], "all of it", None),
        ("è", ["é"], "è", None),
        ("", ["a"], "", None),
    ],
)
def test_stop_matcher_ends_before_the_first_that_is_complete(
    text: str, stop: list[str], shown: str, matched: str | None
) -> None:
    for pieces in every_cut(text):
        assert match(stop, pieces) == (shown, matched)


@given(
    text=st.text(ALPHABET, max_size=24),
    stop=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=5),
    cuts=st.sets(st.integers(0, 24)),
)
def test_stop_matcher_property_chunking_never_matters(
    text: str, stop: list[str], cuts: set[int]
) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert match(stop, pieces) == expected(stop, text)


@given(
    text=st.text("ab", max_size=12),
    stop=st.lists(st.text("ab", min_size=1, max_size=6), max_size=5),
)
def test_stop_matcher_property_every_split_point(text: str, stop: list[str]) -> None:
    for at in range(len(text) + 1):
        assert match(stop, [text[:at], text[at:]]) == expected(stop, text)


@given(
    text=st.text("ab", max_size=16),
    stop=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_stop_matcher_property_holds_back_the_longest_prefix_only(
    text: str, stop: list[str]
) -> None:
    matcher = EveryStopMatcher(stop)
    shown = ""
    for end in range(1, len(text) + 1):
        shown += matcher.feed(text[end - 1])
        if matcher.matched is not None:
            return
        held = max(n for s in stop for n in range(len(s)) if text[:end].endswith(s[:n]))
        assert shown == text[: end - held]


def test_stop_matcher_is_as_new_after_flush_until_it_stopped() -> None:
    matcher = EveryStopMatcher(["ab"])
    assert matcher.flush() == ""
    assert matcher.feed("xa") == "x"
    assert matcher.flush() == "a"
    assert matcher.flush() == ""
    assert matcher.feed("b") == "b"
    assert matcher.feed("yab") == "y"
    assert matcher.feed("more") == ""
    assert matcher.flush() == ""
    assert matcher.matched == "ab"


def test_stop_matcher_takes_many_stop_strings_within_one_another() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    within = [letters[a:b] for a in range(26) for b in range(a + 3, 27)]
    assert match(within, ["zyx ab", "c"]) == ("zyx ", "abc")
    runs = ["a" * n + "b" for n in range(100, 0, -1)]
    assert match(runs, ["a" * 50, "a" * 150, "b"]) == ("a" * 100, "a" * 100 + "b")


def test_stop_matcher_takes_a_megabyte() -> None:
    stop = ["a" * n + "b" for n in range(1, 100)] + ["c" * 30 + "!", "é" * 30 + "!"]
    for text in ("a" * 2**20, "c" * 2**20, "é" * 2**19, "ordinary text " * 2**16):
        matcher = EveryStopMatcher(stop)
        shown = matcher.feed(text)
        assert shown + matcher.flush() == text
    matcher = EveryStopMatcher(stop)
    assert matcher.feed("a" * 2**20 + "b") == "a" * (2**20 - 99)
    assert matcher.matched == "a" * 99 + "b"


def test_stop_matcher_takes_as_many_characters_as_it_says() -> None:
    longest = "a" * 65_535 + "🐟"
    matcher = EveryStopMatcher([longest])
    assert matcher.feed("x" + longest[:-1]) == "x"
    assert matcher.feed("🐟") == ""
    assert matcher.matched == longest
    one_each = [chr(0x10000 + n) for n in range(65_536)]
    assert match(one_each, ["text", one_each[-1]]) == ("text", one_each[-1])


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        ("ab", TypeError, "stop: expected a list or tuple of str, got str"),
        (None, TypeError, "stop: expected a list or tuple of str, got NoneType"),
        ({"ab"}, TypeError, "stop: expected a list or tuple of str, got set"),
        (["a", b"b"], TypeError, "stop[1]: expected str, got bytes"),
        (("a", ""), ValueError, "stop[1]: expected a stop string, got an empty one"),
        (
            ["a" * 65_000, "b" * 537],
            ValueError,
            "stop: expected at most 65536 characters in all, got 65537",
        ),
    ],
)
def test_stop_matcher_refuses_other_stop_strings(
    stop: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        EveryStopMatcher(stop)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", [b"text", bytearray(b"x"), None, 7, ["a"]])
def test_stop_matcher_refuses_another_type(text: object) -> None:
    matcher = EveryStopMatcher(["ab"])
    assert matcher.feed("a") == ""
    with pytest.raises(TypeError, match=f"^text: expected str, got {type(text).__name__}$"):
        matcher.feed(text)
    assert matcher.feed("b") == ""
    with pytest.raises(TypeError, match=r"^text: expected str"):
        matcher.feed(text)


def test_stop_matcher_keeps_its_own_stop_strings() -> None:
    stop = ["ab"]
    matcher = EveryStopMatcher(stop)
    stop[0] = "cd"
    assert matcher.feed("cdab") == "cd"


@pytest.mark.parametrize("kind", [_text.StopMatcher, reference.StopMatcher])
def test_stop_matcher_attributes_are_read_only(kind: Any) -> None:
    matcher = kind(["ab"])
    for name in ("stopped", "matched"):
        with pytest.raises(AttributeError):
            setattr(matcher, name, True)
