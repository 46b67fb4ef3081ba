from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _text, reference

I32 = npt.NDArray[np.int32]


class EveryNgramIndex:
    """`NgramIndex` of every implementation, and of several seeds, given the same tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        native, self._specified = agree(
            lambda: _text.NgramIndex(*args, **kwargs), lambda: reference.NgramIndex(*args, **kwargs)
        )
        self._natives = [native]
        if "seed" not in kwargs:
            seeds = (1, 2**64 - 1)
            self._natives += [_text.NgramIndex(*args, **kwargs, seed=seed) for seed in seeds]

    def __len__(self) -> int:
        assert [len(native) for native in self._natives] == [len(self._specified)] * len(
            self._natives
        )
        return len(self._specified)

    def append(self, tokens: Any) -> None:
        outcomes = []
        for index in (*self._natives, self._specified):
            try:
                index.append(tokens)
                outcomes.append(None)
            except Exception as error:
                outcomes.append(error)
        assert len({repr(outcome) for outcome in outcomes}) == 1
        if outcomes[-1] is not None:
            raise outcomes[-1]

    def draft(self, max_tokens: Any) -> list[int]:
        for native in self._natives:
            got, expected = agree(
                lambda native=native: native.draft(max_tokens),
                lambda: self._specified.draft(max_tokens),
            )
            assert got.dtype == expected.dtype == np.int32
            assert got.flags.writeable
            assert got.flags.c_contiguous
            np.testing.assert_array_equal(got, expected)
        drafted: list[int] = expected.tolist()
        return drafted


def ids(*values: int) -> I32:
    return np.array(values, dtype=np.int32)


def draft(tokens: list[int], min_n: int, max_n: int, max_tokens: int = 8) -> list[int]:
    index = EveryNgramIndex(min_n, max_n)
    index.append(ids(*tokens))
    return index.draft(max_tokens)


@pytest.mark.parametrize(
    ("tokens", "min_n", "max_n", "drafted"),
    [
        ([], 1, 3, []),
        ([5], 1, 3, []),
        ([5, 6], 1, 3, []),
        ([5, 5], 1, 3, [5]),
        ([1, 2, 3, 1, 2], 2, 2, [3, 1, 2]),
        ([1, 2, 3, 1, 2], 3, 3, []),
        ([1, 2, 3, 1, 2, 4, 1, 2], 2, 2, [4, 1, 2]),  # the most recent
        ([1, 2, 3, 9, 2, 4, 1, 2], 1, 2, [3, 9, 2, 4, 1, 2]),  # the longer before the more recent
        ([1, 2, 3, 9, 2, 4, 8, 2], 1, 2, [4, 8, 2]),  # the shorter when there is no longer one
        ([7, 7, 7, 7], 1, 2, [7]),  # the occurrence overlaps the end
        ([7, 7, 7, 7], 3, 4, [7]),
        ([7, 7, 7, 7], 4, 4, []),
        ([-1, 0, 9, -1, 0], 2, 2, [9, -1, 0]),
        ([2**31 - 1, -(2**31), 9, 2**31 - 1, -(2**31)], 1, 5, [9, 2**31 - 1, -(2**31)]),
        ([1, 2, 3] * 30, 1, 64, [1, 2, 3]),
    ],
)
def test_ngram_index_drafts_what_followed(
    tokens: list[int], min_n: int, max_n: int, drafted: list[int]
) -> None:
    assert draft(tokens, min_n, max_n) == drafted
    for max_tokens in (1, 2, len(drafted) + 1):
        assert draft(tokens, min_n, max_n, max_tokens) == drafted[:max_tokens]


@given(
    pieces=st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=20),
    n=st.tuples(st.integers(1, 5), st.integers(0, 4)),
    max_tokens=st.integers(1, 9),
)
def test_ngram_index_property_pieces_never_matter(
    pieces: list[list[int]], n: tuple[int, int], max_tokens: int
) -> None:
    index = EveryNgramIndex(n[0], n[0] + n[1])
    tokens: list[int] = []
    for piece in pieces:
        index.append(ids(*piece))
        tokens += piece
        assert len(index) == len(tokens)
        assert index.draft(max_tokens) == draft(tokens, n[0], n[0] + n[1], max_tokens)


def test_ngram_index_takes_every_split_point() -> None:
    tokens = [1, 2, 1, 2, 3, 1, 2, 3, 4, 1, 2]
    expected = draft(tokens, 1, 4)
    for at in range(len(tokens) + 1):
        index = EveryNgramIndex(1, 4)
        index.append(ids(*tokens[:at]))
        index.draft(3)
        index.append(ids(*tokens[at:]))
        assert index.draft(8) == expected


# Token by token, over the sizes at which the tables grow.
@pytest.mark.parametrize("kinds", [2, 50, 10_000])
def test_ngram_index_stays_right_while_it_grows(kinds: int) -> None:
    random = np.random.default_rng(kinds)
    index = EveryNgramIndex(1, 3)
    for token in random.integers(0, kinds, 300, dtype=np.int32):
        index.append(ids(token))
        index.draft(4)


def test_ngram_index_finds_what_lies_far_back() -> None:
    index = _text.NgramIndex(3, 8)
    index.append(np.arange(1_000_000, dtype=np.int32))
    index.append(ids(17, 18, 19))
    assert index.draft(3).tolist() == [20, 21, 22]
    assert len(index) == 1_000_003


def test_ngram_index_copies_what_it_takes() -> None:
    index = EveryNgramIndex(1, 2)
    tokens = ids(1, 2, 3, 1)
    tokens.flags.writeable = False
    index.append(tokens)
    tokens.flags.writeable = True
    tokens[:] = 0
    assert index.draft(9) == [2, 3, 1]


def test_ngram_index_gives_a_new_array_each_time() -> None:
    for index in (_text.NgramIndex(1, 2), reference.NgramIndex(1, 2)):
        index.append(ids(1, 2, 3, 1))
        index.draft(9)[:] = 0
        assert index.draft(9).tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 3), ValueError, "min_n: expected an int in [1, 64], got 0"),
        ((65, 65), ValueError, "min_n: expected an int in [1, 64], got 65"),
        ((3, 2), ValueError, "max_n: expected an int in [3, 64], got 2"),
        ((1, 65), ValueError, "max_n: expected an int in [1, 64], got 65"),
        ((1, 10**30), ValueError, f"max_n: expected an int in [1, 64], got {10**30}"),
        ((1.0, 3), TypeError, "min_n: expected int, got float"),
        ((1, None), TypeError, "max_n: expected int, got NoneType"),
        ((True, 3), TypeError, "min_n: expected int, got bool"),
        ((1, 3, -1), ValueError, f"seed: expected an int in [0, {2**64 - 1}], got -1"),
        ((1, 3, 2**64), ValueError, f"seed: expected an int in [0, {2**64 - 1}], got {2**64}"),
        ((1, 3, "x"), TypeError, "seed: expected int, got str"),
    ],
)
def test_ngram_index_refuses_other_arguments(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        EveryNgramIndex(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([1, 2], TypeError, "tokens: expected a numpy array, got list"),
        (7, TypeError, "tokens: expected a numpy array, got int"),
        (np.zeros(2, np.int64), TypeError, "tokens: expected dtype int32, got int64"),
        (np.zeros(2, np.float32), TypeError, "tokens: expected dtype int32, got float32"),
        (np.zeros(2, ">i4"), TypeError, "tokens: expected dtype int32, got >i4"),
        (np.zeros((1, 2), np.int32), ValueError, "tokens: expected ndim 1, got 2"),
        (np.int32(7), TypeError, "tokens: expected a numpy array, got int32"),
        (
            np.zeros(4, np.int32)[::2],
            ValueError,
            "tokens: expected an aligned, C-contiguous array, got strides (8,)",
        ),
        (
            np.zeros(9, np.uint8)[1:].view(np.int32),
            ValueError,
            "tokens: expected an aligned, C-contiguous array, got strides (4,)",
        ),
        (
            np.zeros(2**24 - 3, np.int32),
            ValueError,
            f"tokens: expected at most {2**24 - 4} more tokens, got {2**24 - 3}",
        ),
    ],
)
def test_ngram_index_refuses_other_tokens(
    tokens: Any, error: type[Exception], message: str
) -> None:
    index = EveryNgramIndex(1, 2)
    index.append(ids(1, 2, 3, 1))
    with pytest.raises(error) as caught:
        index.append(tokens)
    assert str(caught.value) == message
    assert len(index) == 4
    assert index.draft(2) == [2, 3]


@pytest.mark.parametrize(
    ("max_tokens", "error", "message"),
    [
        (0, ValueError, "max_tokens: expected an int in [1, 16777216], got 0"),
        (-1, ValueError, "max_tokens: expected an int in [1, 16777216], got -1"),
        (2**64, ValueError, f"max_tokens: expected an int in [1, 16777216], got {2**64}"),
        ("3", TypeError, "max_tokens: expected int, got str"),
        (False, TypeError, "max_tokens: expected int, got bool"),
    ],
)
def test_ngram_index_refuses_another_length(
    max_tokens: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        EveryNgramIndex(1, 2).draft(max_tokens)
    assert str(caught.value) == message


def test_ngram_index_takes_nothing() -> None:
    index = EveryNgramIndex(1, 2)
    index.append(ids())
    assert (len(index), index.draft(3)) == (0, [])
