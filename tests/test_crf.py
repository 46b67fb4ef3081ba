"""The lattice against every sequence of tags, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sprat.crf import Lattice, Sequences

K = 3
LENGTHS = (2, 4, 1, 4, 3)


def make(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    transitions = rng.normal(0, 2, (K, K))
    transitions[0, 2] = transitions[1, 1] = -np.inf
    start, end = rng.normal(0, 1, (2, K))
    start[2] = end[1] = -np.inf
    return rng.normal(0, 2, (sum(LENGTHS), K)), transitions, start, end


def every_path(emissions, transitions, start, end, first, length):
    """Paths of one sequence and what each weighs."""
    for path in itertools.product(range(K), repeat=length):
        score = start[path[0]] + end[path[-1]]
        score += sum(emissions[first + at, tag] for at, tag in enumerate(path))
        score += sum(transitions[a, b] for a, b in itertools.pairwise(path))
        yield path, np.exp(score)


@pytest.mark.parametrize("seed", range(5))
def test_crf_lattice_agrees_with_every_path(seed: int) -> None:
    arrays = make(seed)
    lattice = Lattice(arrays[0], Sequences(LENGTHS), *arrays[1:])
    log_z, steps, first = 0.0, np.zeros((K, K)), 0
    tags = np.zeros((sum(LENGTHS), K))
    for length in LENGTHS:
        paths = list(every_path(*arrays, first, length))
        total = sum(weight for _, weight in paths)
        log_z += np.log(total)
        for path, weight in paths:
            for at, tag in enumerate(path):
                tags[first + at, tag] += weight / total
            for pair in itertools.pairwise(path):
                steps[pair] += weight / total
        for begin, end in itertools.combinations(range(length + 1), 2):
            part = max(paths, key=lambda each: each[1])[0][begin:end]
            chance = sum(w for path, w in paths if path[begin:end] == part) / total
            assert lattice.path(first + begin, part) == pytest.approx(chance)
        first += length
    assert lattice.log_z == pytest.approx(log_z)
    np.testing.assert_allclose(lattice.tags, tags, atol=1e-12)
    np.testing.assert_allclose(lattice.expected_steps(), steps, atol=1e-12)


def test_crf_lattice_stands_scores_of_any_size() -> None:
    emissions = np.array([[900.0, -900.0, 0.0]] * 300 + [[-800.0, 700.0, 700.0]])
    lattice = Lattice(emissions, Sequences([300, 1]), np.zeros((K, K)), np.zeros(K), np.zeros(K))
    assert lattice.log_z == pytest.approx(300 * 900 + 700 + np.log(2))
    assert lattice.path(0, [0] * 300) == 1
    assert lattice.path(300, [1]) == pytest.approx(0.5)


def test_crf_sequences_walk_every_token_once() -> None:
    sequences = Sequences(LENGTHS)
    assert sorted(np.concatenate(sequences.steps).tolist()) == list(range(sum(LENGTHS)))
    assert sorted(sequences.last.tolist()) == (np.cumsum(LENGTHS) - 1).tolist()
    # A sequence keeps its place from step to step.
    for before, after in itertools.pairwise(sequences.steps):
        assert (before[: len(after)] + 1 == after).all()
