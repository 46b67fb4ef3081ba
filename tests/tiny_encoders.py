"""Random encoders of every family that sprat converts, as their authors would publish them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

Tensors = dict[str, npt.NDArray[Any]]

ROWS, WIDTH, HEADS, LAYERS, INNER, POSITIONS = 40, 32, 4, 2, 48, 24

_BERT_LAYER = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "mixed": "attention.out_lin",
    "mixed_norm": "sa_layer_norm",
    "inner": "ffn.lin1",
    "outer": "ffn.lin2",
    "outer_norm": "output_layer_norm",
}


def config_of(family: str, **changes: Any) -> dict[str, Any]:
    """The config.json of a family; a change to None takes the key out."""
    if family == "distilbert":
        config = {
            "model_type": family,
            "vocab_size": ROWS,
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": INNER,
            "activation": "gelu",
            "max_position_embeddings": POSITIONS,
        }
    else:
        config = {
            "model_type": family,
            "vocab_size": ROWS,
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": INNER,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12 if family == "bert" else 1e-5,
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2 if family == "bert" else 1,
            "position_embedding_type": "absolute",
            "pad_token_id": 0 if family == "bert" else 1,
        }
    return {key: value for key, value in (config | changes).items() if value is not None}


def tensors_of(family: str, *, prefix: str = "") -> Tensors:
    """Weights large enough for every activation and every softmax to bend."""
    draw = np.random.default_rng(11)
    is_distilbert = family == "distilbert"
    names: dict[str, Any] = _DISTILBERT_LAYER if is_distilbert else _BERT_LAYER
    tensors: Tensors = {}

    def table(name: str, rows: int) -> None:
        tensors[f"embeddings.{name}_embeddings.weight"] = draw.normal(size=(rows, WIDTH))

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = draw.normal(1.0, 0.2, WIDTH)
        tensors[f"{name}.bias"] = draw.normal(0.0, 0.2, WIDTH)

    def dense(name: str, to: int, source: int) -> None:
        tensors[f"{name}.weight"] = draw.normal(0.0, 1.5 / np.sqrt(source), (to, source))
        tensors[f"{name}.bias"] = draw.normal(0.0, 0.2, to)

    table("word", ROWS)
    table("position", POSITIONS)
    if not is_distilbert:
        table("token_type", config_of(family)["type_vocab_size"])
    norm("embeddings.LayerNorm")
    for index in range(LAYERS):
        at = f"{'transformer' if is_distilbert else 'encoder'}.layer.{index}."
        for part in names["qkv"]:
            dense(at + part, WIDTH, WIDTH)
        dense(at + names["mixed"], WIDTH, WIDTH)
        norm(at + names["mixed_norm"])
        dense(at + names["inner"], INNER, WIDTH)
        dense(at + names["outer"], WIDTH, INNER)
        norm(at + names["outer_norm"])
    return {prefix + name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def tokenizer_json(tokens: int = ROWS) -> dict[str, Any]:
    """As much of a tokenizer.json as conversion reads."""
    vocabulary = {f"word{i}": i for i in range(1, tokens)}
    return {
        "model": {"type": "WordPiece", "vocab": vocabulary},
        "added_tokens": [{"id": 0, "content": "[UNK]"}],
    }


def publish(folder: Path, family: str = "bert", **changes: Any) -> Path:
    """Write a whole model.

    Parameters
    ----------
    changes
        ``config``, ``tensors`` and ``tokenizer`` instead of the family's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(save(changes.get("tensors") or tensors_of(family)))
    (folder / "config.json").write_text(json.dumps(changes.get("config") or config_of(family)))
    (folder / "tokenizer.json").write_text(json.dumps(changes.get("tokenizer") or tokenizer_json()))
    return folder


def bfloat16_file(tensors: Tensors) -> bytes:
    """A safetensors file of the upper halves of float32 tensors, which numpy cannot write."""
    header: dict[str, Any] = {}
    body = b""
    for name, tensor in tensors.items():
        half = (tensor.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        offsets = [len(body), len(body) + len(half)]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": offsets}
        body += half
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body
