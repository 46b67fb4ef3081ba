"""Lookup of n-grams, for drafts from the prompt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_int

LONGEST = 64
MOST_TOKENS = 2**24


def check_room(held: int, tokens: npt.NDArray[np.int32]) -> None:
    """Refuse tokens that do not fit beside those held.

    Raises
    ------
    ValueError
        There would be more than `MOST_TOKENS`.
    """
    if held + len(tokens) > MOST_TOKENS:
        raise ValueError(
            f"tokens: expected at most {MOST_TOKENS - held} more tokens, got {len(tokens)}"
        )


class NgramIndex:
    """Guess the next tokens from an earlier place that looks like the end of the text.

    The draft for tokens t[0], ..., t[N - 1] is what followed the most recent earlier occurrence of
    the last n tokens, for the longest n from `max_n` down to `min_n` that has one: with the largest
    end e < N such that t[e - n:e] equals t[N - n:N], it is t[e:e + K]. The occurrence may overlap
    the end of the text. A hash finds the place and the tokens themselves prove it, so a collision
    never gives another draft. The time of a call, averaged over many, does not grow with the tokens
    held; memory does, by at most 8 + 22 (`max_n` - `min_n` + 1) bytes each, and half as much again
    for the moment in which it is moved.

    Parameters
    ----------
    min_n, max_n : int
        Tokens of the shortest and the longest n-gram, 1 <= `min_n` <= `max_n` <= 64.
    seed : int, default 0
        In [0, 2**64). It moves the hashes and never a draft. A server that indexes what strangers
        send gives each index a random one, so that nobody can choose tokens that collide.

    Raises
    ------
    TypeError
        An argument is no int.
    ValueError
        An argument is out of range.

    References
    ----------
    Karp and Rabin, "Efficient randomized pattern-matching algorithms", IBM J. Res. Dev. 31(2),
    1987 (rolling hash); Yang et al., "Inference with Reference: Lossless Acceleration of Large
    Language Models", arXiv 2304.04487 (drafts from the prompt).

    Examples
    --------
    >>> import numpy as np
    >>> index = NgramIndex(1, 3)
    >>> index.append(np.array([5, 6, 7, 8, 9, 5, 6], dtype=np.int32))
    >>> index.draft(2)
    array([7, 8], dtype=int32)
    """

    __slots__ = ("_max_n", "_min_n", "_tokens")

    def __init__(self, min_n: int, max_n: int, seed: int = 0) -> None:
        check_int("min_n", min_n, 1, LONGEST)
        check_int("max_n", max_n, min_n, LONGEST)
        check_int("seed", seed, 0, 2**64 - 1)
        self._min_n = min_n
        self._max_n = max_n
        self._tokens = np.empty(0, dtype=np.int32)

    def __len__(self) -> int:
        """Tokens held."""
        return len(self._tokens)

    def append(self, tokens: npt.NDArray[np.int32]) -> None:
        """Take the next tokens of the text.

        Parameters
        ----------
        tokens : int32[N]
            Any values, C-contiguous; copied. Read-only arrays are accepted.

        Raises
        ------
        TypeError
            `tokens` is no array, or one of another dtype.
        ValueError
            Another shape or layout, or more than 2**24 tokens held.
        """
        check_array("tokens", tokens, np.int32, 1)
        check_room(len(self), tokens)
        self._tokens = np.concatenate([self._tokens, tokens])

    def draft(self, max_tokens: int) -> npt.NDArray[np.int32]:
        """Guess the next tokens.

        Parameters
        ----------
        max_tokens : int
            The longest draft, in [1, 2**24].

        Returns
        -------
        int32[K]
            A new array; empty when no n-gram occurred before, shorter than `max_tokens` when the
            occurrence is near the end.

        Raises
        ------
        TypeError
            `max_tokens` is no int.
        ValueError
            `max_tokens` is out of range.
        """
        check_int("max_tokens", max_tokens, 1, MOST_TOKENS)
        tokens = self._tokens
        for n in range(min(self._max_n, len(tokens) - 1), self._min_n - 1, -1):
            for end in range(len(tokens) - 1, n - 1, -1):
                if np.array_equal(tokens[end - n : end], tokens[-n:]):
                    return tokens[end : end + max_tokens].copy()
        return np.empty(0, dtype=np.int32)
