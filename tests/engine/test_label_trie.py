"""The trie of options: both formulas against brute force, what is pruned, what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat.engine.label_trie import ROOT, LabelTrie, combine
from sprat.errors import InvalidInput
from sprat.values import Scoring

END = 5
VOCABULARY = 6

Option = tuple[int, ...]

options_drawn = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    min_size=2,
    max_size=12,
    unique=True,
)
seeds = st.integers(0, 2**32 - 1)


def rows(options: Sequence[Option]) -> list[np.ndarray[tuple[int], np.dtype[np.int32]]]:
    return [np.array(option, np.int32) for option in options]


def logits_after(read: Option, seed: int) -> list[float]:
    """What a model would say after some tokens: the same whoever asks."""
    rng = np.random.default_rng([seed, len(read), *read])
    made: list[float] = (4 * rng.standard_normal(VOCABULARY)).tolist()
    return made


def log_softmax(logits: dict[int, float]) -> dict[int, float]:
    total = math.log(sum(math.exp(value) for value in logits.values()))
    return {token: value - total for token, value in logits.items()}


def by_hand(
    options: Sequence[Option], seed: int, scoring: Scoring, *, normalize_length: bool = False
) -> list[float]:
    """Probabilities as the definition says, one option at a time and without a trie."""
    ended = [(*option, END) for option in options]
    logs = []
    for option, whole in zip(options, ended, strict=True):
        log = 0.0
        for at, token in enumerate(whole):
            logits = dict(enumerate(logits_after(option[:at], seed)))
            if scoring == "constrained":
                allowed = {other[at] for other in ended if other[:at] == whole[:at]}
                logits = {each: logits[each] for each in allowed}
            log += log_softmax(logits)[token]
        logs.append(log / len(whole) if normalize_length else log)
    powers = [math.exp(log) for log in logs]
    return [power / sum(powers) for power in powers]


def read(trie: LabelTrie, node: int) -> Option:
    return tuple(trie.nodes[each].token for each in trie.path(node))


def shares(trie: LabelTrie, seed: int) -> dict[int, dict[int, float]]:
    """Log-probabilities at all the nodes that the trie asks for, and at no others."""
    found = {}
    for node in trie.needed:
        logits = dict(enumerate(logits_after(read(trie, node), seed)))
        children = trie.nodes[node].children
        if trie.scoring == "constrained":
            logits = {token: logits[token] for token in children}
        logs = log_softmax(logits)
        found[node] = {child: logs[token] for token, child in children.items()}
    return found


def test_label_trie_constrained_by_hand() -> None:
    """'a b', 'a c' and 'd': the first tokens 1:3, then 1:1."""
    trie = LabelTrie(rows([(0, 1), (0, 2), (3,)]), end=END, scoring="constrained")
    a = trie.nodes[ROOT].children[0]
    assert trie.needed == {ROOT, a}
    d, (b, c) = trie.nodes[ROOT].children[3], trie.nodes[a].children.values()
    log_shares = {
        ROOT: {a: math.log(0.25), d: math.log(0.75)},
        a: {b: math.log(0.5), c: math.log(0.5)},
    }
    scores = combine(trie, log_shares, normalize_length=False)
    np.testing.assert_allclose(scores.probabilities, [0.125, 0.125, 0.75], rtol=1e-6)
    assert scores.pruned == 0
    assert scores.probabilities.dtype == np.float32


def test_label_trie_full_by_hand() -> None:
    """'a' (0.5, then an end 0.2) and 'b' (0.1, then an end 0.4): 0.1 and 0.04, of 0.14."""
    trie = LabelTrie(rows([(0,), (1,)]), end=END, scoring="full")
    a, b = trie.nodes[ROOT].children[0], trie.nodes[ROOT].children[1]
    assert trie.needed == {ROOT, a, b}
    log_shares = {
        ROOT: {a: math.log(0.5), b: math.log(0.1)},
        a: {trie.nodes[a].children[END]: math.log(0.2)},
        b: {trie.nodes[b].children[END]: math.log(0.4)},
    }
    scores = combine(trie, log_shares, normalize_length=False)
    np.testing.assert_allclose(scores.probabilities, [0.1 / 0.14, 0.04 / 0.14], rtol=1e-6)
    means = [math.sqrt(0.1), math.sqrt(0.04)]
    scores = combine(trie, log_shares, normalize_length=True)
    np.testing.assert_allclose(scores.probabilities, np.array(means) / sum(means), rtol=1e-6)


@pytest.mark.parametrize("scoring", ["constrained", "full"])
@given(options=options_drawn, seed=seeds)
def test_label_trie_equals_brute_force(scoring: Scoring, options: list[Option], seed: int) -> None:
    trie = LabelTrie(rows(options), end=END, scoring=scoring)
    scores = combine(trie, shares(trie, seed), normalize_length=False)
    np.testing.assert_allclose(scores.probabilities, by_hand(options, seed, scoring), atol=1e-6)
    assert scores.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert scores.pruned == 0


@given(options=options_drawn, seed=seeds)
def test_label_trie_compares_means_when_asked(options: list[Option], seed: int) -> None:
    trie = LabelTrie(rows(options), end=END, scoring="full")
    scores = combine(trie, shares(trie, seed), normalize_length=True)
    expected = by_hand(options, seed, "full", normalize_length=True)
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-6)


def test_label_trie_options_that_others_begin_with_end_in_the_end_token() -> None:
    options = [(0,), (0, 1), (0, 1, 2)]
    trie = LabelTrie(rows(options), end=END, scoring="constrained")
    assert [read(trie, leaf) for leaf in trie.leaves] == [(0, END), (0, 1, END), (0, 1, 2)]
    scores = combine(trie, shares(trie, 7), normalize_length=False)
    np.testing.assert_allclose(scores.probabilities, by_hand(options, 7, "constrained"), atol=1e-6)


def test_label_trie_asks_where_options_part_and_nowhere_else() -> None:
    options = [(0, 1, 2, 3), (0, 1, 3, 3), (2, 2, 2)]
    trie = LabelTrie(rows(options), end=END, scoring="constrained")
    assert {read(trie, node) for node in trie.needed} == {(), (0, 1)}
    assert [read(trie, node) for node in trie.deepest(trie.needed)] == [(0, 1)]
    full = LabelTrie(rows(options), end=END, scoring="full")
    assert {read(full, node) for node in full.deepest(full.needed)} == set(options)


def test_label_trie_one_deepest_node_serves_those_above() -> None:
    trie = LabelTrie(rows([(0, 1), (0, 1, 2), (0, 3), (1,)]), end=END, scoring="constrained")
    assert {read(trie, node) for node in trie.needed} == {(), (0,), (0, 1)}
    assert [read(trie, node) for node in trie.deepest(trie.needed)] == [(0, 1)]


@given(options=options_drawn, seed=seeds)
def test_label_trie_what_is_pruned_is_bounded_and_the_rest_exact(
    options: list[Option], seed: int
) -> None:
    trie = LabelTrie(rows(options), end=END, scoring="constrained")
    asked = shares(trie, seed)
    first = asked[ROOT]
    hopeless = {node for node in first if first[node] < math.log(0.2)}
    for node in list(asked):
        if node != ROOT and trie.path(node)[0] in hopeless:
            del asked[node]
    scores = combine(trie, asked, normalize_length=False)
    exact = by_hand(options, seed, "constrained")
    assert scores.probabilities.sum() == pytest.approx(1, abs=1e-5)
    left_open = 0.0
    for option, probability, right in zip(options, scores.probabilities, exact, strict=True):
        assert abs(probability - right) <= scores.pruned + 1e-6
        group = [other for other in options if other[0] == option[0]]
        if trie.nodes[ROOT].children[option[0]] in hopeless and len(group) > 1:
            left_open += float(probability)
        else:
            assert probability == pytest.approx(right, abs=1e-6)
    assert scores.pruned == pytest.approx(left_open, abs=1e-6)


def test_label_trie_takes_impossible_options() -> None:
    """A model may rule a token out altogether."""
    trie = LabelTrie(rows([(0, 1), (0, 2), (3,)]), end=END, scoring="constrained")
    a, d = trie.nodes[ROOT].children[0], trie.nodes[ROOT].children[3]
    scores = combine(trie, {ROOT: {a: -math.inf, d: 0.0}}, normalize_length=False)
    assert scores.probabilities.tolist() == [0, 0, 1]


@pytest.mark.parametrize("scoring", ["constrained", "full"])
def test_label_trie_refuses_options_with_the_same_tokens(scoring: Scoring) -> None:
    with pytest.raises(InvalidInput, match=r"labels\[2\]: the model reads it as it does labels\[0"):
        LabelTrie(rows([(0, 1), (0,), (0, 1)]), end=END, scoring=scoring)


def test_label_trie_refuses_options_without_tokens() -> None:
    with pytest.raises(InvalidInput, match=r"labels\[1\]: has no tokens"):
        LabelTrie(rows([(0, 1), ()]), end=END, scoring="full")


def test_label_trie_takes_256_options() -> None:
    options = [(one, two) for one in range(16) for two in range(16)]
    trie = LabelTrie(rows(options), end=99, scoring="constrained")
    assert len(trie.needed) == 17
    log_shares = {
        node: dict.fromkeys(trie.nodes[node].children.values(), math.log(1 / 16))
        for node in trie.needed
    }
    scores = combine(trie, log_shares, normalize_length=False)
    np.testing.assert_allclose(scores.probabilities, np.full(256, 1 / 256), rtol=1e-5)
