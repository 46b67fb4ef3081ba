"""Batches are as large as a reader's patience allows."""

from __future__ import annotations

import pytest

from sprat.scheduler.slices import GAP_S, LEAST_TOKENS, SLICE_TOKENS, Slices


def test_slices_are_whole_until_something_was_measured() -> None:
    assert Slices().size(is_writing=True) == SLICE_TOKENS


@pytest.mark.parametrize(
    ("token_s", "expected"),
    [(GAP_S / 1000, SLICE_TOKENS), (GAP_S / 40, 40), (GAP_S / 2, LEAST_TOKENS)],
)
def test_slices_fit_the_gap_while_an_answer_is_written(token_s: float, expected: int) -> None:
    slices = Slices()
    slices.note(64, 64 * token_s)
    assert slices.size(is_writing=True) == pytest.approx(expected, abs=1)
    assert slices.size(is_writing=False) == SLICE_TOKENS


def test_slices_follow_a_machine_that_becomes_busy_and_quiet_again() -> None:
    slices = Slices()
    for token_s in (GAP_S / 60, GAP_S / 20, GAP_S / 60):
        for _ in range(20):
            slices.note(32, 32 * token_s)
        assert slices.size(is_writing=True) == pytest.approx(GAP_S / token_s, abs=1)


def test_slices_learn_nothing_from_a_few_tokens() -> None:
    slices = Slices()
    slices.note(LEAST_TOKENS - 1, 60.0)
    assert slices.size(is_writing=True) == SLICE_TOKENS
