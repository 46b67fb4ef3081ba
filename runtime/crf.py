"""Linear-chain conditional random fields (Lafferty et al., ICML 2001): how probable tags are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sprat.values import FloatArray

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


class Sequences:
    """Sequences of tokens that lie one behind the other, and how to walk all of them in step.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence, from 1; at least one sequence.

    Attributes
    ----------
    steps : list of int[B_t]
        The tokens at place t of the sequences that are so long, longest sequence first.
    last : int[B]
        The last token of each sequence, longest sequence first.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        sizes = np.asarray(lengths, np.intp)
        longest_first = np.argsort(-sizes, kind="stable")
        first = (np.cumsum(sizes) - sizes)[longest_first]
        sizes = sizes[longest_first]
        alive = np.searchsorted(-sizes, -np.arange(1, sizes[0] + 1), side="right")
        self.steps: list[_Indices] = [first[:count] + t for t, count in enumerate(alive.tolist())]
        self.last: _Indices = first + sizes - 1


class Lattice:
    """The probabilities of every tag, and of every step between two, in each sequence.

    The forward-backward algorithm with scaling (Rabiner, Proceedings of the IEEE 77(2), 1989), in
    float64.

    Parameters
    ----------
    emissions_nk : float[N, K]
        Score of each tag at each token, finite.
    sequences : Sequences
        Of the N tokens.
    transitions_kk : float[K, K]
        Score of a step from the first tag to the second; ``-inf`` forbids it.
    start_k, end_k : float[K]
        Score of a tag at the first and at the last token. Some sequence of tags must be possible.

    Attributes
    ----------
    log_z : float
        Sum over the sequences of the log of what the scores of all its tags come to.
    tags : float64[N, K]
        Probability of each tag at each token.
    """

    def __init__(
        self,
        emissions_nk: FloatArray | _Floats,
        sequences: Sequences,
        transitions_kk: FloatArray | _Floats,
        start_k: FloatArray | _Floats,
        end_k: FloatArray | _Floats,
    ) -> None:
        steps, last = sequences.steps, sequences.last
        highest_n = emissions_nk.max(axis=1).astype(np.float64)
        weights_nk = np.exp(emissions_nk - highest_n[:, None])
        self._step_kk = np.exp(transitions_kk.astype(np.float64))
        self._steps = steps
        self._forward = np.empty(weights_nk.shape)
        scales_n = np.empty(len(weights_nk))
        before = np.tile(np.exp(start_k.astype(np.float64)), (len(last), 1))
        for step in steps:
            now = before[: len(step)] * weights_nk[step]
            scales_n[step] = now.sum(axis=1)
            now /= scales_n[step][:, None]
            self._forward[step] = now
            before = now @ self._step_kk
        end = np.exp(end_k.astype(np.float64))
        total_b = self._forward[last] @ end
        self.log_z = float(np.log(scales_n).sum() + highest_n.sum() + np.log(total_b).sum())
        # What a tag is worth once it is reached, over the scale of its token.
        self._gain = weights_nk / scales_n[:, None]
        self._backward = np.empty(weights_nk.shape)
        self._backward[last] = end / total_b[:, None]
        for following, step in pairwise(reversed(steps)):
            ahead = self._gain[following] * self._backward[following]
            self._backward[step[: len(following)]] = ahead @ self._step_kk.T
        self.tags = self._forward * self._backward

    def expected_steps(self) -> _Floats:
        """How often each step from one tag to another is to be expected in all: float64[K, K]."""
        counts = np.zeros(self._step_kk.shape)
        for step, following in pairwise(self._steps):
            ahead = self._gain[following] * self._backward[following]
            counts += self._forward[step[: len(following)]].T @ ahead
        counts *= self._step_kk
        return counts

    def path(self, token: int, tags: Sequence[int]) -> float:
        """Probability, in [0, 1], that from a token on its sequence has these tags."""
        chance = self._forward[token, tags[0]] * self._backward[token + len(tags) - 1, tags[-1]]
        for offset, (before, after) in enumerate(pairwise(tags), 1):
            chance *= self._step_kk[before, after] * self._gain[token + offset, after]
        return float(min(1.0, chance))
