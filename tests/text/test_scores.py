"""Probabilities of parts of an answer, at every edge of its tokens."""

from __future__ import annotations

import math

import pytest

from sprat.text.scores import Scores
from sprat.values import TokenChoice, TokenLogprob


def scores(*tokens: tuple[bytes, float]) -> Scores:
    return Scores([TokenChoice(TokenLogprob(token, math.log(p))) for token, p in tokens])


@pytest.mark.parametrize(
    ("start", "end", "probability"),
    [
        (0, 1, 0.5),
        (0, 2, 0.5),
        (1, 3, 0.5 * 0.25),
        (2, 5, 0.25),
        (2, 6, 0.25 * 0.125),
        (4, 7, 0.25 * 0.125),
        (5, 7, 0.125),
        (0, 7, 0.5 * 0.25 * 0.125),
    ],
)
def test_scores_are_products_over_the_tokens_that_overlap(
    start: int, end: int, probability: float
) -> None:
    made = scores((b"ab", 0.5), (b"cde", 0.25), (b"fg", 0.125))
    assert made.of(start, end) == pytest.approx(probability)


def test_scores_of_forced_tokens_are_one() -> None:
    assert scores((b'{"a":', 1.0), (b'"x', 0.5), (b'"}', 1.0)).of(5, 8) == pytest.approx(0.5)


def test_scores_take_tokens_without_bytes_along() -> None:
    assert scores((b"a", 0.5), (b"", 0.5), (b"b", 0.5)).of(0, 2) == pytest.approx(0.125)


def test_scores_are_at_most_one() -> None:
    token = TokenChoice(TokenLogprob(b"a", 1e-9))
    assert Scores([token]).of(0, 1) == 1.0
