from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.engine.stream import TextStream
from sprat.errors import InvalidInput

ALPHABET = "ab√©🐟"


def run(chunks: list[bytes], stop: tuple[str, ...]) -> tuple[str, bool]:
    stream = TextStream(stop)
    text = "".join(stream.feed(chunk) for chunk in chunks) + stream.flush()
    return text, stream.stopped


def expected(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """What the words of the docstring say, one character at a time."""
    for end in range(1, len(text) + 1):
        ended = [s for s in stop if text[:end].endswith(s)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


def test_stream_without_stop_strings_shows_each_code_point_when_it_is_whole() -> None:
    stream = TextStream()
    fish = "🐟".encode()
    assert [stream.feed(fish[i : i + 1]) for i in range(4)] == ["", "", "", "🐟"]


def test_stream_ends_before_a_stop_string_that_spans_chunks() -> None:
    stream = TextStream(("\n\nUser:",))
    shown = [stream.feed(piece) for piece in (b"Hi\n", b"\nUs", b"er", b": more")]
    assert shown == ["Hi", "", "", ""]
    assert stream.stopped
    assert stream.feed(b"more") == ""
    assert stream.flush() == ""


def test_stream_lets_go_of_what_turned_out_to_be_no_stop_string() -> None:
    stream = TextStream(("<end>",))
    assert stream.feed(b"a <en") == "a "
    assert stream.feed(b"d of it") == "<end of it"
    assert not stream.stopped


def test_stream_holds_back_no_more_than_it_must() -> None:
    stream = TextStream(("aab",))
    assert stream.feed(b"aaa") == "a"
    assert stream.feed(b"a") == "a"
    assert stream.flush() == "aa"


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("xaby", ("xaby", "ab"), "x"),  # "ab" is complete first
        ("xab", ("ab", "xab"), ""),  # they end together: the longer one
        ("one two", ("two", "one"), ""),
        ("aaa", ("aa",), ""),
        ("stop", ("stop",), ""),
    ],
)
def test_stream_of_overlapping_stop_strings_takes_the_first_that_ends(
    text: str, stop: tuple[str, ...], shown: str
) -> None:
    assert run([text.encode()], stop) == (shown, True)
    assert run([bytes([b]) for b in text.encode()], stop) == (shown, True)


def test_stream_flush_shows_half_a_stop_string_and_replaces_half_a_code_point() -> None:
    stream = TextStream(("stop!",))
    assert stream.feed(b"sto" + "é".encode()[:1]) == ""
    assert stream.flush() == "sto\ufffd"


def test_stream_flush_can_complete_a_stop_string() -> None:
    stream = TextStream(("a\ufffd",))
    assert stream.feed(b"xa\xf0\x9f") == "x"
    assert stream.flush() == ""
    assert stream.stopped


def test_stream_refuses_an_empty_stop_string() -> None:
    with pytest.raises(InvalidInput, match="empty") as caught:
        TextStream(("a", ""))
    assert caught.value.field == "stop[1]"


def test_stream_refuses_too_many_stop_strings() -> None:
    with pytest.raises(InvalidInput, match=r"^expected at most 65536 characters in all") as caught:
        TextStream(("a" * 65_536, "b"))
    assert caught.value.field == "stop"


@settings(deadline=None)
@given(
    text=st.text(ALPHABET, max_size=24),
    stop=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4).map(tuple),
    cuts=st.sets(st.integers(0, 96)),
)
def test_stream_output_never_depends_on_the_chunks(
    text: str, stop: tuple[str, ...], cuts: set[int]
) -> None:
    data = text.encode()
    edges = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert run(chunks, stop) == expected(text, stop)


@settings(deadline=None)
@given(
    text=st.text(ALPHABET, max_size=12),
    stop=st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_stream_output_is_the_same_at_every_split_point(text: str, stop: tuple[str, ...]) -> None:
    data = text.encode()
    for at in range(len(data) + 1):
        assert run([data[:at], data[at:]], stop) == expected(text, stop)


@settings(deadline=None)
@given(data=st.binary(max_size=16), at=st.integers(0, 16))
def test_stream_of_invalid_utf8_decodes_as_python_does(data: bytes, at: int) -> None:
    assert run([data[:at], data[at:]], ()) == (data.decode("utf-8", "replace"), False)
