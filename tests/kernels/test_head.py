from __future__ import annotations

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


def classify(*arguments: Any) -> tuple[I32, F32]:
    """`classify_head` of every implementation, which must agree."""
    got, expected = agree(
        lambda: _array.classify_head(*arguments), lambda: reference.classify_head(*arguments)
    )
    for one, other, dtype in zip(got, expected, (np.int32, np.float32), strict=True):
        assert one.dtype == other.dtype == dtype
        assert one.shape == other.shape
        assert one.flags.c_contiguous
        assert one.flags.writeable
    np.testing.assert_array_equal(got[0], expected[0])
    # The scores are the same to the last bit; only the exponential may be rounded differently.
    np.testing.assert_allclose(got[1], expected[1], rtol=2e-7, atol=1e-38)
    return expected


def head(rows: int, labels: int, width: int, seed: int = 0) -> tuple[F32, F32, F32]:
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(rows, width)).astype(np.float32),
        random.normal(size=(labels, width)).astype(np.float32),
        random.normal(size=labels).astype(np.float32),
    )


def softmax(logits_bk: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    powers_bk = np.exp((logits_bk - logits_bk.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(powers_bk / powers_bk.sum(axis=1, keepdims=True))


# Widths straddle the 8 sums, label counts the 4 labels of a pass.
@pytest.mark.parametrize("width", [0, 1, 7, 8, 9, 15, 16, 17, 384])
@pytest.mark.parametrize("labels", [1, 2, 3, 4, 5, 7, 8, 9, 77])
def test_head_is_a_softmax_of_a_matrix_product(width: int, labels: int) -> None:
    vectors_bh, weight_kh, bias_k = head(3, labels, width, seed=width * 100 + labels)
    indices_bk, probabilities_bk = classify(vectors_bh, weight_kh, bias_k, 0.7, labels)
    logits_bk = vectors_bh.astype(np.float64) @ weight_kh.astype(np.float64).T + bias_k
    expected_bk = np.take_along_axis(softmax(logits_bk, 0.7), indices_bk, axis=1)
    np.testing.assert_allclose(probabilities_bk, expected_bk, rtol=1e-6, atol=1e-44)
    np.testing.assert_array_equal(np.sort(indices_bk, axis=1), [[*range(labels)]] * 3)
    assert (np.diff(probabilities_bk, axis=1) <= 0).all()


@given(
    rows=st.integers(0, 5),
    labels=st.integers(1, 20),
    width=st.integers(0, 40),
    temperature=st.floats(0.02, 50),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_head_property(
    rows: int, labels: int, width: int, temperature: float, seed: int, data: st.DataObject
) -> None:
    vectors_bh, weight_kh, bias_k = head(rows, labels, width, seed)
    top_k = data.draw(st.integers(1, labels))
    full = classify(vectors_bh, weight_kh, bias_k, temperature, labels)
    cut = classify(vectors_bh, weight_kh, bias_k, temperature, top_k)
    np.testing.assert_allclose(full[1].sum(axis=1), np.ones(rows), rtol=1e-5)
    for whole, part in zip(full, cut, strict=True):
        assert part.shape == (rows, top_k)
        np.testing.assert_array_equal(whole[:, :top_k], part)


def test_head_equal_scores_keep_the_order_of_the_labels() -> None:
    vectors_bh, weight_kh, bias_k = head(2, 3, 20)
    indices_bk, probabilities_bk = classify(
        vectors_bh, np.tile(weight_kh, (5, 1)), np.tile(bias_k, 5), 1.0, 15
    )
    groups = indices_bk.reshape(2, 3, 5)
    np.testing.assert_array_equal(groups // 3, np.broadcast_to(np.arange(5), (2, 3, 5)))
    assert (groups % 3 == groups[..., :1] % 3).all()
    assert (np.diff(probabilities_bk.reshape(2, 3, 5), axis=2) == 0).all()


def test_head_keeps_the_order_where_probabilities_round_to_the_same() -> None:
    bias_k = np.array([0, 1, -1, 2], dtype=np.float32)
    empty_bh, empty_kh = np.empty((1, 0), np.float32), np.empty((4, 0), np.float32)
    indices_bk, probabilities_bk = classify(empty_bh, empty_kh, bias_k, 1e-3, 4)
    assert indices_bk.tolist() == [[3, 1, 0, 2]]
    assert probabilities_bk.tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize("temperature", [5e-324, 1e-3, 1.0, 1e3, 1.7e308])
def test_head_takes_the_largest_numbers(temperature: float) -> None:
    largest = float(np.finfo(np.float32).max)
    vectors_bh = np.array([[largest] * 9], dtype=np.float32)
    weight_kh = np.array([[largest] * 9, [-largest] * 9, [0.0] * 9], dtype=np.float32)
    indices_bk, probabilities_bk = classify(
        vectors_bh, weight_kh, np.full(3, -largest, np.float32), temperature, 3
    )
    assert indices_bk.tolist() == [[0, 2, 1]]
    assert np.isfinite(probabilities_bk).all()
    assert probabilities_bk.sum() == pytest.approx(1)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_head_has_no_answer_for_a_row_that_is_not_finite(poison: float) -> None:
    vectors_bh, weight_kh, bias_k = head(3, 6, 10)
    expected = classify(vectors_bh, weight_kh, bias_k, 1.0, 4)
    vectors_bh[1, 3] = poison
    indices_bk, probabilities_bk = classify(vectors_bh, weight_kh, bias_k, 1.0, 4)
    assert np.isnan(probabilities_bk[1]).all()
    assert indices_bk[1].tolist() == [0, 1, 2, 3]
    for row in (0, 2):
        np.testing.assert_array_equal(indices_bk[row], expected[0][row])
        np.testing.assert_array_equal(probabilities_bk[row], expected[1][row])


def test_head_label_of_minus_infinity_has_no_chance() -> None:
    vectors_bh, weight_kh, bias_k = head(2, 3, 8)
    bias_k[1] = -np.inf
    indices_bk, probabilities_bk = classify(vectors_bh, weight_kh, bias_k, 1.0, 3)
    assert indices_bk[:, 2].tolist() == [1, 1]
    assert probabilities_bk[:, 2].tolist() == [0, 0]
    bias_k[:] = -np.inf
    indices_bk, probabilities_bk = classify(vectors_bh, weight_kh, bias_k, 1.0, 2)
    assert indices_bk.tolist() == [[0, 1], [0, 1]]
    assert np.isnan(probabilities_bk).all()


def test_head_takes_no_rows_and_arrays_that_cannot_be_written() -> None:
    arrays = head(0, 4, 8)
    for array in arrays:
        array.flags.writeable = False
    indices_bk, probabilities_bk = classify(*arrays, 1.0, 2)
    assert indices_bk.shape == probabilities_bk.shape == (0, 2)


VECTORS, WEIGHT, BIAS = head(2, 3, 4)
SHAPE = (
    "weight_kh: expected shape (3, 4), a row for each of bias_k and a column for each of vectors_bh"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], WEIGHT, BIAS, 1.0, 1), "vectors_bh: expected a numpy array, got list"),
        (
            (VECTORS.astype(np.float64), WEIGHT, BIAS, 1.0, 1),
            "vectors_bh: expected dtype float32, got float64",
        ),
        ((VECTORS, None, BIAS, 1.0, 1), "weight_kh: expected a numpy array, got NoneType"),
        (
            (VECTORS, WEIGHT, BIAS.astype(np.int32), 1.0, 1),
            "bias_k: expected dtype float32, got int32",
        ),
        ((VECTORS, WEIGHT, BIAS, 1, 1), "temperature: expected float, got int"),
        (
            (VECTORS, WEIGHT, BIAS, np.float32(1), 1),
            "temperature: expected float, got float32",
        ),
        ((VECTORS, WEIGHT, BIAS, 1.0, 1.0), "top_k: expected int, got float"),
        ((VECTORS, WEIGHT, BIAS, 1.0, True), "top_k: expected int, got bool"),
        ((VECTORS, WEIGHT, BIAS, 1.0, None), "top_k: expected int, got NoneType"),
    ],
)
def test_head_refuses_another_type(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        classify(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VECTORS[0], WEIGHT, BIAS, 1.0, 1), "vectors_bh: expected ndim 2, got 1"),
        (
            (VECTORS[:, ::2], WEIGHT[:, :2], BIAS, 1.0, 1),
            "vectors_bh: expected an aligned, C-contiguous array, got strides (16, 8)",
        ),
        (
            (VECTORS, WEIGHT.T, BIAS, 1.0, 1),
            "weight_kh: expected an aligned, C-contiguous array, got strides (4, 16)",
        ),
        (
            (VECTORS, WEIGHT[:2], BIAS, 1.0, 1),
            f"{SHAPE}, got (2, 4)",
        ),
        (
            (VECTORS, WEIGHT[:, :3].copy(), BIAS, 1.0, 1),
            f"{SHAPE}, got (3, 3)",
        ),
        ((VECTORS, WEIGHT, BIAS, 0.0, 1), "temperature: expected a finite float above 0, got 0.0"),
        (
            (VECTORS, WEIGHT, BIAS, -2.5, 1),
            "temperature: expected a finite float above 0, got -2.5",
        ),
        (
            (VECTORS, WEIGHT, BIAS, float("nan"), 1),
            "temperature: expected a finite float above 0, got nan",
        ),
        (
            (VECTORS, WEIGHT, BIAS, np.float64(np.inf), 1),
            "temperature: expected a finite float above 0, got inf",
        ),
        ((VECTORS, WEIGHT, BIAS, 1.0, 0), "top_k: expected an int in [1, 3], got 0"),
        ((VECTORS, WEIGHT, BIAS, 1.0, 4), "top_k: expected an int in [1, 3], got 4"),
        (
            (VECTORS, WEIGHT, BIAS, 1.0, 10**30),
            f"top_k: expected an int in [1, 3], got {10**30}",
        ),
        (
            (VECTORS, WEIGHT[:0], BIAS[:0], 1.0, 1),
            "top_k: expected an int in [1, 0], got 1",
        ),
    ],
)
def test_head_refuses_bad_arrays_and_values(arguments: Any, message: str) -> None:
    with pytest.raises(
        ValueError, match=r"^(vectors_bh|weight_kh|bias_k|temperature|top_k)"
    ) as caught:
        classify(*arguments)
    assert str(caught.value) == message
