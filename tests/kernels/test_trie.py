from __future__ import annotations

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
Labels = list[tuple[int, ...]]

END = 0


def score_trie(*arguments: Any) -> F32:
    """`score_trie` of every implementation, which must agree."""
    got, expected = agree(
        lambda: _labels.score_trie(*arguments), lambda: reference.score_trie(*arguments)
    )
    assert got.dtype == expected.dtype == np.float32
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return expected


def ids(*values: int) -> I32:
    return np.array(values, dtype=np.int32)


def trie(labels: Labels, *, every_row: bool) -> tuple[I32, I32, I32, dict[tuple[int, ...], int]]:
    """Nodes of the labels' tokens, with a row of logits for each that needs one."""
    nodes: dict[tuple[int, ...], int] = {(): 0}
    for label in labels:
        for end in range(1, len(label) + 1):
            nodes.setdefault(label[:end], len(nodes))
    parents = ids(*(nodes[path[:-1]] if path else -1 for path in nodes))
    tokens = ids(*(path[-1] if path else -1 for path in nodes))
    children = np.bincount(parents[1:], minlength=len(nodes))
    needed = children >= (1 if every_row else 2)
    rows = np.where(needed, np.cumsum(needed) - 1, -1).astype(np.int32)
    return parents, tokens, rows, nodes


def log_softmax(logits_v: F32) -> npt.NDArray[np.float64]:
    wide_v = logits_v.astype(np.float64) - logits_v.max()
    return np.asarray(wide_v - np.log(np.exp(wide_v).sum()))


label_sets = st.lists(
    st.lists(st.integers(1, 6), max_size=4).map(lambda tokens: (*tokens, END)),
    min_size=1,
    max_size=12,
    unique=True,
)


@given(labels=label_sets, width=st.integers(7, 70), seed=st.integers(0, 2**32 - 1))
def test_trie_full_is_the_probability_of_each_string(labels: Labels, width: int, seed: int) -> None:
    parents, tokens, rows, nodes = trie(labels, every_row=True)
    logits = np.random.default_rng(seed).normal(0, 4, (rows.max() + 1, width)).astype(np.float32)
    scores = score_trie(logits, parents, tokens, rows, "full")
    for label in labels:
        expected = sum(
            log_softmax(logits[rows[nodes[label[:at]]]])[token] for at, token in enumerate(label)
        )
        assert scores[nodes[label]] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(labels=label_sets, width=st.integers(7, 70), seed=st.integers(0, 2**32 - 1))
def test_trie_constrained_is_decoding_under_a_grammar(
    labels: Labels, width: int, seed: int
) -> None:
    parents, tokens, rows, nodes = trie(labels, every_row=False)
    logits = np.random.default_rng(seed).normal(0, 4, (rows.max() + 1, width)).astype(np.float32)
    scores = score_trie(logits, parents, tokens, rows, "constrained")
    ends = [nodes[label] for label in labels]
    assert np.exp(scores[ends]).sum() == pytest.approx(1, abs=1e-5)
    for label in labels:
        expected = 0.0
        for at, token in enumerate(label):
            followers = sorted({one[at] for one in labels if one[:at] == label[:at]})
            if len(followers) > 1:
                allowed = logits[rows[nodes[label[:at]]]][followers]
                expected += log_softmax(allowed)[followers.index(token)]
        assert scores[nodes[label]] == pytest.approx(expected, rel=1e-5, abs=1e-5)


# Sizes straddle the lanes and the blocks of the sum over a row.
@pytest.mark.parametrize("width", [1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1000, 49152])
def test_trie_full_sums_the_whole_row(width: int) -> None:
    logits = np.random.default_rng(width).normal(0, 8, (1, width)).astype(np.float32)
    scores = score_trie(logits, ids(-1, 0), ids(-1, width - 1), ids(0, -1), "full")
    assert scores[1] == pytest.approx(log_softmax(logits[0])[-1], rel=1e-5, abs=1e-5)


def test_trie_prefix_labels_share_the_mass_of_their_node() -> None:
    labels = [(1, END), (1, 2, END), (3, END)]
    parents, tokens, rows, nodes = trie(labels, every_row=False)
    logits = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    chances = np.exp(score_trie(logits, parents, tokens, rows, "constrained"))
    both = chances[nodes[1, END]] + chances[nodes[1, 2, END]]
    assert both == pytest.approx(chances[nodes[1,]], rel=1e-5)
    assert chances[nodes[3, END]] == chances[nodes[3,]]


def test_trie_cut_branch_bounds_what_is_below() -> None:
    labels = [(1, 2, END), (1, 3, END), (4, END)]
    parents, tokens, rows, nodes = trie(labels, every_row=False)
    logits = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32)
    whole = score_trie(logits, parents, tokens, rows, "constrained")
    kept = [nodes[path] for path in ((), (1,), (4,), (4, END))]
    cut_parents = ids(-1, 0, 0, 2)
    cut = score_trie(logits, cut_parents, tokens[kept].copy(), ids(0, -1, -1, -1), "constrained")
    np.testing.assert_allclose(cut, whole[kept], rtol=1e-6)


@pytest.mark.parametrize("mode", ["constrained", "full"])
def test_trie_of_the_root_alone(mode: str) -> None:
    empty = np.empty((0, 4), np.float32)
    assert score_trie(empty, ids(-1), ids(-1), ids(-1), mode).tolist() == [0]


def test_trie_takes_unused_rows_and_arrays_that_cannot_be_written() -> None:
    logits = np.full((3, 4), np.nan, np.float32)
    logits[1] = [0, 1, 2, 3]
    arrays = (logits, ids(-1, 0, 0), ids(-1, 3, 1), ids(1, 2, 0))
    for array in arrays:
        array.flags.writeable = False
    for mode in ("constrained", "full"):
        assert np.isfinite(score_trie(*arrays, mode)).all()


