"""How the next tokens are chosen: `sprat.kernels` over the logits of a batch."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sprat.kernels import penalize_logits, sample
from sprat.values import FloatArray, IntArray, Sampling

PENALTY_WINDOW = 64
"""Recent tokens, of prompt and answer, that ``repeat_penalty`` weakens."""

_LEAST_FLOAT = float(np.finfo(np.float32).tiny)
_MOST_FLOAT = float(np.finfo(np.float32).max)
_MOST_INT = int(np.iinfo(np.int32).max)


class Sampler:
    """What one sequence brings to the choice of its tokens: settings, recent tokens, coins.

    Parameters
    ----------
    sampling : Sampling
        Within its ranges. Seeds are taken modulo 2**64.
    prompt : int32[T]
        Counts as recent for the penalty.

    Attributes
    ----------
    recent : deque of int
        What the penalty weakens; empty without one.
    """

    def __init__(self, sampling: Sampling, prompt: IntArray) -> None:
        # Above 0 stays above 0, and finite stays finite, where float32 ends.
        self.temperature = min(sampling.temperature, _MOST_FLOAT)
        self.top_k = min(sampling.top_k, _MOST_INT)
        self.top_p = max(sampling.top_p, _LEAST_FLOAT)
        self.min_p = sampling.min_p
        self.repeat_penalty = min(max(sampling.repeat_penalty, _LEAST_FLOAT), _MOST_FLOAT)
        self.recent: deque[int] = deque(maxlen=PENALTY_WINDOW if self.repeat_penalty != 1 else 0)
        self.recent.extend(prompt[-PENALTY_WINDOW:].tolist())
        self._random = random.Random(None if sampling.seed is None else sampling.seed % 2**64)

    def coin(self) -> float:
        """Draw the next of the numbers in [0, 1) that decide; the seed determines them all."""
        return self._random.random()


def choose(
    samplers: Sequence[Sampler],
    logits_bv: FloatArray,
    mask_bw: IntArray | None = None,
) -> list[int | None]:
    """Choose a token for each sequence.

    `sprat.kernels.sample` says in which order the settings apply; the penalty comes first.

    Parameters
    ----------
    samplers : sequence of Sampler
        One for each row.
    logits_bv : float32[B, V]
        Overwritten where there is a penalty.
    mask_bw : int32[B, W], optional
        What is allowed, as in `sprat.kernels.mask_logits`. Absent: every token.

    Returns
    -------
    list of int or None
        None for a row whose allowed logits have NaN or +inf, or none that is finite: there is
        nothing to choose.
    """
    if any(sampler.recent for sampler in samplers):
        _penalize(samplers, logits_bv)
    coins = np.array([sampler.coin() for sampler in samplers])
    tokens = _sample(samplers, logits_bv, coins, mask_bw)
    for sampler, token in zip(samplers, tokens, strict=True):
        if token is not None:
            sampler.recent.append(token)
    return tokens


def _sample(
    samplers: Sequence[Sampler],
    logits_bv: FloatArray,
    coins_b: npt.NDArray[np.float64],
    mask_bw: IntArray | None,
) -> list[int | None]:
    try:
        chosen_b = sample(
            logits_bv,
            coins_b,
            np.array([sampler.temperature for sampler in samplers], np.float32),
            np.array([sampler.top_k for sampler in samplers], np.int32),
            np.array([sampler.top_p for sampler in samplers], np.float32),
            np.array([sampler.min_p for sampler in samplers], np.float32),
            mask_bw,
        )
    except ValueError:
        if len(samplers) == 1:
            return [None]
        rows = (slice(row, row + 1) for row in range(len(samplers)))
        return [
            token
            for row in rows
            for token in _sample(
                samplers[row],
                logits_bv[row],
                coins_b[row],
                None if mask_bw is None else mask_bw[row],
            )
        ]
    return [*chosen_b.tolist()]


def _penalize(samplers: Sequence[Sampler], logits_bv: FloatArray) -> None:
    zero_b = np.zeros(len(samplers), np.float32)
    penalize_logits(
        logits_bv,
        np.array([token for sampler in samplers for token in sampler.recent], np.int32),
        np.cumsum([0, *(len(sampler.recent) for sampler in samplers)]),
        np.array([sampler.repeat_penalty for sampler in samplers], np.float32),
        zero_b,
        zero_b,
    )
