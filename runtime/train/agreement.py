"""Whether torch and llama.cpp have the same model before them.

A matrix whose rows stand in another order, or an adapter for other rows, fits by its shape and
answers nonsense. So both are asked the same, before training and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sprat.engine.base import Choice
from sprat.engine.llama import LlamaEngine
from sprat.errors import EngineError, UnsupportedModel
from sprat.values import FloatArray, IntArray

if TYPE_CHECKING:
    from sprat.train.lora_model import LoraModel

PROBES = 4
"""Prompts that both are asked."""

COMPARED = 8
"""The most probable next tokens, by torch, that both say their probabilities of."""

MOST_APART = 0.2
"""Largest accepted `distance`. Quantized weights and activations round: Q8_0 is some 0.02 apart,
4-bit weights 0.1; rows in a wrong order are 0.5 apart and more."""


def distance(
    model: LoraModel, engine: LlamaEngine, prompts: Sequence[IntArray], *, adapter: str = ""
) -> float:
    """Mean over prompts of the total variation distance between their next tokens.

    Parameters
    ----------
    prompts : sequence of int32[T]
        What both are asked; the first `PROBES` of them.
    adapter : str
        What llama.cpp answers under, where the matrices in torch are not those of the start.

    Returns
    -------
    float
        In [0, 1]: 0 for the same probabilities of the `COMPARED` best tokens.
    """
    found = []
    for prompt in prompts[:PROBES]:
        logits_v = model.logits(prompt).astype(np.float64)
        best = np.argsort(-logits_v, kind="stable")[:COMPARED]
        powers = np.exp(logits_v[best] - logits_v[best[0]])
        other = _choose(engine, prompt, best.astype(np.int32), adapter)
        found.append(0.5 * float(np.abs(powers / powers.sum() - other).sum()))
    return float(np.mean(found))


def check(apart: float, what: str) -> None:
    """Raise UnsupportedModel where a distance is more than rounding explains."""
    if not apart <= MOST_APART:
        raise UnsupportedModel(
            f"{what}: torch and llama.cpp differ by {apart:.2f} in their probabilities of next "
            f"tokens, at most {MOST_APART} is rounding; adapters for this model would be wrong"
        )


def _choose(engine: LlamaEngine, prompt: IntArray, tokens: IntArray, adapter: str) -> FloatArray:
    chooser = engine.chooser()
    options = tuple(tokens[i : i + 1] for i in range(len(tokens)))
    chooser.start(0, Choice(prompt, 0, options, is_pruned=False, adapter=adapter))
    while True:
        for chosen in chooser.step(max_tokens=64, threads=1):
            if chosen.error is not None:
                raise EngineError(chosen.error)
            return chosen.probabilities
