from __future__ import annotations

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
Packed = tuple[I32, npt.NDArray[np.bool_], I32]


def same(got: tuple[Any, ...], expected: tuple[Any, ...], dtypes: tuple[type, ...]) -> None:
    for one, other, dtype in zip(got, expected, dtypes, strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.flags.c_contiguous
        assert one.flags.writeable
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)


def pack(*arguments: Any, **named: Any) -> Packed:
    """`pack` of every implementation, which must agree."""
    got, expected = agree(
        lambda: _array.pack(*arguments, **named), lambda: reference.pack(*arguments, **named)
    )
    same(got, expected, (np.int32, np.bool_, np.int32))
    return expected


def length_order(lengths_b: Any) -> tuple[I32, I32]:
    """`length_order` of every implementation, which must agree."""
    got, expected = agree(
        lambda: _array.length_order(lengths_b), lambda: reference.length_order(lengths_b)
    )
    same(got, expected, (np.int32, np.int32))
    return expected


def ids(*values: int) -> I32:
    return np.array(values, dtype=np.int32)


def offsets(*values: int) -> I64:
    return np.array(values, dtype=np.int64)


def test_pack_pads_with_zeros() -> None:
    ids_bt, mask_bt, lengths_b = pack(ids(1, 2, 3, 4, 5, 6), offsets(0, 2, 2, 6), 7)
    assert ids_bt.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 6]]
    assert mask_bt.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert lengths_b.tolist() == [2, 0, 4]


def test_pack_takes_rows_in_any_order() -> None:
    ids_bt, mask_bt, lengths_b = pack(
        ids(1, 2, 3, 4, 5, 6), offsets(0, 2, 3, 6), 7, order_m=ids(1, 0, 1)
    )
    assert ids_bt.tolist() == [[3, 0], [1, 2], [3, 0]]
    assert mask_bt.sum() == 4
    assert lengths_b.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("given_ids", "given_offsets", "order_m", "shape"),
    [
        (ids(), offsets(0), None, (0, 0)),
        (ids(), offsets(0, 0, 0), None, (2, 0)),
        (ids(1), offsets(0, 1), ids(), (0, 0)),
        (ids(1, 2), offsets(0, 2, 2), ids(1), (1, 0)),
    ],
)
def test_pack_takes_nothing(
    given_ids: I32, given_offsets: I64, order_m: I32 | None, shape: tuple[int, int]
) -> None:
    ids_bt, mask_bt, lengths_b = pack(given_ids, given_offsets, 5, order_m)
    assert ids_bt.shape == mask_bt.shape == shape
    assert lengths_b.shape == shape[:1]


def test_pack_checks_only_rows_that_are_taken() -> None:
    flat_n, starts = ids(9, 1, 2), offsets(0, 1, 3)
    assert pack(flat_n, starts, 3, ids(1))[0].tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"^ids_n\[0\]: expected a value in \[0, 3\), got 9$"):
        pack(flat_n, starts, 3)


@given(
    rows=st.lists(st.lists(st.integers(0, 2**31 - 2), max_size=20), max_size=8),
    data=st.data(),
)
def test_pack_property(rows: list[list[int]], data: st.DataObject) -> None:
    flat_n = ids(*(value for row in rows for value in row))
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    limit = max(flat_n.tolist(), default=0) + 1
    longest_first, inverse = length_order(ids(*map(len, rows)))
    drawn = st.lists(st.sampled_from(range(len(rows)))) if rows else st.just([])
    for order_m in (None, longest_first, ids(*data.draw(drawn))):
        taken = rows if order_m is None else [rows[m] for m in order_m]
        ids_mt, mask_mt, lengths_m = pack(flat_n, starts, limit, order_m)
        assert lengths_m.tolist() == [len(row) for row in taken]
        assert mask_mt.sum(axis=1).tolist() == lengths_m.tolist()
        assert not ids_mt[~mask_mt].any()
        for row, ids_t, mask_t in zip(taken, ids_mt, mask_mt, strict=True):
            assert ids_t[: len(row)].tolist() == row
            assert mask_t[: len(row)].all()
    lengths = [len(rows[row]) for row in longest_first]
    assert lengths == sorted(lengths, reverse=True)
    assert longest_first[inverse].tolist() == [*range(len(rows))]


