"""An encoder's forward pass in float64 numpy, written from the papers: what the engines are
checked against. It shares no code with sprat.

BERT: Devlin et al., 2019 (arXiv 1810.04805); RoBERTa and DistilBERT are the same network with
other names, positions that start behind the padding id, and without token types respectively.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_STEPS = 8192
_GRID = np.arange(-8 * _STEPS, 8 * _STEPS + 1) / _STEPS
_ERF = np.array([math.erf(x / math.sqrt(2.0)) for x in _GRID])
_VALUE = _GRID * 0.5 * (1.0 + _ERF)
_SLOPE = 0.5 * (1.0 + _ERF) + _GRID * np.exp(-0.5 * _GRID**2) / math.sqrt(2.0 * math.pi)

BERT_NAMES: dict[str, Any] = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "activation": "hidden_act",
    "layer": "encoder.layer.{}",
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}
DISTILBERT_NAMES: dict[str, Any] = {
    "layers": "n_layers",
    "heads": "n_heads",
    "activation": "activation",
    "layer": "transformer.layer.{}",
    "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "mixed": "attention.out_lin",
    "mixed_norm": "sa_layer_norm",
    "inner": "ffn.lin1",
    "outer": "ffn.lin2",
    "outer_norm": "output_layer_norm",
}


def gelu(x: Array) -> Array:
    """x times the normal distribution function, by its tangent at the nearest multiple of 1/8192,
    where it is exact: the error is below 2e-9."""
    nearest = np.clip(x, -8.0, 8.0)
    nearest *= _STEPS
    index = np.rint(nearest).astype(np.int32)
    y = x - index / _STEPS
    index += 8 * _STEPS
    y *= _SLOPE[index]
    y += _VALUE[index]
    return y


def gelu_tanh(x: Array) -> Array:
    """Hendrycks and Gimpel's approximation of `gelu`."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
    "swish": lambda x: x / (1.0 + np.exp(-x)),
}


def forward(
    tensors: Mapping[str, npt.NDArray[Any]],
    config: Mapping[str, Any],
    rows: Sequence[npt.NDArray[np.int32]],
    *,
    prefix: str = "",
) -> Array:
    """Last hidden states, float64[B, T, H], of rows that all have T tokens."""
    names = DISTILBERT_NAMES if config["model_type"] == "distilbert" else BERT_NAMES

    def dense(name: str, x: Array) -> Array:
        weight = tensors[f"{prefix}{name}.weight"].astype(np.float64, copy=False)
        y = x @ weight.T
        y += tensors[f"{prefix}{name}.bias"]
        return y

    def norm(name: str, x: Array) -> Array:
        centred: Array = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + config.get("layer_norm_eps", 1e-12))
        centred *= tensors[f"{prefix}{name}.weight"]
        centred += tensors[f"{prefix}{name}.bias"]
        return centred

    ids = np.stack(rows)
    batch, length = ids.shape
    heads = int(config[names["heads"]])
    first = 0 if config["model_type"] in ("bert", "distilbert") else config["pad_token_id"] + 1
    table = prefix + "embeddings.{}_embeddings.weight"
    x = tensors[table.format("word")][ids].astype(np.float64)
    x += tensors[table.format("position")][first : first + length]
    if "type_vocab_size" in config:
        x += tensors[table.format("token_type")][0]
    width = x.shape[-1]
    x = norm("embeddings.LayerNorm", x).reshape(batch * length, width)
    for index in range(int(config[names["layers"]])):
        at = names["layer"].format(index) + "."
        split: list[Array] = [
            dense(at + name, x).reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
            for name in names["qkv"]
        ]
        query, key, value = split
        scores: Array = query @ key.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        mixed = mixed.transpose(0, 2, 1, 3).reshape(batch * length, width)
        x = norm(at + names["mixed_norm"], x + dense(at + names["mixed"], mixed))
        activate = ACTIVATIONS[config.get(names["activation"], "gelu")]
        inner = activate(dense(at + names["inner"], x))
        x = norm(at + names["outer_norm"], x + dense(at + names["outer"], inner))
    return x.reshape(batch, length, width)
