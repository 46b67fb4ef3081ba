"""How the next token is chosen: llama.cpp's own sampler chain, one for each sequence."""

from __future__ import annotations

import secrets
from typing import Any

from sprat.values import IntArray, Sampling

PENALTY_WINDOW = 64
"""Recent tokens, of prompt and answer, that ``repeat_penalty`` weakens."""


class Sampler:
    """A sampler chain in the conventional order: penalty, top-k, top-p, min-p, temperature, coin.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    context : pointer
        Where the logits are.
    prompt : int32[T]
        Counts as recent for the penalty.
    """

    def __init__(
        self,
        lib: Any,
        context: Any,
        sampling: Sampling,
        prompt: IntArray,
        *,
        vocabulary_size: int,
    ) -> None:
        self._lib = lib
        self._context = context
        self._chain = chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if sampling.repeat_penalty != 1:
            penalty = lib.llama_sampler_init_penalties(
                vocabulary_size, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
            )
            lib.llama_sampler_chain_add(chain, penalty)
            for token in prompt[-PENALTY_WINDOW:].tolist():
                lib.llama_sampler_accept(penalty, token)
        if sampling.temperature == 0:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
            return
        if sampling.top_k:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(sampling.temperature))
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))

    def sample(self, output: int) -> int:
        """The next token after the one at index ``output`` of the last batch."""
        return int(self._lib.llama_sampler_sample(self._chain, self._context, output))

    def close(self) -> None:
        """Free the chain."""
        self._lib.llama_sampler_free(self._chain)
