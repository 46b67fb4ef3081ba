"""How the next token is chosen: llama.cpp's own sampler chain, one for each sequence."""

from __future__ import annotations

import secrets
from typing import Any

from sprat.values import IntArray, Sampling

PENALTY_WINDOW = 64
"""Recent tokens, of prompt and answer, that ``repeat_penalty`` weakens."""

GREEDY_BELOW = 1e-6
"""A smaller temperature has all its weight on the best token, and would overflow float32."""


class Sampler:
    """A chain in the conventional order: penalty, top-k, top-p, min-p, temperature, coin.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    sampling : Sampling
        Seeds are taken modulo 2**32 - 1.
    prompt : int32[T]
        Counts as recent for the penalty.
    vocabulary_size : int
        Number of logits.
    """

    def __init__(
        self, lib: Any, sampling: Sampling, prompt: IntArray, *, vocabulary_size: int
    ) -> None:
        self._lib = lib
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if sampling.repeat_penalty != 1:
            penalty = lib.llama_sampler_init_penalties(
                vocabulary_size, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
            )
            for token in prompt[-PENALTY_WINDOW:].tolist():
                lib.llama_sampler_accept(penalty, token)
            self._add(penalty)
        if sampling.temperature < GREEDY_BELOW:
            self._add(lib.llama_sampler_init_greedy())
            return
        if 0 < sampling.top_k < vocabulary_size:
            self._add(lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(lib.llama_sampler_init_temp(sampling.temperature))
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        # The greatest seed means "draw one" to llama.cpp.
        self._add(lib.llama_sampler_init_dist(seed % (2**32 - 1)))

    def _add(self, sampler: Any) -> None:
        self._lib.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: Any, output: int) -> int:
        """The token to follow the one at index ``output`` of the batch that was decoded last."""
        return int(self._lib.llama_sampler_sample(self._chain, context, output))

    def close(self) -> None:
        """Free the chain."""
        self._lib.llama_sampler_free(self._chain)
