from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _array

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


def batch(rows: int, tokens: int, width: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).normal(size=(rows, tokens, width)).astype(np.float32)


def lengths(*values: int) -> I32:
    return np.array(values, dtype=np.int32)


def masked_mean(hidden_bth: F32, lengths_b: I32) -> npt.NDArray[np.float64]:
    """Compute the mean the way that model cards do: with a mask, in float64."""
    mask_bt = np.arange(hidden_bth.shape[1]) < lengths_b[:, None]
    total_bh = np.einsum("bth,bt->bh", hidden_bth.astype(np.float64), mask_bt)
    return np.asarray(total_bh / lengths_b[:, None])


# Widths straddle a vector and the 64 columns of a pass.
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 128])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 7, 8, 9, 63, 64, 65, 79, 384])
def test_pool_means_the_tokens_of_each_row(kernels: Any, length: int, width: int) -> None:
    hidden_bth = batch(2, length + 1, width, seed=length * width)
    lengths_b = lengths(length, length + 1)
    pooled_bh = kernels.pool(hidden_bth, lengths_b, "mean", normalize=False)
    np.testing.assert_allclose(pooled_bh, masked_mean(hidden_bth, lengths_b), atol=1e-6)


def test_pool_cls_takes_the_first_token(kernels: Any) -> None:
    hidden_bth = batch(3, 5, 9)
    pooled_bh = kernels.pool(hidden_bth, lengths(1, 3, 5), "cls", normalize=False)
    np.testing.assert_array_equal(pooled_bh, hidden_bth[:, 0])


def test_pool_last_takes_the_last_token_of_each_row(kernels: Any) -> None:
    hidden_bth = batch(3, 5, 9)
    pooled_bh = kernels.pool(hidden_bth, lengths(1, 3, 5), "last", normalize=False)
    np.testing.assert_array_equal(pooled_bh, hidden_bth[[0, 1, 2], [0, 2, 4]])


@pytest.mark.parametrize("mode", ["mean", "cls", "last"])
def test_pool_normalizes_by_default(kernels: Any, mode: str) -> None:
    hidden_bth = batch(4, 6, 33)
    lengths_b = lengths(1, 2, 5, 6)
    raw_bh = kernels.pool(hidden_bth, lengths_b, mode, False).astype(np.float64)
    pooled_bh = kernels.pool(hidden_bth, lengths_b, mode)
    expected_bh = raw_bh / np.linalg.norm(raw_bh, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled_bh, expected_bh, rtol=1e-6)


def test_pool_keeps_a_zero_vector_zero(kernels: Any) -> None:
    hidden_bth = np.zeros((2, 3, 10), dtype=np.float32)
    hidden_bth[1, :2, 4] = 1.0, -1.0
    assert not kernels.pool(hidden_bth, lengths(3, 2), "mean").any()


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e20, 3e38])
def test_pool_normalizes_vectors_whose_squares_leave_float32(kernels: Any, scale: float) -> None:
    hidden_bth = np.full((1, 1, 16), scale, dtype=np.float32)
    np.testing.assert_allclose(kernels.pool(hidden_bth, lengths(1), "mean"), 0.25, rtol=1e-6)


def test_pool_never_reads_padding(kernels: Any) -> None:
    hidden_bth = batch(3, 9, 12)
    lengths_b = lengths(1, 4, 8)
    expected_bh = kernels.pool(hidden_bth, lengths_b, "mean")
    for row, length in enumerate(lengths_b):
        hidden_bth[row, length:] = np.nan
    np.testing.assert_array_equal(kernels.pool(hidden_bth, lengths_b, "mean"), expected_bh)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_pool_keeps_nan_in_its_row(kernels: Any, mode: str, poison: float) -> None:
    hidden_bth = batch(3, 4, 10)
    hidden_bth[1, 0, 2] = poison
    pooled_bh = kernels.pool(hidden_bth, lengths(4, 4, 4), mode)
    assert np.isnan(pooled_bh[1, 2])
    assert np.isfinite(pooled_bh[[0, 2]]).all()


def test_pool_leaves_its_input_alone(kernels: Any) -> None:
    hidden_bth = batch(2, 3, 8)
    lengths_b = lengths(3, 1)
    before = hidden_bth.copy()
    hidden_bth.flags.writeable = False
    lengths_b.flags.writeable = False
    pooled_bh = kernels.pool(hidden_bth, lengths_b, "cls", normalize=False)
    pooled_bh += 1
    np.testing.assert_array_equal(hidden_bth, before)


@pytest.mark.parametrize("shape", [(0, 3, 4), (0, 0, 4), (2, 3, 0)])
def test_pool_takes_empty_batches(kernels: Any, shape: tuple[int, int, int]) -> None:
    hidden_bth = np.empty(shape, dtype=np.float32)
    lengths_b = np.ones(shape[0], dtype=np.int32)
    assert kernels.pool(hidden_bth, lengths_b, "mean").shape == (shape[0], shape[2])


