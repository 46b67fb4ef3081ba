from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _array, reference

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


def bag(*arguments: Any, **named: Any) -> F32:
    """`embedding_bag` of every implementation, which must agree."""
    got, expected = agree(
        lambda: _array.embedding_bag(*arguments, **named),
        lambda: reference.embedding_bag(*arguments, **named),
    )
    assert got.dtype == expected.dtype == np.float32
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert got.flags.writeable
    # Products may be added without being rounded first: errors are relative to the largest term.
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * scale)
    return expected


def table(kind: str, rows: int, width: int, seed: int = 0) -> npt.NDArray[Any]:
    random = np.random.default_rng(seed)
    if kind == "int8":
        return random.integers(-128, 128, size=(rows, width)).astype(np.int8)
    return random.normal(size=(rows, width)).astype(kind)


def ragged(*lengths: int, rows: int, seed: int = 0) -> tuple[I32, I64]:
    ids_n = np.random.default_rng(seed).integers(0, rows, size=sum(lengths), dtype=np.int32)
    return ids_n, np.cumsum([0, *lengths], dtype=np.int64)


def mean(
    ids_n: I32, offsets: I64, table_vh: npt.NDArray[Any], weights_v: F32
) -> npt.NDArray[np.float64]:
    """Compute the mean the way that Model2Vec does, text by text, in float64."""
    weighted_vh = table_vh.astype(np.float64) * weights_v[:, None]
    means = [
        weighted_vh[ids_n[start:end]].mean(axis=0) if end > start else np.zeros(table_vh.shape[1])
        for start, end in pairwise(offsets)
    ]
    return np.array(means).reshape(len(means), table_vh.shape[1])


# Widths straddle the 8 and 64 columns that are summed at once.
@pytest.mark.parametrize("width", [1, 7, 8, 9, 63, 64, 65, 72, 130, 256])
@pytest.mark.parametrize("kind", ["int8", "float16", "float32"])
def test_embedding_bag_means_the_rows_of_each_text(kind: str, width: int) -> None:
    table_vh = table(kind, 50, width, seed=width)
    ids_n, offsets = ragged(1, 0, 7, 130, 0, rows=50)
    weights_v = np.random.default_rng(width).random(50, dtype=np.float32)
    for given_v in (None, weights_v):
        used_v = np.ones(50, np.float32) if given_v is None else given_v
        expected_bh = mean(ids_n, offsets, table_vh, used_v)
        found_bh = bag(ids_n, offsets, table_vh, given_v, normalize=False)
        np.testing.assert_allclose(found_bh, expected_bh, rtol=1e-4, atol=1e-3)
        found_bh = bag(ids_n, offsets, table_vh, given_v)
        norms_b = np.linalg.norm(expected_bh, axis=1, keepdims=True) + 1e-32
        np.testing.assert_allclose(found_bh, expected_bh / norms_b, atol=1e-5)


