"""`StaticEmbedding` on both implementations: what the kernels it joins give one after another."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _wordpiece, reference
from sprat.kernels.reference import Embedded, WordPieceSettings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "!", "a", "##a", "é", "魚"]
UNK, CLS, SEP = 1, 2, 3
SETTINGS = WordPieceSettings(
    {word: index for index, word in enumerate(WORDS)}, unknown=UNK, strip_accents=False
)
KINDS = ("int8", "float16", "float32")


def table(kind: str, rows: int = len(WORDS), width: int = 70, seed: int = 0) -> npt.NDArray[Any]:
    random = np.random.default_rng(seed)
    if kind == "int8":
        return random.integers(-127, 128, size=(rows, width)).astype(np.int8)
    return random.normal(size=(rows, width)).astype(kind)


class EveryStaticEmbedding:
    """`StaticEmbedding` of every implementation, called alike."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.native, self._specified = agree(
            lambda: _wordpiece.StaticEmbedding(*arguments, **options),
            lambda: reference.StaticEmbedding(*arguments, **options),
        )

    def encode_batch(self, *arguments: Any, **options: Any) -> Embedded:
        got, expected = agree(
            lambda: self.native.encode_batch(*arguments, **options),
            lambda: self._specified.encode_batch(*arguments, **options),
        )
        for name, one, other in zip(Embedded._fields, got, expected, strict=True):
            assert one.dtype == other.dtype, name
            assert one.shape == other.shape, name
            assert one.flags.c_contiguous
            assert one.flags.writeable
        np.testing.assert_array_equal(got.tokens, expected.tokens)
        np.testing.assert_array_equal(got.dropped, expected.dropped)
        scale = max(1.0, float(np.abs(expected.vectors).max(initial=0)))
        np.testing.assert_allclose(got.vectors, expected.vectors, rtol=1e-5, atol=1e-5 * scale)
        return expected