def test_trie_constrained_never_reads_other_tokens() -> None:
    logits = np.array([[np.nan, 1, np.inf, 1]], np.float32)
    scores = score_trie(logits, ids(-1, 0, 0), ids(-1, 1, 3), ids(0, -1, -1), "constrained")
    np.testing.assert_allclose(scores, [0, np.log(0.5), np.log(0.5)], rtol=1e-6)


@pytest.mark.parametrize("mode", ["constrained", "full"])
def test_trie_token_of_minus_infinity_has_no_chance(mode: str) -> None:
    logits = np.array([[0, -np.inf, 1, 2], [0, 1, 2, 3]], np.float32)
    arrays = (ids(-1, 0, 0, 1, 1), ids(-1, 1, 2, 0, 3), ids(0, 1, -1, -1, -1))
    scores = score_trie(logits, *arrays, mode)
    assert scores[[1, 3, 4]].tolist() == [-np.inf] * 3
    assert np.isfinite(scores[2])


@pytest.mark.parametrize("mode", ["constrained", "full"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan, 0, 0], "numbers below infinity, got nan"),
        ([np.inf, 0, 0], "numbers below infinity, got inf"),
        ([np.inf, np.nan, 0], "numbers below infinity, got nan"),
        ([-np.inf] * 3, "an allowed token of finite logit, got none"),
    ],
)
def test_trie_refuses_rows_without_probabilities(
    mode: str, values: list[float], message: str
) -> None:
    logits = np.array([[0, 0, 0], values], np.float32)
    with pytest.raises(ValueError, match=r"^logits_rv") as caught:
        score_trie(logits, ids(-1, 0, 0, 2, 2), ids(-1, 0, 1, 0, 1), ids(0, -1, 1, -1, -1), mode)
    assert str(caught.value) == f"logits_rv[1]: expected {message}"


LOGITS = np.zeros((2, 5), np.float32)
PARENTS, TOKENS, ROWS = ids(-1, 0, 0, 1), ids(-1, 2, 4, 2), ids(0, 1, -1, -1)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, LOGITS.astype(np.float64), "logits_rv: expected dtype float32, got float64"),
        (0, None, "logits_rv: expected a numpy array, got NoneType"),
        (1, PARENTS.astype(np.int64), "parents_n: expected dtype int32, got int64"),
        (2, [0, 1], "tokens_n: expected a numpy array, got list"),
        (3, ROWS.astype(np.int16), "rows_n: expected dtype int32, got int16"),
        (4, None, "mode: expected str, got NoneType"),
    ],
)
def test_trie_refuses_another_type(at: int, value: Any, message: str) -> None:
    arguments: list[Any] = [LOGITS, PARENTS, TOKENS, ROWS, "full"]
    arguments[at] = value
    with pytest.raises(TypeError) as caught:
        score_trie(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: LOGITS[0]}, "logits_rv: expected ndim 2, got 1"),
        (
            {0: LOGITS.T},
            "logits_rv: expected an aligned, C-contiguous array, got strides (4, 20)",
        ),
        ({1: PARENTS[None]}, "parents_n: expected ndim 1, got 2"),
        ({1: ids(), 2: ids(), 3: ids()}, "parents_n: expected at least 1 node, got 0"),
        ({2: TOKENS[:3]}, "tokens_n: expected 4 values, one for each of parents_n, got 3"),
        ({3: ids()}, "rows_n: expected 4 values, one for each of parents_n, got 0"),
        ({1: ids(0, 0, 0, 1)}, "parents_n[0]: expected -1 for the root, got 0"),
        ({2: ids(2, 2, 4, 2)}, "tokens_n[0]: expected -1 for the root, got 2"),
        ({1: ids(-1, 0, 2, 1)}, "parents_n[2]: expected a node in [0, 2), got 2"),
        ({1: ids(-1, -1, 0, 1)}, "parents_n[1]: expected a node in [0, 1), got -1"),
        ({1: ids(-1, 0, 0, 2**31 - 1)}, "parents_n[3]: expected a node in [0, 3), got 2147483647"),
        ({2: ids(-1, 2, 5, 2)}, "tokens_n[2]: expected a value in [0, 5), got 5"),
        ({2: ids(-1, -2, 4, 2)}, "tokens_n[1]: expected a value in [0, 5), got -2"),
        (
            {2: ids(-1, 4, 4, 2)},
            "tokens_n[2]: expected another token than that of a sibling, got 4",
        ),
        ({3: ids(2, 1, -1, -1)}, "rows_n[0]: expected a row in [0, 2), got 2"),
        ({3: ids(-1, 1, -1, -1)}, "rows_n[0]: expected a row in [0, 2), got -1"),
        ({3: ids(0, -1, -1, -1)}, "rows_n[1]: expected a row in [0, 2), got -1"),
        ({3: ids(0, -1, -2, -1), 4: "constrained"}, "rows_n[2]: expected a row in [-1, 2), got -2"),
        ({3: ids(0, 1, 2, -1)}, "rows_n[2]: expected a row in [-1, 2), got 2"),
        ({4: "Full"}, "mode: expected 'constrained' or 'full', got 'Full'"),
    ],
)
def test_trie_refuses_bad_arrays(changes: dict[int, Any], message: str) -> None:
    arguments: list[Any] = [LOGITS, PARENTS, TOKENS, ROWS, "full"]
    for at, value in changes.items():
        arguments[at] = value
    with pytest.raises(ValueError, match=r"^(logits|parents|tokens|rows|mode)") as caught:
        score_trie(*arguments)
    assert str(caught.value) == message
