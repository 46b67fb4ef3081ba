from __future__ import annotations

from collections import Counter
from typing import Any

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
SLACK = 1e-5


def noise(rows: int, width: int, seed: int = 0, scale: float = 3.0) -> F32:
    return np.random.default_rng(seed).normal(scale=scale, size=(rows, width)).astype(np.float32)


def arguments(
    logits_bv: F32,
    coin: Any = 0.5,
    temperature: Any = 1,
    top_k: Any = 0,
    top_p: Any = 1,
    min_p: Any = 0,
) -> tuple[Any, ...]:
    """Fill up rows from what is one for all or one a row."""
    rows = len(logits_bv)
    return (
        logits_bv,
        np.full(rows, coin, dtype=np.float64),
        np.full(rows, temperature, dtype=np.float32),
        np.full(rows, top_k, dtype=np.int32),
        np.full(rows, top_p, dtype=np.float32),
        np.full(rows, min_p, dtype=np.float32),
    )


def within_slack(token: int, row: tuple[Any, ...]) -> bool:
    """Whether the specification gives this token for arguments that hardly differ."""
    logits, coin, temperature, top_k, top_p, min_p, *mask = row

    def chosen(nudge: float, top_p: F32) -> int:
        nudged = np.clip(coin + nudge, 0, np.nextafter(1, 0))
        return int(reference.sample(logits, nudged, temperature, top_k, top_p, min_p, *mask)[0])

    # Tokens come in the order of coins.
    return any(
        chosen(-SLACK, near) <= token <= chosen(SLACK, near)
        for near in (top_p, *(np.clip(top_p + d, 1e-9, 1) for d in np.float32([-SLACK, SLACK])))
    )


def sample(logits_bv: F32, *, mask_bw: I32 | None = None, **rest: Any) -> I32:
    """Sample on every implementation."""
    args = (*arguments(logits_bv, **rest), *([] if mask_bw is None else [mask_bw]))
    got, expected = agree(lambda: _logits.sample(*args), lambda: reference.sample(*args))
    assert got.dtype == expected.dtype == np.int32
    assert got.shape == expected.shape == (len(logits_bv),)
    for row in np.flatnonzero(got != expected):
        assert within_slack(got[row], tuple(arg[row : row + 1] for arg in args))
    return got


def frequencies(logits_v: F32, coins: int = 4000, **rest: Any) -> dict[int, float]:
    """How often each token comes for evenly spread coins."""
    spread = (np.arange(coins) + 0.5) / coins
    chosen = sample(np.tile(logits_v, (coins, 1)), coin=spread, **rest)
    return {token: count / coins for token, count in sorted(Counter(chosen.tolist()).items())}


PROBABILITIES = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
FIVE = np.log(PROBABILITIES).astype(np.float32)


def close(expected: dict[int, float]) -> Any:
    return pytest.approx(expected, abs=0.001)


def test_sample_draws_tokens_by_probability() -> None:
    assert frequencies(FIVE) == close(dict(enumerate(PROBABILITIES)))


def test_sample_temperature_is_a_power() -> None:
    powers = PROBABILITIES ** (1 / 0.5)
    assert frequencies(FIVE, temperature=0.5) == close(dict(enumerate(powers / powers.sum())))


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_k": 5}, [0, 1, 2, 3, 4]),
        ({"top_k": 2**31 - 1}, [0, 1, 2, 3, 4]),
        ({"top_p": 1e-9}, [1]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 0.84}, [1, 3, 4]),
        ({"top_p": 0.86}, [0, 1, 3, 4]),
        ({"top_p": 0.99999}, [0, 1, 2, 3, 4]),
        ({"min_p": 1}, [1]),
        ({"min_p": 0.74}, [1, 3]),
        ({"min_p": 0.13}, [0, 1, 3, 4]),
        ({"min_p": 1e-30}, [0, 1, 2, 3, 4]),
        ({"top_k": 2, "top_p": 0.58}, [1, 3]),  # 0.4 / 0.7 is less than that
        ({"top_k": 2, "top_p": 0.57}, [1]),
        ({"top_p": 0.86, "min_p": 0.74}, [1, 3]),
        ({"top_p": 0.41, "min_p": 0.13}, [1, 3]),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sample_filters_keep_the_best(
    filters: dict[str, float], kept: list[int], temperature: float
) -> None:
    weights = PROBABILITIES[kept] ** (1 / temperature)
    expected = dict(zip(kept, weights / weights.sum(), strict=True))
    assert frequencies(FIVE, temperature=temperature, **filters) == close(expected)


