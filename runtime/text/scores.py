"""How probable the parts of an answer were, from its tokens."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from sprat.values import TokenChoice


class Scores:
    """The probabilities of an answer's tokens, by place.

    Parameters
    ----------
    tokens : sequence of TokenChoice
        Whose bytes together are the answer.

    Examples
    --------
    >>> from sprat.values import TokenLogprob
    >>> chances = [(b"so", 0.5), (b"me ", 0.5), (b"text", 1.0)]
    >>> scores = Scores([TokenChoice(TokenLogprob(t, math.log(p))) for t, p in chances])
    >>> scores.of(0, 4), scores.of(2, 9), scores.of(5, 9), scores.whole
    (0.25, 0.5, 1.0, 0.25)
    """

    def __init__(self, tokens: Sequence[TokenChoice]) -> None:
        self._edges = list(accumulate(len(token.chosen.token) for token in tokens))
        self._sums = list(accumulate((token.chosen.logprob for token in tokens), initial=0.0))

    @property
    def whole(self) -> float:
        """Probability in [0, 1] of all tokens; NaN where that of one of them is no number."""
        return self._sums[-1] if math.isnan(self._sums[-1]) else min(1.0, math.exp(self._sums[-1]))

    def of(self, start: int, end: int) -> float:
        """Probability in [0, 1] of the tokens that overlap bytes from ``start`` to before ``end``.

        The exponential of the sum of their log-probabilities.
        """
        first = bisect_right(self._edges, start)
        beyond = bisect_left(self._edges, end) + 1
        return min(1.0, math.exp(self._sums[beyond] - self._sums[first]))
