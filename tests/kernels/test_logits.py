from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import llguidance.numpy
import numpy as np
import numpy.typing as npt
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _logits, reference

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

NAN, INF = float("nan"), float("inf")
# Around the lanes of a vector, the words of a mask and the blocks of a sum.
WIDTHS = [1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 255, 256, 257, 300, 1025]


def f32(*values: float) -> F32:
    return np.array(values, dtype=np.float32)


def i32(*values: int) -> I32:
    return np.array(values, dtype=np.int32)


def i64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def noise(rows: int, width: int, seed: int = 0, scale: float = 3.0) -> F32:
    return np.random.default_rng(seed).normal(scale=scale, size=(rows, width)).astype(np.float32)


def bits(allowed_bv: npt.NDArray[np.bool_]) -> I32:
    """Pack booleans as llguidance does: 32 a word, the lowest bit first."""
    rows, width = allowed_bv.shape
    words = -(-width // 32)
    padded = np.zeros((rows, words * 32), dtype=np.bool_)
    padded[:, :width] = allowed_bv
    return np.packbits(padded, axis=1, bitorder="little").view("<i4").astype(np.int32)


def in_place(name: str, logits_bv: Any, *args: Any) -> Any:
    """Both implementations change a copy each, and must leave the same."""

    def changed(function: Callable[..., None]) -> Any:
        copy = logits_bv.copy() if isinstance(logits_bv, np.ndarray) else logits_bv
        if isinstance(copy, np.ndarray):
            copy.flags.writeable = logits_bv.flags.writeable
        assert function(copy, *args) is None
        return copy

    got, expected = agree(
        lambda: changed(getattr(_logits, name)), lambda: changed(getattr(reference, name))
    )
    np.testing.assert_array_equal(got, expected)
    return expected


def argmax(*args: Any) -> I32:
    got, expected = agree(lambda: _logits.argmax(*args), lambda: reference.argmax(*args))
    assert got.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(got, expected)
    return expected


def log_softmax(*args: Any) -> F32:
    got, expected = agree(lambda: _logits.log_softmax(*args), lambda: reference.log_softmax(*args))
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return expected


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
def test_mask_logits_does_what_llguidance_does(width: int, density: float) -> None:
    mask_bw = bits(np.random.default_rng(width).random((3, width)) < density)
    logits_bv = noise(3, width)
    expected_bv = logits_bv.copy()
    llguidance.numpy.apply_token_bitmask_inplace(expected_bv, mask_bw)
    np.testing.assert_array_equal(in_place("mask_logits", logits_bv, mask_bw), expected_bv)


@pytest.mark.parametrize("words", [0, 1, 2, 3, 9])
def test_mask_logits_takes_masks_of_any_width(words: int) -> None:
    masked_bv = in_place("mask_logits", noise(2, 70), np.full((2, words), -1, dtype=np.int32))
    np.testing.assert_array_equal(
        np.isfinite(masked_bv), np.arange(70)[None] < np.full((2, 1), words * 32)
    )


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_mask_logits_keeps_any_value_that_is_allowed(value: float) -> None:
    masked_bv = in_place("mask_logits", f32(value, value, 1)[None], i32(0b101)[None])
    np.testing.assert_array_equal(masked_bv, f32(value, -INF, 1)[None])


def test_bias_logits_adds_to_the_tokens_of_each_row() -> None:
    biased_bv = in_place(
        "bias_logits",
        np.zeros((3, 4), dtype=np.float32),
        i32(3, 0, 3, 2),
        f32(1, -2, 0.5, -INF),
        i64(0, 3, 3, 4),
    )
    np.testing.assert_array_equal(biased_bv, [[-2, 0, 0, 1.5], [0, 0, 0, 0], [0, 0, -INF, 0]])


def test_penalize_logits_follows_the_formula() -> None:
    penalized_bv = in_place(
        "penalize_logits",
        np.array([[2, -2, 0, 4, 5], [2, -2, 0, 4, 5]], dtype=np.float32),
        i32(3, 0, 3, 1, 2, 3, 0),
        i64(0, 6, 7),
        f32(2, 0.5),
        f32(0.5, 0),
        f32(0.25, -1),
    )
    np.testing.assert_array_equal(penalized_bv, [[0.25, -4.75, -0.75, 0.25, 5], [5, -2, 0, 4, 5]])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_penalize_logits_keeps_what_is_not_finite(value: float) -> None:
    one, zero = f32(1.5), f32(0.5)
    penalized_bv = in_place(
        "penalize_logits", f32(value, 3)[None], i32(0), i64(0, 1), one, zero, zero
    )
    np.testing.assert_array_equal(penalized_bv, f32(value, 3)[None])


@given(
    rows=st.integers(0, 4),
    width=st.integers(1, 80),
    count=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_logits_change_alike_property(rows: int, width: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = count if rows else 0
    offsets = np.sort(random.integers(0, count + 1, size=rows + 1))
    offsets[0], offsets[-1] = 0, count
    ids_n = random.integers(0, width, size=count, dtype=np.int32)
    logits_bv = noise(rows, width, seed)
    in_place("bias_logits", logits_bv, ids_n, random.normal(size=count).astype(np.float32), offsets)
    penalties = [random.uniform(0.1, 3, size=rows).astype(np.float32) for _ in range(3)]
    in_place("penalize_logits", logits_bv, ids_n, offsets, *penalties)
    in_place("mask_logits", logits_bv, random.integers(-(2**31), 2**31, (rows, 2), np.int32))


@pytest.mark.parametrize("width", WIDTHS)
def test_argmax_takes_the_lowest_of_the_best(width: int) -> None:
    logits_bv = np.round(noise(5, width, scale=1.0))  # few values, so there are ties
    np.testing.assert_array_equal(argmax(logits_bv), np.argmax(logits_bv, axis=1))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("density", [0.03, 0.5, 1.0])
def test_argmax_sees_only_what_the_mask_allows(width: int, density: float) -> None:
    random = np.random.default_rng(width)
    allowed_bv = random.random((4, width)) < density
    allowed_bv[np.arange(4), random.integers(0, width, 4)] = True
    logits_bv = np.round(noise(4, width))
    hidden_bv = np.where(allowed_bv, logits_bv, np.float32(NAN))
    expected_b = np.argmax(np.where(allowed_bv, logits_bv, -np.inf), axis=1)
    np.testing.assert_array_equal(argmax(logits_bv, bits(allowed_bv)), expected_b)
    np.testing.assert_array_equal(argmax(hidden_bv, bits(allowed_bv)), expected_b)


def test_argmax_forbids_what_the_mask_does_not_reach() -> None:
    logits_bv = np.arange(70, dtype=np.float32)[None]
    assert argmax(logits_bv, i32(-1, -1)[None]) == 63


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_log_softmax_follows_the_formula(width: int, scale: float) -> None:
    logits_bv = noise(3, width, scale=scale)
    wide_bv = logits_bv.astype(np.float64)
    expected_bv = wide_bv - np.logaddexp.reduce(wide_bv, axis=1, keepdims=True)
    ids_n = np.tile(np.arange(width, dtype=np.int32), 3)
    found_n = log_softmax(logits_bv, ids_n, np.arange(4) * width)
    np.testing.assert_allclose(found_n.reshape(3, width), expected_bv, rtol=1e-5, atol=1e-5)
    one_b = log_softmax(logits_bv, i32(0, width - 1, width // 2))
    np.testing.assert_array_equal(one_b, found_n[[0, 2 * width - 1, 2 * width + width // 2]])


@pytest.mark.parametrize("shift", [-3e38, -1e4, 1e4, 3e38])
def test_log_softmax_survives_great_logits(shift: float) -> None:
    logits_bv = np.full((1, 40), shift, dtype=np.float32)
    np.testing.assert_allclose(log_softmax(logits_bv, i32(7)), -np.log(40), rtol=1e-5)


def test_log_softmax_of_a_forbidden_token_is_minus_infinity() -> None:
    np.testing.assert_array_equal(
        log_softmax(f32(1, -INF)[None], i32(1, 0), i64(0, 2)), f32(-INF, 0)
    )


@given(
    rows=st.integers(0, 4),
    width=st.integers(1, 600),
    count=st.integers(0, 20),
    scale=st.sampled_from([0.01, 1.0, 20.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_log_softmax_property(rows: int, width: int, count: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = count if rows else 0
    offsets = np.sort(random.integers(0, count + 1, size=rows + 1))
    offsets[0], offsets[-1] = 0, count
    ids_n = random.integers(0, width, size=count, dtype=np.int32)
    assert log_softmax(noise(rows, width, seed, scale), ids_n, offsets).shape == (count,)


LOGITS = noise(2, 40)
IDS = i32(0, 39)
MASK = np.full((2, 2), -1, dtype=np.int32)
TWO = f32(1, 1)


def misaligned(array: F32) -> F32:
    raw = np.empty(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(np.float32).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: F32) -> F32:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def call(name: str, *args: Any) -> Any:
    if name in ("argmax", "log_softmax"):
        return agree(lambda: getattr(_logits, name)(*args), lambda: getattr(reference, name)(*args))
    return in_place(name, *args)


REST = {
    "mask_logits": (MASK,),
    "bias_logits": (IDS, TWO, i64(0, 1, 2)),
    "penalize_logits": (IDS, i64(0, 1, 2), TWO, TWO, TWO),
    "argmax": (MASK,),
    "log_softmax": (IDS, i64(0, 1, 2)),
}


@pytest.mark.parametrize("name", REST)
@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (None, TypeError, "expected a numpy array, got NoneType"),
        (LOGITS.tolist(), TypeError, "expected a numpy array, got list"),
        (LOGITS.astype(np.float64), TypeError, "expected dtype float32, got float64"),
        (LOGITS.astype(">f4"), TypeError, "expected dtype float32, got >f4"),
        (LOGITS[0], ValueError, "expected ndim 2, got 1"),
    ],
)
def test_logits_refuse_another_array(
    name: str, logits: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        call(name, logits, *REST[name])
    assert str(caught.value) == f"logits_bv: {message}"


@pytest.mark.parametrize("name", REST)
@pytest.mark.parametrize("logits", [noise(2, 80)[:, ::2], noise(40, 2).T, misaligned(LOGITS)])
def test_logits_refuse_another_layout(name: str, logits: F32) -> None:
    function, twin = getattr(_logits, name), getattr(reference, name)
    with pytest.raises(ValueError, match=r"logits_bv: expected an aligned, C-contiguous array"):
        agree(lambda: function(logits, *REST[name]), lambda: twin(logits, *REST[name]))


@pytest.mark.parametrize("name", REST)
def test_logits_have_tokens_that_int32_can_name(name: str) -> None:
    with pytest.raises(ValueError, match="logits_bv: expected at most 2147483647 tokens a row"):
        call(name, np.empty((0, 2**31), dtype=np.float32), *REST[name])


@pytest.mark.parametrize("name", ["mask_logits", "bias_logits", "penalize_logits"])
def test_logits_change_only_what_is_writable(name: str) -> None:
    with pytest.raises(ValueError, match=r"logits_bv: expected a writable array"):
        call(name, read_only(LOGITS), *REST[name])


@pytest.mark.parametrize("name", ["argmax", "log_softmax"])
def test_logits_that_are_read_only_can_be_read(name: str) -> None:
    call(name, read_only(LOGITS), *REST[name])


@pytest.mark.parametrize("name", REST)
def test_logits_take_no_rows(name: str) -> None:
    rest = {
        "mask_logits": (MASK[:0],),
        "bias_logits": (IDS[:0], TWO[:0], i64(0)),
        "penalize_logits": (IDS[:0], i64(0), TWO[:0], TWO[:0], TWO[:0]),
        "argmax": (MASK[:0],),
        "log_softmax": (IDS[:0], i64(0)),
    }
    for width in (0, 5):
        call(name, np.empty((0, width), dtype=np.float32), *rest[name])


@pytest.mark.parametrize(
    ("name", "args", "error", "message"),
    [
        ("mask_logits", (None,), TypeError, "mask_bw: expected a numpy array, got NoneType"),
        ("mask_logits", (TWO,), TypeError, "mask_bw: expected dtype int32, got float32"),
        ("argmax", (MASK[0],), ValueError, "mask_bw: expected ndim 2, got 1"),
        (
            "argmax",
            (MASK[:1],),
            ValueError,
            "mask_bw: expected 2 rows, one for each row of logits_bv, got 1",
        ),
        (
            "mask_logits",
            (np.full((2, 4), -1, dtype=np.int32)[:, ::2],),
            ValueError,
            "mask_bw: expected an aligned, C-contiguous array, got strides (16, 8)",
        ),
        ("log_softmax", ([0, 1],), TypeError, "ids_n: expected a numpy array, got list"),
        (
            "log_softmax",
            (i64(0, 1),),
            TypeError,
            "ids_n: expected dtype int32, got int64",
        ),
        (
            "log_softmax",
            (i32(0),),
            ValueError,
            "ids_n: expected 2 values, one for each row of logits_bv, got 1",
        ),
        (
            "log_softmax",
            (i32(0, 40),),
            ValueError,
            "ids_n[1]: expected a value in [0, 40), got 40",
        ),
        (
            "bias_logits",
            (i32(-1, 0), TWO, i64(0, 1, 2)),
            ValueError,
            "ids_n[0]: expected a value in [0, 40), got -1",
        ),
        (
            "log_softmax",
            (IDS, i64(0, 2)),
            ValueError,
            "offsets: expected 3 values, one more than rows of logits_bv, got 2",
        ),
        (
            "log_softmax",
            (IDS, i64(0, 2, 1)),
            ValueError,
            "offsets[2]: expected a value in [2, 2], got 1",
        ),
        (
            "bias_logits",
            (IDS, TWO, i64(0, 2, 3)),
            ValueError,
            "offsets[2]: expected a value in [2, 2], got 3",
        ),
        ("log_softmax", (IDS, i64(1, 1, 2)), ValueError, "offsets[0]: expected 0, got 1"),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 1), TWO, TWO, TWO),
            ValueError,
            "offsets[2]: expected 2, got 1",
        ),
        (
            "bias_logits",
            (IDS, f32(1), i64(0, 1, 2)),
            ValueError,
            "biases_n: expected 2 values, one for each of ids_n, got 1",
        ),
        (
            "bias_logits",
            (IDS, f32(1, NAN), i64(0, 1, 2)),
            ValueError,
            "biases_n[1]: expected a finite bias or -inf, got nan",
        ),
        (
            "bias_logits",
            (IDS, f32(INF, 1), i64(0, 1, 2)),
            ValueError,
            "biases_n[0]: expected a finite bias or -inf, got inf",
        ),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 2), f32(1, 0), TWO, TWO),
            ValueError,
            "repeat_b[1]: expected a finite number above 0, got 0.0",
        ),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 2), f32(INF, 1), TWO, TWO),
            ValueError,
            "repeat_b[0]: expected a finite number above 0, got inf",
        ),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 2), TWO, f32(0, NAN), TWO),
            ValueError,
            "frequency_b[1]: expected a finite number, got nan",
        ),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 2), TWO, TWO, f32(-INF, 0)),
            ValueError,
            "presence_b[0]: expected a finite number, got -inf",
        ),
        (
            "penalize_logits",
            (IDS, i64(0, 1, 2), TWO, TWO, f32(1)),
            ValueError,
            "presence_b: expected 2 values, one for each row of logits_bv, got 1",
        ),
    ],
)
def test_logits_refuse_other_arguments(
    name: str, args: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        call(name, LOGITS, *args)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["argmax", "log_softmax"])