@given(st.lists(st.integers(0, 5), max_size=200))
def test_length_order_is_stable(lengths: list[int]) -> None:
    order_b, inverse_b = length_order(ids(*lengths))
    assert order_b.tolist() == np.argsort(np.negative(lengths), kind="stable").tolist()
    assert inverse_b.tolist() == np.argsort(order_b).tolist()


IDS, OFFSETS = ids(3, 0, 4, 1), offsets(0, 1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], OFFSETS, 5), "ids_n: expected a numpy array, got list"),
        ((IDS.astype(np.uint32), OFFSETS, 5), "ids_n: expected dtype int32, got uint32"),
        ((IDS, OFFSETS.astype(np.uint64), 5), "offsets: expected dtype int64, got uint64"),
        ((IDS, None, 5), "offsets: expected a numpy array, got NoneType"),
        ((IDS, OFFSETS, 5.0), "vocabulary_size: expected int, got float"),
        ((IDS, OFFSETS, True), "vocabulary_size: expected int, got bool"),
        ((IDS, OFFSETS, np.int32(5)), "vocabulary_size: expected int, got int32"),
        ((IDS, OFFSETS, 5, [0]), "order_m: expected a numpy array, got list"),
        ((IDS, OFFSETS, 5, np.array([0])), "order_m: expected dtype int32, got int64"),
    ],
)
def test_pack_refuses_another_type(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        pack(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS[::-1], OFFSETS, 5), "ids_n: expected an aligned, C-contiguous array, got strides"),
        ((IDS[None], OFFSETS, 5), "ids_n: expected ndim 1, got 2"),
        ((IDS, OFFSETS[:0], 5), "offsets: expected at least 1 offset, got 0"),
        ((IDS, OFFSETS[None], 5), "offsets: expected ndim 1, got 2"),
        ((IDS, offsets(1, 4), 5), "offsets[0]: expected 0, got 1"),
        ((IDS, offsets(0, 3, 2, 4), 5), "offsets[2]: expected a value in [3, 4], got 2"),
        ((IDS, offsets(0, 5), 5), "offsets[1]: expected a value in [0, 4], got 5"),
        ((IDS, offsets(0, -1, 4), 5), "offsets[1]: expected a value in [0, 4], got -1"),
        ((IDS, offsets(0, 3), 5), "offsets[1]: expected 4, got 3"),
        ((IDS, OFFSETS, 0), "vocabulary_size: expected an int in [1, 2147483647], got 0"),
        ((IDS, OFFSETS, 2**31), "vocabulary_size: expected an int in [1, 2147483647], got 214748"),
        ((IDS, OFFSETS, -(2**70)), "vocabulary_size: expected an int in [1, 2147483647], got -11"),
        ((IDS, OFFSETS, 5, ids(0, 2)), "order_m[1]: expected a value in [0, 2), got 2"),
        ((IDS, OFFSETS, 5, ids(-1)), "order_m[0]: expected a value in [0, 2), got -1"),
        ((IDS, OFFSETS, 5, ids(0)[None]), "order_m: expected ndim 1, got 2"),
        ((IDS, OFFSETS, 4), "ids_n[2]: expected a value in [0, 4), got 4"),
        ((ids(3, -1, 9, 0), OFFSETS, 5), "ids_n[1]: expected a value in [0, 5), got -1"),
        ((IDS, OFFSETS, 3, ids(1, 0)), "ids_n[2]: expected a value in [0, 3), got 4"),
        (
            (np.empty(2**31, np.int32), OFFSETS, 5),
            "ids_n: expected at most 2147483647 ids, got 2147483648",
        ),
    ],
)
def test_pack_refuses_bad_arrays_and_values(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(ids_n|offsets|vocabulary_size|order_m)") as caught:
        pack(*arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("lengths_b", "error", "message"),
    [
        ([1, 2], TypeError, "lengths_b: expected a numpy array, got list"),
        (np.array([1, 2]), TypeError, "lengths_b: expected dtype int32, got int64"),
        (ids(1, 2)[None], ValueError, "lengths_b: expected ndim 1, got 2"),
        (
            ids(1, 2)[::-1],
            ValueError,
            "lengths_b: expected an aligned, C-contiguous array, got strides (-4,)",
        ),
        (ids(1, -1), ValueError, "lengths_b[1]: expected a length from 0, got -1"),
    ],
)
def test_length_order_refuses_bad_lengths(
    lengths_b: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        length_order(lengths_b)
    assert str(caught.value) == message
