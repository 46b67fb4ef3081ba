"""A llama's forward pass in float64 numpy, written from the papers: what adapters are checked
against. It shares no code with sprat.

Rows of Q and K stand as transformers has them: rotary embeddings (Su et al., 2021) turn row i of a
head together with row i + D/2. `from_file` brings them out of the order of GGUF files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def from_file(path: Path, heads: int) -> dict[str, Array]:
    """The weights of a float32 GGUF file with as many heads of K as of Q."""
    weights = {t.name: np.array(t.data, np.float64) for t in gguf.GGUFReader(path).tensors}
    for name, matrix in weights.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            size = len(matrix) // heads
            rows = []
            for head in range(heads):
                first = head * size
                rows += [first + 2 * i for i in range(size // 2)]
                rows += [first + 2 * i + 1 for i in range(size // 2)]
            weights[name] = matrix[rows]
    return weights


def logits(weights: Mapping[str, Array], ids: npt.NDArray[Any], *, heads: int, eps: float) -> Array:
    """What follows each token: float64[T, V]."""
    hidden = weights["token_embd.weight"][ids]
    layer = 0
    while f"blk.{layer}.attn_q.weight" in weights:
        at = {
            name.split(".")[2]: weight
            for name, weight in weights.items()
            if name.startswith(f"blk.{layer}.")
        }
        hidden = hidden + _attention(_norm(hidden, at["attn_norm"], eps), at, heads)
        inner = _norm(hidden, at["ffn_norm"], eps)
        gate = inner @ at["ffn_gate"].T
        gate = gate / (1 + np.exp(-gate))
        hidden = hidden + (gate * (inner @ at["ffn_up"].T)) @ at["ffn_down"].T
        layer += 1
    return _norm(hidden, weights["output_norm.weight"], eps) @ weights["output.weight"].T


def _norm(hidden: Array, weight: Array, eps: float) -> Array:
    scaled: Array = hidden / np.sqrt(np.square(hidden).mean(axis=1, keepdims=True) + eps) * weight
    return scaled


def _attention(hidden: Array, at: Mapping[str, Array], heads: int) -> Array:
    length = len(hidden)
    q, k, v = (
        (hidden @ at[f"attn_{part}"].T).reshape(length, heads, -1).transpose(1, 0, 2)
        for part in "qkv"
    )
    q, k = _turned(q), _turned(k)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2])
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    mixed = (powers / powers.sum(axis=2, keepdims=True)) @ v
    return mixed.transpose(1, 0, 2).reshape(length, -1) @ at["attn_output"].T


def _turned(rows: Array) -> Array:
    _, length, size = rows.shape
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    first, second = rows[..., : size // 2], rows[..., size // 2 :]
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=2,
    )