@given(
    rows=st.integers(1, 5),
    tokens=st.integers(1, 21),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(["mean", "cls", "last"]),
    normalize=st.booleans(),
)
def test_pool_property(
    kernels: Any, rows: int, tokens: int, width: int, seed: int, mode: str, normalize: bool
) -> None:
    random = np.random.default_rng(seed)
    hidden_bth = random.normal(size=(rows, tokens, width)).astype(np.float32)
    lengths_b = random.integers(1, tokens + 1, size=rows, dtype=np.int32)
    pooled_bh = kernels.pool(hidden_bth, lengths_b, mode, normalize=normalize)
    expected_bh: npt.NDArray[Any] = masked_mean(hidden_bth, lengths_b)
    if mode != "mean":
        at_b = lengths_b * 0 if mode == "cls" else lengths_b - 1
        expected_bh = hidden_bth[np.arange(rows), at_b]
    if normalize:
        np.testing.assert_allclose(np.linalg.norm(pooled_bh, axis=1), 1, rtol=1e-5)
        expected_bh = expected_bh / np.linalg.norm(expected_bh, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled_bh, expected_bh, rtol=1e-3, atol=1e-5)


HIDDEN = batch(2, 3, 4)
LENGTHS = lengths(3, 1)


def misaligned(array: F32) -> F32:
    raw = np.empty(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(np.float32).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HIDDEN.tolist(), LENGTHS, "mean"), "hidden_bth: expected a numpy array, got list"),
        ((None, LENGTHS, "mean"), "hidden_bth: expected a numpy array, got NoneType"),
        (
            (HIDDEN.astype(np.float64), LENGTHS, "mean"),
            "hidden_bth: expected dtype float32, got float64",
        ),
        ((HIDDEN.astype(">f4"), LENGTHS, "mean"), "hidden_bth: expected dtype float32, got >f4"),
        ((HIDDEN, [3, 1], "mean"), "lengths_b: expected a numpy array, got list"),
        (
            (HIDDEN, LENGTHS.astype(np.int64), "mean"),
            "lengths_b: expected dtype int32, got int64",
        ),
        ((HIDDEN, LENGTHS, 1), "mode: expected str, got int"),
        ((HIDDEN, LENGTHS, "mean", 1), "normalize: expected bool, got int"),
        ((HIDDEN, LENGTHS, "mean", None), "normalize: expected bool, got NoneType"),
    ],
)
def test_pool_refuses_another_type(kernels: Any, arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        kernels.pool(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HIDDEN[0], LENGTHS, "mean"), "hidden_bth: expected ndim 3, got 2"),
        ((HIDDEN, LENGTHS[:, None], "mean"), "lengths_b: expected ndim 1, got 2"),
        (
            (HIDDEN.transpose(1, 0, 2), LENGTHS, "mean"),
            "hidden_bth: expected an aligned, C-contiguous array, got strides (16, 48, 4)",
        ),
        (
            (HIDDEN[:, ::2], LENGTHS, "mean"),
            "hidden_bth: expected an aligned, C-contiguous array, got strides (48, 32, 4)",
        ),
        (
            (misaligned(HIDDEN), LENGTHS, "mean"),
            "hidden_bth: expected an aligned, C-contiguous array, got strides (48, 16, 4)",
        ),
        (
            (HIDDEN, lengths(3, 0, 1, 0)[::2], "mean"),
            "lengths_b: expected an aligned, C-contiguous array, got strides (8,)",
        ),
        (
            (HIDDEN, lengths(1), "mean"),
            "lengths_b: expected 2 lengths, one for each row of hidden_bth, got 1",
        ),
        ((HIDDEN, lengths(0, 1), "mean"), "lengths_b[0]: expected a length in [1, 3], got 0"),
        ((HIDDEN, lengths(1, -1), "cls"), "lengths_b[1]: expected a length in [1, 3], got -1"),
        ((HIDDEN, lengths(3, 4), "mean"), "lengths_b[1]: expected a length in [1, 3], got 4"),
        ((HIDDEN[:, :0], LENGTHS, "mean"), "lengths_b[0]: expected a length in [1, 0], got 3"),
        ((HIDDEN, LENGTHS, "max"), "mode: expected 'mean', 'cls' or 'last', got 'max'"),
        ((HIDDEN, LENGTHS, "\udc80"), "mode: expected 'mean', 'cls' or 'last', got '\\udc80'"),
    ],
)
def test_pool_refuses_another_value(kernels: Any, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(hidden_bth|lengths_b|mode)") as caught:
        kernels.pool(*arguments)
    assert str(caught.value) == message


def test_pool_releases_the_gil() -> None:
    hidden_bth = batch(16, 256, 384)
    lengths_b = np.full(16, 256, dtype=np.int32)
    go, ran = threading.Event(), threading.Event()

    def run() -> None:
        go.wait()
        ran.set()

    other = threading.Thread(target=run)
    other.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(60)  # Until then the other thread runs only if `pool` lets it.
    try:
        go.set()
        for _ in range(1000):
            _array.pool(hidden_bth, lengths_b, "mean")
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval_s)
        other.join()
