"""Constraints on tags: exactly the well-formed sequences are possible."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from sprat.errors import InvalidInput
from sprat.kernels import viterbi
from sprat.tagging import constraints

BIO = ["O", "B-x", "I-x", "B-y", "I-y"]
BIOES = ["S-y", "E-x", "O", "B-x", "I-y", "S-x", "B-y", "I-x", "E-y"]
WELL_FORMED = {
    "BIO": r"(O |B-x (I-x )*|B-y (I-y )*)*",
    "BIOES": r"(O |S-x |S-y |B-x (I-x )*E-x |B-y (I-y )*E-y )*",
}


@pytest.mark.parametrize(("scheme", "tags"), [("BIO", BIO), ("BIOES", BIOES)])
def test_tagging_constraints_allow_what_is_well_formed(scheme: str, tags: list[str]) -> None:
    transitions, start, end = constraints(tags)
    assert transitions.dtype == start.dtype == end.dtype == np.float32
    for length in (1, 2, 3, 4):
        for path in itertools.product(range(len(tags)), repeat=length):
            steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
            score = start[path[0]] + steps + end[path[-1]]
            text = "".join(f"{tags[tag]} " for tag in path)
            expected = 0 if re.fullmatch(WELL_FORMED[scheme], text) else -np.inf
            assert score == expected, text


def test_tagging_constraints_make_viterbi_give_spans() -> None:
    emissions = np.random.default_rng(0).normal(0, 3, (50, 12, len(BIOES))).astype(np.float32)
    lengths = np.random.default_rng(1).integers(1, 13, 50, dtype=np.int32)
    paths, scores = viterbi(emissions, lengths, *constraints(BIOES))
    assert np.isfinite(scores).all()
    for path, length in zip(paths.tolist(), lengths.tolist(), strict=True):
        text = "".join(f"{BIOES[tag]} " for tag in path[:length])
        assert re.fullmatch(WELL_FORMED["BIOES"], text)


def test_tagging_constraints_take_labels_with_dashes_and_none_at_all() -> None:
    transitions, _, _ = constraints(["O", "B-a-b", "I-a-b", "B-a", "I-a"])
    assert np.isneginf(transitions[1, 4])
    assert transitions[1, 2] == 0
    transitions, start, end = constraints(["O"])
    assert (transitions.tolist(), start.tolist(), end.tolist()) == ([[0]], [0], [0])


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([], "expected 'O' among them"),
        (["B-x", "I-x"], "expected 'O' among them"),
        (["O", "O"], "'O' stands there twice"),
        (["O", "B-x", "I-x", "B-x"], "'B-x' stands there twice"),
        (["O", "B-x"], "label 'x' has B; expected"),
        (["O", "B-x", "I-x", "E-x"], "label 'x' has B, E, I; expected"),
        (["O", "B-x", "I-x", "E-y", "S-y", "B-y", "I-y"], "label 'x' has B, I; expected"),
        (["O", "B-"], "expected 'O' or B-, I-, E- or S- and a label, got 'B-'"),
        (["O", "X-x"], "got 'X-x'"),
        (["O", "Bx"], "got 'Bx'"),
        (["O", "O-x"], "got 'O-x'"),
        (["O", ""], "got ''"),
    ],
)
def test_tagging_constraints_refuse_other_tags(tags: list[str], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        constraints(tags)
    assert said in caught.value.message
    assert caught.value.field == "tags"
