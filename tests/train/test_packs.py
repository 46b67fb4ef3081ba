"""Packs: each example sees what it would see alone."""

from __future__ import annotations

import numpy as np

from sprat.train.examples import Example, Step
from sprat.train.packs import SHARED, cut, pack


def example(*prompt: int, answer: tuple[int, ...], steps: tuple[Step, ...] = ()) -> Example:
    every = tuple(Step(at) for at in range(len(answer)))
    return Example(np.array(prompt, np.int32), np.array(answer, np.int32), steps or every)


ONE = example(1, 2, 3, answer=(7, 8, 9))
TWO = example(1, 2, 4, 5, answer=(6,), steps=(Step(0, (6, 7)),))


def test_packs_read_what_is_common_once() -> None:
    made = pack([ONE, TWO], 2)
    assert made.ids.tolist() == [1, 2, 3, 7, 8, 4, 5]
    assert made.positions.tolist() == [0, 1, 2, 3, 4, 2, 3]
    assert made.owners.tolist() == [SHARED, SHARED, 0, 0, 0, 1, 1]
    assert made.steps.tolist() == [2, 3, 4, 6]
    assert made.targets.tolist() == [7, 8, 9, 6]
    assert made.among == ((), (), (), (6, 7))
    assert made.step_owners.tolist() == [0, 0, 0, 1]


def test_packs_show_each_example_what_it_sees_alone() -> None:
    together = pack([ONE, TWO], 2)
    visible = together.visible()
    for index, each in enumerate((ONE, TWO)):
        alone = pack([each], 0)
        own = [t for t, owner in enumerate(together.owners) if owner in (SHARED, index)]
        np.testing.assert_array_equal(together.ids[own], alone.ids)
        np.testing.assert_array_equal(together.positions[own], alone.positions)
        np.testing.assert_array_equal(visible[np.ix_(own, own)], alone.visible())
        others = [t for t, owner in enumerate(together.owners) if owner not in (SHARED, index)]
        assert not visible[np.ix_(own, others)].any()


def test_packs_learn_the_first_token_behind_a_prompt_that_is_all_common_but_its_last() -> None:
    made = pack([ONE, ONE], 2)
    assert made.steps.tolist() == [2, 3, 4, 5, 6, 7]
    assert made.ids.tolist() == [1, 2, 3, 7, 8, 3, 7, 8]


def test_packs_are_cut_at_their_size() -> None:
    # Beside the two common tokens, three of each.
    parts = list(cut([ONE] * 5, 2, most_tokens=8))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [len(pack(part, 2).ids) for part in parts] == [8, 8, 5]
    assert [len(part) for part in cut([ONE] * 2, 2, most_tokens=1)] == [1, 1]
    assert list(cut([], 2, most_tokens=8)) == []