@pytest.mark.parametrize("width", [1, 40, 129, 700])
@pytest.mark.parametrize("kept", [1, 2, 39])
def test_sample_filters_prefer_the_lower_of_equal_tokens(width: int, kept: int) -> None:
    kept = min(kept, width)
    logits_v = np.zeros(width, dtype=np.float32)
    for filters in ({"top_k": kept}, {"top_p": (kept - 0.5) / width}):
        assert list(frequencies(logits_v, coins=997, **filters)) == [*range(kept)]


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 9e-7])
def test_sample_greedy_takes_the_lowest_of_the_best(temperature: float) -> None:
    logits_bv = np.round(noise(7, 300))
    chosen_b = sample(logits_bv, temperature=temperature, coin=0.99, top_k=3)
    np.testing.assert_array_equal(chosen_b, np.argmax(logits_bv, axis=1))


def test_sample_low_temperatures_are_almost_greedy() -> None:
    logits_bv = noise(7, 300)
    chosen_b = sample(logits_bv, temperature=1e-6, coin=0.99)
    np.testing.assert_array_equal(chosen_b, np.argmax(logits_bv, axis=1))


@pytest.mark.parametrize("coin", [0, 0.5, np.nextafter(1, 0)])
@pytest.mark.parametrize("filters", [{}, {"top_k": 30}, {"top_p": 0.99}, {"min_p": 1e-9}])
def test_sample_never_chooses_what_is_forbidden(coin: float, filters: dict[str, float]) -> None:
    for width in (1, 31, 32, 33, 257, 600):
        for allowed in {0, width // 2, width - 1}:
            logits_bv = np.full((1, width), -INF, dtype=np.float32)
            logits_bv[0, allowed] = 1
            assert sample(logits_bv, coin=coin, **filters) == allowed
            mask_bw = np.zeros((1, -(-width // 32)), dtype=np.int32)
            mask_bw.view(np.uint32)[0, allowed // 32] = 1 << allowed % 32
            hidden_bv = np.full((1, width), NAN, dtype=np.float32)
            hidden_bv[0, allowed] = 1
            assert sample(hidden_bv, coin=coin, mask_bw=mask_bw, **filters) == allowed


def test_sample_masks_before_it_filters() -> None:
    mask_bw = np.array([[0b10101]] * 4000, dtype=np.int32)
    assert frequencies(FIVE, top_k=2, mask_bw=mask_bw) == close({0: 0.4, 4: 0.6})


def test_sample_rows_have_settings_of_their_own() -> None:
    chosen_b = sample(
        np.tile(FIVE, (4, 1)),
        coin=[0.99, 0.99, 0.99, 0.0],
        temperature=[0, 1, 1, 1],
        top_k=[0, 2, 0, 0],
        top_p=[1, 1, 0.2, 1],
        min_p=[0, 0, 0, 0.3],
    )
    np.testing.assert_array_equal(chosen_b, [1, 3, 1, 1])


@pytest.mark.parametrize("shape", ["flat", "normal", "peaked", "ties", "rising", "falling", "two"])
@pytest.mark.parametrize("width", [127, 128, 129, 257, 5000, 49152])
def test_sample_agrees_on_every_shape_of_logits(shape: str, width: int) -> None:
    logits_bv = {
        "flat": np.zeros((1, width)),
        "normal": noise(1, width, scale=1),
        "peaked": noise(1, width, scale=8),
        "ties": np.round(noise(1, width, scale=1)),
        "rising": np.linspace(-20, 0, width)[None],
        "falling": np.linspace(0, -200, width)[None],
        "two": np.where(np.arange(width) % 97, -30, 5)[None],
    }[shape].astype(np.float32)
    for coin in (0.0, 0.3, 0.999)[: 3 if width < 10_000 else 1]:
        for filters in (
            {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
            {"top_k": width // 2, "top_p": 0.5},
            {"top_k": width - 1},
            {"top_p": 0.05, "temperature": 2},
            {"top_p": 0.9},
            {"top_p": 0.999999, "temperature": 0.5},
            {"min_p": 0.1},
            {"temperature": 100},
        ):
            sample(logits_bv, coin=coin, **filters)


@given(
    rows=st.integers(0, 3),
    width=st.integers(1, 700),
    scale=st.sampled_from([0.0, 0.5, 3.0, 30.0]),
    rounded=st.booleans(),
    masked=st.booleans(),
    top_k=st.one_of(st.just(0), st.integers(1, 800)),
    top_p=st.one_of(st.just(1.0), st.floats(1e-6, 1.0)),
    min_p=st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
    temperature=st.one_of(st.just(0.0), st.floats(0.01, 10.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_sample_property(
    rows: int,
    width: int,
    scale: float,
    rounded: bool,
    masked: bool,
    top_k: int,
    top_p: float,
    min_p: float,
    temperature: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    logits_bv = noise(rows, width, seed, scale)
    mask_bw = random.integers(-(2**31), 2**31, (rows, -(-width // 32)), np.int32)
    mask_bw[:, 0] |= 1
    sample(
        np.round(logits_bv) if rounded else logits_bv,
        coin=random.random(rows),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        mask_bw=mask_bw if masked else None,
    )


LOGITS = noise(2, 40)
GOOD = arguments(LOGITS)
NAMES = ["logits_bv", "coins_b", "temperature_b", "top_k_b", "top_p_b", "min_p_b", "mask_bw"]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("logits_bv", None, TypeError, "logits_bv: expected a numpy array, got NoneType"),
        ("logits_bv", LOGITS[0], ValueError, "logits_bv: expected ndim 2, got 1"),
        (
            "logits_bv",
            noise(2, 80)[:, ::2],
            ValueError,
            "logits_bv: expected an aligned, C-contiguous array, got strides (320, 8)",
        ),
        ("coins_b", [0.5, 0.5], TypeError, "coins_b: expected a numpy array, got list"),
        (
            "coins_b",
            np.zeros(2, dtype=np.float32),
            TypeError,
            "coins_b: expected dtype float64, got float32",
        ),
        (
            "coins_b",
            np.zeros(3),
            ValueError,
            "coins_b: expected 2 values, one for each row of logits_bv, got 3",
        ),
        ("coins_b", np.zeros((2, 1)), ValueError, "coins_b: expected ndim 1, got 2"),
        *(
            (name, np.array([1, value], dtype=dtype), ValueError, f"{name}[1]: expected {text}")
            for name, value, dtype, text in (
                ("temperature_b", -0.5, np.float32, "a value finite and at least 0, got -0.5"),
                ("temperature_b", INF, np.float32, "a value finite and at least 0, got inf"),
                ("temperature_b", NAN, np.float32, "a value finite and at least 0, got nan"),
                ("top_k_b", -1, np.int32, "a value at least 0, got -1"),
                ("top_p_b", 0.0, np.float32, "a value in (0, 1], got 0.0"),
                ("top_p_b", 1.5, np.float32, "a value in (0, 1], got 1.5"),
                ("top_p_b", NAN, np.float32, "a value in (0, 1], got nan"),
                ("min_p_b", -0.5, np.float32, "a value in [0, 1], got -0.5"),
                ("min_p_b", NAN, np.float32, "a value in [0, 1], got nan"),
            )
        ),
        *(
            (
                "coins_b",
                np.array([0.0, coin]),
                ValueError,
                f"coins_b[1]: expected a value in [0, 1), got {coin}",
            )
            for coin in (1.0, -0.1, NAN)
        ),
        ("mask_bw", [[1], [1]], TypeError, "mask_bw: expected a numpy array, got list"),
        (
            "mask_bw",
            np.zeros((1, 2), dtype=np.int32),
            ValueError,
            "mask_bw: expected 2 rows, one for each row of logits_bv, got 1",
        ),
        (
            "mask_bw",
            np.zeros((2, 2), dtype=np.int32),
            ValueError,
            "logits_bv[0]: expected an allowed token of finite logit, got none",
        ),
    ],
)
def test_sample_refuses_other_arguments(
    name: str, value: Any, error: type[Exception], message: str
) -> None:
    args = dict(zip(NAMES, GOOD, strict=False)) | {name: value}
    with pytest.raises(error) as caught:
        agree(lambda: _logits.sample(**args), lambda: reference.sample(**args))
    assert str(caught.value) == message


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "logits_bv[1]: expected numbers below infinity, got nan"),
        (INF, "logits_bv[1]: expected numbers below infinity, got inf"),
        (-INF, "logits_bv[1]: expected an allowed token of finite logit, got none"),
    ],
)
def test_sample_names_the_row_that_has_no_answer(
    temperature: float, value: float, message: str
) -> None:
    logits_bv = noise(3, 50)
    logits_bv[1] = value
    with pytest.raises(ValueError, match=r"^logits_bv\[1\]") as caught:
        sample(logits_bv, temperature=temperature)
    assert str(caught.value) == message


def test_sample_leaves_its_input_alone() -> None:
    args = [argument.copy() for argument in GOOD]
    for argument in args:
        argument.flags.writeable = False
    _logits.sample(*args)
    for argument, before in zip(args, GOOD, strict=True):
        np.testing.assert_array_equal(argument, before)