@given(
    kind=st.sampled_from(["int8", "float16", "float32"]),
    lengths=st.lists(st.integers(0, 9), max_size=6),
    rows=st.integers(1, 12),
    width=st.integers(0, 80),
    weighted=st.booleans(),
    normalize=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_embedding_bag_property(
    kind: str,
    lengths: list[int],
    rows: int,
    width: int,
    weighted: bool,
    normalize: bool,
    seed: int,
) -> None:
    table_vh = table(kind, rows, width, seed)
    ids_n, offsets = ragged(*lengths, rows=rows, seed=seed)
    weights_v = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    found_bh = bag(ids_n, offsets, table_vh, weights_v if weighted else None, normalize)
    assert found_bh.shape == (len(lengths), width)
    used_v = weights_v if weighted else np.ones(rows, np.float32)
    expected_bh = mean(ids_n, offsets, table_vh, used_v)
    if normalize:
        norms_b = np.linalg.norm(expected_bh, axis=1, keepdims=True)
        # What cancels out but for rounding has no direction.
        steady_b = (norms_b > 1e-2)[:, 0]
        np.testing.assert_allclose(
            found_bh[steady_b], (expected_bh / (norms_b + 1e-32))[steady_b], atol=1e-3
        )
    else:
        np.testing.assert_allclose(found_bh, expected_bh, rtol=1e-4, atol=1e-3)


def test_embedding_bag_reads_every_float16_value() -> None:
    bits_v = np.arange(2**16, dtype=np.uint16)
    table_vh = np.repeat(bits_v.view(np.float16)[:, None], 9, axis=1)
    ids_n, offsets = bits_v.astype(np.int32), np.arange(2**16 + 1)
    found_bh = bag(ids_n, offsets, table_vh, normalize=False)
    native_bh = _array.embedding_bag(ids_n, offsets, table_vh, normalize=False)
    with np.errstate(invalid="ignore"):
        exact_bh = table_vh.astype(np.float32)
    np.testing.assert_array_equal(found_bh, exact_bh)
    np.testing.assert_array_equal(native_bh, exact_bh)


def test_embedding_bag_keeps_nan_in_the_texts_that_use_it() -> None:
    table_vh = table("float16", 4, 70)
    table_vh[2, 66] = np.nan
    ids_n, offsets = np.array([0, 1, 2, 3, 1], np.int32), np.array([0, 2, 4, 5])
    found_bh = bag(ids_n, offsets, table_vh, normalize=False)
    assert np.argwhere(np.isnan(found_bh)).tolist() == [[1, 66]]
    weights_v = np.array([1, np.inf, 1, 1], np.float32)
    assert np.isnan(bag(ids_n, offsets, np.zeros((4, 9), np.int8), weights_v)).all(axis=1).tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_embedding_bag_tokens_share_rows(weighted: bool) -> None:
    table_vh = table("int8", 3, 70)
    rows_v = np.array([2, 0, 0, 1, 2], np.int32)
    weights_v = np.array([1, 0.5, -2, 1, 3], np.float32) if weighted else None
    ids_n, offsets = ragged(2, 0, 9, rows=5)
    found_bh = bag(ids_n, offsets, table_vh, weights_v, False, rows_v)
    spread_bh = bag(ids_n, offsets, np.ascontiguousarray(table_vh[rows_v]), weights_v, False)
    np.testing.assert_array_equal(found_bh, spread_bh)


def test_embedding_bag_zero_vector_stays_zero() -> None:
    table_vh = np.array([[5] * 9, [-5] * 9], np.int8)
    ids_n, offsets = np.array([0, 1], np.int32), np.array([0, 2])
    assert not bag(ids_n, offsets, table_vh).any()


def test_embedding_bag_takes_nothing_and_arrays_that_cannot_be_written() -> None:
    table_vh = table("int8", 3, 8)
    ids_n, offsets = ragged(2, 1, rows=3)
    for array in (table_vh, ids_n, offsets):
        array.flags.writeable = False
    assert bag(ids_n, offsets, table_vh).shape == (2, 8)
    none_n = np.empty(0, np.int32)
    assert bag(none_n, np.zeros(1, np.int64), table_vh).shape == (0, 8)
    assert bag(none_n, np.zeros(1, np.int64), np.empty((0, 5), np.int8)).shape == (0, 5)
    assert not bag(none_n, np.zeros(3, np.int64), table_vh).any()


TABLE = table("int8", 5, 4)
IDS, OFFSETS = np.array([0, 4, 2], np.int32), np.array([0, 1, 3])
WEIGHTS = np.ones(5, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], OFFSETS, TABLE), "ids_n: expected a numpy array, got list"),
        ((IDS.astype(np.int64), OFFSETS, TABLE), "ids_n: expected dtype int32, got int64"),
        ((IDS, [0, 3], TABLE), "offsets: expected a numpy array, got list"),
        ((IDS, OFFSETS.astype(np.int32), TABLE), "offsets: expected dtype int64, got int32"),
        ((IDS, OFFSETS, None), "table_vh: expected a numpy array, got NoneType"),
        ((IDS, OFFSETS, TABLE.astype(np.float64)), "table_vh: expected dtype int8, got float64"),
        ((IDS, OFFSETS, TABLE.astype(">f2")), "table_vh: expected dtype int8, got >f2"),
        ((IDS, OFFSETS, TABLE.astype(np.uint8)), "table_vh: expected dtype int8, got uint8"),
        (
            (IDS, OFFSETS, TABLE, WEIGHTS.astype(np.float64)),
            "weights_v: expected dtype float32, got float64",
        ),
        ((IDS, OFFSETS, TABLE, [1.0] * 5), "weights_v: expected a numpy array, got list"),
        ((IDS, OFFSETS, TABLE, None, 1), "normalize: expected bool, got int"),
    ],
)
def test_embedding_bag_refuses_another_type(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        bag(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS[None], OFFSETS, TABLE), "ids_n: expected ndim 1, got 2"),
        (
            (np.zeros(6, np.int32)[::2], OFFSETS, TABLE),
            "ids_n: expected an aligned, C-contiguous array, got strides (8,)",
        ),
        ((IDS, OFFSETS[:0], TABLE), "offsets: expected at least 1 offset, got 0"),
        ((IDS, np.array([1, 3]), TABLE), "offsets[0]: expected 0, got 1"),
        ((IDS, np.array([-1, 3]), TABLE), "offsets[0]: expected 0, got -1"),
        (
            (IDS, np.array([0, 2, 1, 3]), TABLE),
            "offsets[2]: expected a value in [2, 3], got 1",
        ),
        ((IDS, np.array([0, 4]), TABLE), "offsets[1]: expected a value in [0, 3], got 4"),
        (
            (IDS, np.array([0, 2**63 - 1, 3]), TABLE),
            f"offsets[1]: expected a value in [0, 3], got {2**63 - 1}",
        ),
        (
            (IDS, np.array([0, -(2**63), 3]), TABLE),
            f"offsets[1]: expected a value in [0, 3], got {-(2**63)}",
        ),
        ((IDS, np.array([0, 2]), TABLE), "offsets[1]: expected 3, got 2"),
        ((IDS, np.array([0]), TABLE), "offsets[0]: expected 3, got 0"),
        ((IDS, OFFSETS, TABLE[0]), "table_vh: expected ndim 2, got 1"),
        (
            (IDS, OFFSETS, TABLE.T),
            "table_vh: expected an aligned, C-contiguous array, got strides (1, 4)",
        ),
        (
            (IDS, OFFSETS, TABLE, WEIGHTS[:4]),
            "weights_v: expected 5 weights, one for each row of table_vh, got 4",
        ),
        (
            (IDS, OFFSETS, TABLE, WEIGHTS, True, np.zeros(6, np.int32)),
            "weights_v: expected 6 weights, one for each value of rows_v, got 5",
        ),
        (
            (IDS, OFFSETS, TABLE, None, True, np.array([0, 1, 5, 2, 2], np.int32)),
            "rows_v[2]: expected a value in [0, 5), got 5",
        ),
        (
            (IDS, OFFSETS, TABLE, None, True, np.array([0, -1], np.int32)),
            "rows_v[1]: expected a value in [0, 5), got -1",
        ),
        (
            (IDS, OFFSETS, TABLE, None, True, np.zeros((2, 2), np.int32)),
            "rows_v: expected ndim 1, got 2",
        ),
        (
            (IDS, OFFSETS, TABLE, None, True, np.zeros(3, np.int32)),
            "ids_n[1]: expected a value in [0, 3), got 4",
        ),
        ((IDS, OFFSETS, TABLE[:4]), "ids_n[1]: expected a value in [0, 4), got 4"),
        ((IDS - 1, OFFSETS, TABLE), "ids_n[0]: expected a value in [0, 5), got -1"),
        (
            (np.array([0, 1, 2**31 - 1], np.int32), OFFSETS, TABLE),
            f"ids_n[2]: expected a value in [0, 5), got {2**31 - 1}",
        ),
        (
            (IDS, OFFSETS, np.empty((0, 4), np.int8)),
            "ids_n[0]: expected a value in [0, 0), got 0",
        ),
    ],
)
def test_embedding_bag_refuses_bad_arrays(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(ids_n|offsets|table_vh|weights_v|rows_v)") as caught:
        bag(*arguments)
    assert str(caught.value) == message
