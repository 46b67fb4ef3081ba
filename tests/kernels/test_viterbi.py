from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _labels, reference

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


def viterbi(*arguments: Any) -> tuple[I32, F32]:
    """`viterbi` of every implementation, which must agree to the last bit."""
    got, expected = agree(
        lambda: _labels.viterbi(*arguments), lambda: reference.viterbi(*arguments)
    )
    for one, other, dtype in zip(got, expected, (np.int32, np.float32), strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.shape == other.shape
        assert one.flags.c_contiguous
        assert one.flags.writeable
        np.testing.assert_array_equal(one, other)
    return expected


def problem(
    rows: int, tokens: int, tags: int, *, seed: int = 0, forbidden: float = 0.0
) -> tuple[F32, I32, F32, F32, F32]:
    random = np.random.default_rng(seed)

    def scores(*shape: int) -> F32:
        drawn = random.normal(size=shape).astype(np.float32)
        return np.where(random.random(shape) < forbidden, np.float32(-np.inf), drawn)

    return (
        random.normal(size=(rows, tokens, tags)).astype(np.float32),
        random.integers(1, tokens + 1, size=rows, dtype=np.int32),
        scores(tags, tags),
        scores(tags),
        scores(tags),
    )


def score(
    path: tuple[int, ...], emissions_tk: F32, transitions_kk: F32, start_k: F32, end_k: F32
) -> float:
    total = float(start_k[path[0]]) + sum(float(emissions_tk[t, tag]) for t, tag in enumerate(path))
    steps = sum(float(transitions_kk[a, b]) for a, b in itertools.pairwise(path))
    return total + steps + float(end_k[path[-1]])


@given(
    tokens=st.integers(1, 4),
    tags=st.integers(1, 4),
    forbidden=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 2**32 - 1),
)
def test_viterbi_is_the_best_of_all_sequences(
    tokens: int, tags: int, forbidden: float, seed: int
) -> None:
    emissions_btk, lengths_b, *rest = problem(2, tokens, tags, seed=seed, forbidden=forbidden)
    tags_bt, scores_b = viterbi(emissions_btk, lengths_b, *rest)
    for row, length in enumerate(lengths_b.tolist()):
        every = itertools.product(range(tags), repeat=length)
        best = max(score(path, emissions_btk[row], *rest) for path in every)
        assert (tags_bt[row, length:] == -1).all()
        if best == -np.inf:
            assert scores_b[row] == -np.inf
            assert (tags_bt[row] == -1).all()
        else:
            found = tuple(tags_bt[row, :length].tolist())
            assert score(found, emissions_btk[row], *rest) == pytest.approx(best, abs=1e-5)
            assert scores_b[row] == pytest.approx(best, abs=1e-5)


# Tag counts straddle the 8 and 64 columns of a step.
@pytest.mark.parametrize("tags", [1, 7, 8, 9, 63, 64, 65, 73])
@pytest.mark.parametrize("forbidden", [0.0, 0.5])
def test_viterbi_agrees_on_larger_problems(tags: int, forbidden: float) -> None:
    arguments = problem(4, 17, tags, seed=tags, forbidden=forbidden)
    tags_bt, _ = viterbi(*arguments)
    for row, length in enumerate(arguments[1].tolist()):
        path = tags_bt[row, :length]
        assert (path >= 0).all() or (path == -1).all()


def test_viterbi_never_takes_a_forbidden_step() -> None:
    emissions_btk, lengths_b, transitions_kk, start_k, end_k = problem(20, 30, 6, forbidden=0.5)
    np.fill_diagonal(transitions_kk, 0)
    start_k[0] = end_k[0] = 0
    tags_bt, scores_b = viterbi(emissions_btk, lengths_b, transitions_kk, start_k, end_k)
    assert np.isfinite(scores_b).all()
    for row, length in enumerate(lengths_b.tolist()):
        path = tags_bt[row, :length]
        assert np.isfinite(start_k[path[0]])
        assert np.isfinite(end_k[path[-1]])
        assert np.isfinite(transitions_kk[path[:-1], path[1:]]).all()


def test_viterbi_of_equal_scores_takes_the_lowest_tags() -> None:
    zeros_k = np.zeros(9, np.float32)
    tags_bt, scores_b = viterbi(
        np.zeros((2, 5, 9), np.float32),
        np.array([5, 3], np.int32),
        np.zeros((9, 9), np.float32),
        zeros_k,
        zeros_k,
    )
    assert tags_bt.tolist() == [[0] * 5, [0, 0, 0, -1, -1]]
    assert scores_b.tolist() == [0, 0]


def test_viterbi_never_reads_beyond_the_length() -> None:
    emissions_btk, _, *rest = problem(3, 8, 5)
    lengths_b = np.array([1, 4, 7], np.int32)
    tags_bt, scores_b = viterbi(emissions_btk, lengths_b, *rest)
    for row, length in enumerate(lengths_b.tolist()):
        emissions_btk[row, length:] = np.nan
    again_bt, again_b = viterbi(emissions_btk, lengths_b, *rest)
    np.testing.assert_array_equal(again_bt, tags_bt)
    np.testing.assert_array_equal(again_b, scores_b)