@pytest.mark.parametrize("width", [1, 5, 33, 300])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "logits_bv[1]: expected numbers below infinity, got nan"),
        (INF, "logits_bv[1]: expected numbers below infinity, got inf"),
        (-INF, "logits_bv[1]: expected an allowed token of finite logit, got none"),
    ],
)
def test_logits_without_a_best_token_name_the_row(
    name: str, width: int, value: float, message: str
) -> None:
    for place in {0, width // 2, width - 1}:
        logits_bv = noise(3, width)
        if value == -INF:
            logits_bv[1] = value
        logits_bv[1:, place] = value
        with pytest.raises(ValueError, match=r"^logits_bv\[1\]") as caught:
            call(name, logits_bv, *([i32(0, 0, 0)] if name == "log_softmax" else []))
        assert str(caught.value) == message


@pytest.mark.parametrize("words", [0, 2])
def test_argmax_refuses_a_mask_that_allows_nothing(words: int) -> None:
    mask_bw = np.zeros((2, words), dtype=np.int32)
    with pytest.raises(ValueError, match=r"^logits_bv\[0\]: expected an allowed token"):
        argmax(LOGITS, mask_bw)


def test_logits_leave_the_gil_to_others() -> None:
    logits_bv = noise(16, 49152)
    go, ran = threading.Event(), threading.Event()

    def run() -> None:
        go.wait()
        ran.set()

    other = threading.Thread(target=run)
    other.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        go.set()
        for _ in range(1000):
            _logits.argmax(logits_bv)
            if ran.is_set():
                break
        assert ran.is_set()
    finally:
        sys.setswitchinterval(interval_s)
        other.join()
