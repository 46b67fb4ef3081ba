from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

WELL_FORMED = {
    "nul": b"\x00",
    "last ascii": b"\x7f",
    "first of two": b"\xc2\x80",
    "last of two": b"\xdf\xbf",
    "first of three": b"\xe0\xa0\x80",
    "before surrogates": b"\xed\x9f\xbf",
    "after surrogates": b"\xee\x80\x80",
    "byte order mark": b"\xef\xbb\xbf",
    "replacement": b"\xef\xbf\xbd",
    "noncharacter": b"\xef\xbf\xbf",
    "first of four": b"\xf0\x90\x80\x80",
    "emoji": b"\xf0\x9f\x90\x9f",
    "last": b"\xf4\x8f\xbf\xbf",
}
# With the number of U+FFFD that each gives.
ILL_FORMED = {
    "lone continuation": (b"\x80", 1),
    "last continuation": (b"\xbf", 1),
    "overlong slash": (b"\xc0\xaf", 2),
    "overlong two": (b"\xc1\xbf", 2),
    "overlong three": (b"\xe0\x9f\xbf", 3),
    "overlong four": (b"\xf0\x8f\xbf\xbf", 4),
    "first surrogate": (b"\xed\xa0\x80", 3),
    "last surrogate": (b"\xed\xbf\xbf", 3),
    "surrogate pair": (b"\xed\xa0\xbd\xed\xb0\x9f", 6),
    "beyond the last": (b"\xf4\x90\x80\x80", 4),
    "five bytes": (b"\xf8\x88\x80\x80\x80", 5),
    "never used": (b"\xfe\xff", 2),
    "cut after one of two": (b"\xc3", 1),
    "cut after one of three": (b"\xe2", 1),
    "cut after two of three": (b"\xe2\x82", 1),
    "cut after one of four": (b"\xf0", 1),
    "cut after two of four": (b"\xf0\x9f", 1),
    "cut after three of four": (b"\xf0\x9f\x90", 1),
    "lead after lead": (b"\xe2\xe2\x82", 2),
    "cut in turn": (b"\xf0\x9f\x90\xe2\x82\xc3", 3),
}
EXAMPLES = {**WELL_FORMED, **{name: bytes_ for name, (bytes_, _) in ILL_FORMED.items()}}


def decode(kernels: Any, pieces: Iterator[bytes] | list[bytes]) -> str:
    stream = kernels.Utf8Stream()
    return "".join([*map(stream.feed, pieces), stream.flush()])


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """Yield `data` cut at every subset of its inner positions."""
    inner = range(1, len(data))
    for count in range(len(data)):
        for cuts in itertools.combinations(inner, count):
            edges = [0, *cuts, len(data)]
            yield [data[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("data", WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_utf8_stream_keeps_well_formed_text(kernels: Any, data: bytes) -> None:
    for pieces in every_cut(b"<" + data + data + b">"):
        assert decode(kernels, pieces) == f"<{data.decode()}{data.decode()}>"


@pytest.mark.parametrize(("data", "replaced"), ILL_FORMED.values(), ids=ILL_FORMED.keys())
def test_utf8_stream_replaces_maximal_subparts(kernels: Any, data: bytes, replaced: int) -> None:
    for pieces in every_cut(b"<" + data + b">"):
        assert decode(kernels, pieces) == "<" + "\ufffd" * replaced + ">"
    for pieces in every_cut(data):
        assert decode(kernels, pieces) == "\ufffd" * replaced


def test_utf8_stream_takes_every_pair_of_sequences_at_every_split(kernels: Any) -> None:
    for first, second in itertools.product(EXAMPLES.values(), repeat=2):
        data = first + second
        expected = data.decode("utf-8", errors="replace")
        for split in range(len(data) + 1):
            assert decode(kernels, [data[:split], data[split:]]) == expected
        assert decode(kernels, [data[i : i + 1] for i in range(len(data))]) == expected


def test_utf8_stream_takes_every_pair_of_bytes(kernels: Any) -> None:
    for first in range(256):
        row = b"".join(bytes([first, second, 0x2E]) for second in range(256))
        expected = row.decode("utf-8", errors="replace")
        assert decode(kernels, [row]) == expected
        assert decode(kernels, [row[i : i + 1] for i in range(len(row))]) == expected


def test_utf8_stream_keeps_every_scalar_value(kernels: Any) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    data = text.encode()
    assert decode(kernels, [data[i : i + 997] for i in range(0, len(data), 997)]) == text


@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=8),
            st.text(max_size=8).map(str.encode),
            st.sampled_from([*EXAMPLES.values()]),
        )
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 64)),
)
def test_utf8_stream_property_chunking_never_matters(
    kernels: Any, data: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(kernels, pieces) == data.decode("utf-8", errors="replace")


def test_utf8_stream_gives_text_as_soon_as_it_is_certain(kernels: Any) -> None:
    stream = kernels.Utf8Stream()
    assert stream.feed(b"a\xe2\x82") == "a"
    assert stream.feed(b"") == ""
    assert stream.feed(b"\xac\xf0\x9f") == "\u20ac"
    assert stream.feed(b"b") == "\ufffdb"
    assert stream.flush() == ""


def test_utf8_stream_is_as_new_after_flush(kernels: Any) -> None:
    stream = kernels.Utf8Stream()
    assert stream.flush() == ""
    assert stream.feed(b"\xf0\x9f\x90") == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.feed(b"\x9f") == "\ufffd"
    assert stream.feed(b"\xc3\xa9") == "\u00e9"


def test_utf8_stream_takes_a_megabyte_of_anything(kernels: Any) -> None:
    for data in (b"a" * 2**20, "\u00e9".encode() * 2**19, b"\xff" * 2**20):
        stream = kernels.Utf8Stream()
        assert stream.feed(data) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), None, 7])
def test_utf8_stream_refuses_another_type(kernels: Any, data: object) -> None:
    stream = kernels.Utf8Stream()
    assert stream.feed(b"\xc3") == ""
    with pytest.raises(TypeError, match=f"^data: expected bytes, got {type(data).__name__}$"):
        stream.feed(data)
    assert stream.feed(b"\xa9") == "\u00e9"


def test_utf8_streams_are_independent(kernels: Any) -> None:
    first, second = kernels.Utf8Stream(), kernels.Utf8Stream()
    assert first.feed(b"\xc3") == ""
    assert second.flush() == ""
    assert first.feed(b"\xa9") == "\u00e9"