@pytest.mark.parametrize("poison", [np.nan, -np.inf])
def test_viterbi_avoids_what_is_nan_or_minus_infinity(poison: float) -> None:
    emissions_btk, _, *rest = problem(2, 6, 5)
    lengths_b = np.array([6, 6], np.int32)
    emissions_btk[0, 2, :4] = poison
    emissions_btk[1, 3] = poison
    tags_bt, scores_b = viterbi(emissions_btk, lengths_b, *rest)
    assert tags_bt[0, 2] == 4
    assert np.isfinite(scores_b[0])
    assert (tags_bt[1] == -1).all()
    assert scores_b[1] == -np.inf


@given(
    values=st.lists(
        st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 3e38, -3e38]), min_size=39, max_size=39
    )
)
def test_viterbi_agrees_whatever_the_numbers(values: list[float]) -> None:
    drawn = np.array(values, np.float32)
    viterbi(
        drawn[:24].reshape(2, 4, 3),
        np.array([4, 3], np.int32),
        drawn[24:33].reshape(3, 3),
        drawn[33:36].copy(),
        drawn[36:].copy(),
    )


def test_viterbi_takes_nothing_and_arrays_that_cannot_be_written() -> None:
    arguments = problem(2, 3, 4)
    for array in arguments:
        array.flags.writeable = False
    viterbi(*arguments)
    none_kk, none_k = np.empty((0, 0), np.float32), np.empty(0, np.float32)
    tags_bt, scores_b = viterbi(
        np.empty((2, 3, 0), np.float32), np.array([3, 1], np.int32), none_kk, none_k, none_k
    )
    assert (tags_bt == -1).all()
    assert (scores_b == -np.inf).all()
    tags_bt, scores_b = viterbi(
        np.empty((0, 3, 4), np.float32), np.empty(0, np.int32), *arguments[2:]
    )
    assert tags_bt.shape == (0, 3)
    assert scores_b.shape == (0,)


EMISSIONS, LENGTHS, TRANSITIONS, START, END = problem(2, 3, 4)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, EMISSIONS.tolist(), "emissions_btk: expected a numpy array, got list"),
        (0, EMISSIONS.astype(np.float16), "emissions_btk: expected dtype float32, got float16"),
        (1, [3, 3], "lengths_b: expected a numpy array, got list"),
        (1, LENGTHS.astype(np.int64), "lengths_b: expected dtype int32, got int64"),
        (2, None, "transitions_kk: expected a numpy array, got NoneType"),
        (2, TRANSITIONS.astype(bool), "transitions_kk: expected dtype float32, got bool"),
        (3, START.astype(np.float64), "start_k: expected dtype float32, got float64"),
        (4, 0.0, "end_k: expected a numpy array, got float"),
    ],
)
def test_viterbi_refuses_another_type(at: int, value: Any, message: str) -> None:
    arguments: list[Any] = [EMISSIONS, LENGTHS, TRANSITIONS, START, END]
    arguments[at] = value
    with pytest.raises(TypeError) as caught:
        viterbi(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, EMISSIONS[0], "emissions_btk: expected ndim 3, got 2"),
        (
            0,
            EMISSIONS[:, ::-1],
            "emissions_btk: expected an aligned, C-contiguous array, got strides (48, -16, 4)",
        ),
        (1, LENGTHS[:1], "lengths_b: expected 2 lengths, one for each row of emissions_btk, got 1"),
        (1, LENGTHS * 0, "lengths_b[0]: expected a length in [1, 3], got 0"),
        (1, np.array([3, 4], np.int32), "lengths_b[1]: expected a length in [1, 3], got 4"),
        (1, np.array([3, -9], np.int32), "lengths_b[1]: expected a length in [1, 3], got -9"),
        (
            2,
            TRANSITIONS[:3],
            "transitions_kk: expected shape (4, 4), a row and a column for each tag of emissions",
        ),
        (
            2,
            TRANSITIONS.T,
            "transitions_kk: expected an aligned, C-contiguous array, got strides (4, 16)",
        ),
        (3, START[:3], "start_k: expected 4 scores, one for each tag of emissions_btk, got 3"),
        (3, START[None], "start_k: expected ndim 1, got 2"),
        (
            4,
            np.zeros(5, np.float32),
            "end_k: expected 4 scores, one for each tag of emissions_btk,",
        ),
    ],
)
def test_viterbi_refuses_bad_arrays(at: int, value: Any, message: str) -> None:
    arguments: list[Any] = [EMISSIONS, LENGTHS, TRANSITIONS, START, END]
    arguments[at] = value
    with pytest.raises(ValueError, match=r"^(emissions|lengths|transitions|start|end)_") as caught:
        viterbi(*arguments)
    assert str(caught.value).startswith(message)