def mean(ids: list[int], values: npt.NDArray[Any], weights: Any = None, rows: Any = None) -> Any:
    """The formula, in float64."""
    taken = values.astype(np.float64)[ids if rows is None else rows[ids]]
    return (taken if weights is None else taken * weights[ids][:, None]).mean(axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_static_vector_is_the_mean_of_the_known_tokens(kind: str) -> None:
    values = table(kind)
    static = EveryStaticEmbedding(SETTINGS, values, normalize=False)
    vectors, tokens, dropped = static.encode_batch(["Unaffable!", "xyz a xyz", "魚 É", ""])
    assert tokens.tolist() == [4, 1, 2, 0]
    assert dropped.tolist() == [0, 0, 0, 0]
    for vector, ids in zip(vectors, ([4, 5, 6, 7], [8], [11, 10]), strict=False):
        np.testing.assert_allclose(vector, mean(ids, values), rtol=1e-5, atol=1e-4)
    assert not vectors[3].any()


def test_static_text_without_a_known_token_is_zero_also_when_normalized() -> None:
    static = EveryStaticEmbedding(SETTINGS, table("int8"))
    vectors, tokens, _ = static.encode_batch(["xyz", " ", "a"])
    assert tokens.tolist() == [0, 0, 1]
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_static_weights_and_shared_rows(kind: str) -> None:
    random = np.random.default_rng(1)
    values = table(kind, rows=3)
    weights = random.normal(size=len(WORDS)).astype(np.float32)
    rows = random.integers(0, 3, len(WORDS)).astype(np.int32)
    static = EveryStaticEmbedding(SETTINGS, values, weights, False, rows)
    vectors = static.encode_batch(["un a!"]).vectors
    expected = mean([4, 8, 7], values, weights, rows)
    np.testing.assert_allclose(vectors[0], expected, rtol=1e-4, atol=1e-3)


def test_static_special_tokens_of_the_settings_have_rows_like_others() -> None:
    values = table("float32")
    framed = replace(SETTINGS, before=(CLS,), after=(SEP,))
    static = EveryStaticEmbedding(framed, values, normalize=False)
    vectors, tokens, _ = static.encode_batch(["a"])
    assert tokens.tolist() == [3]
    np.testing.assert_allclose(vectors[0], mean([CLS, 8, SEP], values), rtol=1e-5, atol=1e-5)


def test_static_limit_counts_unknown_tokens_and_what_it_drops() -> None:
    values = table("int8")
    static = EveryStaticEmbedding(SETTINGS, values, normalize=False)
    vectors, tokens, dropped = static.encode_batch(["xyz a! a", "a"], 2, count_dropped=True)
    assert tokens.tolist() == [1, 1]
    assert dropped.tolist() == [2, 0]
    np.testing.assert_allclose(vectors[0], mean([8], values))
    assert static.encode_batch(["a a a"], 1).dropped.tolist() == [-1]
    vectors, tokens, dropped = static.encode_batch(["a a"], 0, count_dropped=True)
    assert (tokens.tolist(), dropped.tolist()) == ([0], [2])


def test_static_nothing() -> None:
    vectors, tokens, dropped = EveryStaticEmbedding(SETTINGS, table("int8")).encode_batch([])
    assert vectors.shape == (0, 70)
    assert len(tokens) == len(dropped) == 0


@given(
    texts=st.lists(st.text("unaffble!éx魚 \u0301", max_size=40), max_size=5),
    kind=st.sampled_from(KINDS),
    width=st.integers(1, 80),
    limit=st.none() | st.integers(0, 6),
    weighted=st.booleans(),
    mapped=st.booleans(),
    normalize=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_static_is_wordpiece_then_the_bag(
    texts: list[str],
    kind: str,
    width: int,
    limit: int | None,
    weighted: bool,
    mapped: bool,
    normalize: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    values = table(kind, 4 if mapped else len(WORDS), width, seed)
    weights = random.random(len(WORDS), dtype=np.float32) if weighted else None
    rows = random.integers(0, 4, len(WORDS), dtype=np.int32) if mapped else None
    static = EveryStaticEmbedding(SETTINGS, values, weights, normalize, rows)
    found = static.encode_batch(texts, limit, count_dropped=True)
    pieces = _wordpiece.WordPiece(SETTINGS).encode_batch(texts, limit, count_dropped=True)
    np.testing.assert_array_equal(found.dropped, pieces.dropped)
    for index, (start, end) in enumerate(zip(pieces.offsets, pieces.offsets[1:], strict=False)):
        ids = [int(i) for i in pieces.ids[start:end] if i != UNK]
        assert found.tokens[index] == len(ids)
        expected = mean(ids, values, weights, rows) if ids else np.zeros(width)
        if normalize:
            norm = np.linalg.norm(expected)
            if norm < 1e-2:
                continue  # What cancels out but for rounding has no direction.
            expected = expected / norm
        np.testing.assert_allclose(found.vectors[index], expected, rtol=1e-3, atol=1e-3)


def test_static_long_batches_and_threads_give_the_same() -> None:
    static = EveryStaticEmbedding(SETTINGS, table("int8"))
    texts = ["un a!" * (i % 50) for i in range(300)]
    expected = static.encode_batch(texts).vectors
    found: list[npt.NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: found.append(static.native.encode_batch(texts).vectors))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_static_keeps_its_table() -> None:
    values = table("int8")
    expected = mean([8], values)
    static = _wordpiece.StaticEmbedding(SETTINGS, values, normalize=False)
    del values
    np.testing.assert_allclose(static.encode_batch(["a"]).vectors[0], expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({}, table("int8")), TypeError, "settings: expected WordPieceSettings, got dict"),
        ((SETTINGS, None), TypeError, "table_vh: expected a numpy array, got NoneType"),
        (
            (SETTINGS, table("int8").astype(np.float64)),
            TypeError,
            "table_vh: expected dtype int8, got float64",
        ),
        (
            (SETTINGS, table("int8", rows=11)),
            ValueError,
            "settings: expected ids in [0, 11), as many as the table has tokens, got 11",
        ),
        (
            (replace(SETTINGS, after=(12,)), table("int8")),
            ValueError,
            "settings: expected ids in [0, 12), as many as the table has tokens, got 12",
        ),
        (
            (SETTINGS, table("int8"), np.ones(3, np.float32)),
            ValueError,
            "weights_v: expected 12 weights, one for each row of table_vh, got 3",
        ),
        ((SETTINGS, table("int8"), None, 1), TypeError, "normalize: expected bool, got int"),
        (
            (SETTINGS, table("int8"), None, True, np.full(12, 12, np.int32)),
            ValueError,
            "rows_v[0]: expected a value in [0, 12), got 12",
        ),
        (
            (SETTINGS, table("int8"), None, True, np.zeros(12, np.int64)),
            TypeError,
            "rows_v: expected dtype int32, got int64",
        ),
    ],
)
def test_static_refuses_what_it_cannot_be_made_of(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        EveryStaticEmbedding(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("a",), {}, TypeError, "texts: expected a sequence of str, got str"),
        ((["a", 1],), {}, TypeError, "texts[1]: expected str, got int"),
        (
            (["a", "\ud800"],),
            {},
            ValueError,
            "texts[1]: half a surrogate pair at index 0, which is not text",
        ),
        ((["a"], 1.5), {}, TypeError, "max_tokens: expected int or None, got float"),
        (
            (["a"], -1),
            {},
            ValueError,
            "max_tokens: expected at least 0, the number of special tokens, got -1",
        ),
        ((["a"],), {"count_dropped": 1}, TypeError, "count_dropped: expected bool, got int"),
    ],
)
def test_static_refuses_bad_texts(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        EveryStaticEmbedding(SETTINGS, table("int8")).encode_batch(*arguments, **options)
    assert str(caught.value) == message
