"""LoRA adapters, small enough to make in a test, and models that they are merged into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from sprat.quantize.gguf_header import Header

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Pairs = dict[str, tuple[Matrix, Matrix]]

RANK, ALPHA = 4, 8.0
TARGETS = ("attn_q.weight", "attn_v.weight", "ffn_down.weight")


def shapes(base: Path) -> dict[str, tuple[int, int]]:
    """Rows and columns of each matrix of a model."""
    # Its twin in the gguf package takes seconds for a vocabulary of 50,000.
    matrices = [t for t in Header(base).tensors if len(t.shape) == 2]
    return {matrix.name: (matrix.shape[1], matrix.shape[0]) for matrix in matrices}


def pairs(
    base: Path,
    *,
    targets: Iterable[str] = TARGETS,
    rank: int = RANK,
    size: float = 0.05,
    seed: int = 7,
) -> Pairs:
    """Random matrices A and B for the matrices of a model that are in ``targets``, in all layers.

    A converter permutes the rows of B where the model's own are permuted, as those of Q and K of
    llamas are. These stand in the order of the file.

    Parameters
    ----------
    size : float
        Standard deviation of the elements. 0.05 moves the answers of SmolLM2-135M, 0.5 drowns them.
    """
    draw = np.random.default_rng(seed)

    def random(*shape: int) -> Matrix:
        return draw.normal(0, size, shape).astype(np.float32)

    made = {}
    for name, (rows, columns) in shapes(base).items():
        if name not in targets and name.split(".", 2)[-1] not in targets:
            continue
        if name == "token_embd.weight":
            made[name] = (random(rows, rank), random(columns, rank))
        else:
            made[name] = (random(rank, columns), random(rows, rank))
    return made


def write_adapter(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    architecture: str = "llama",
    alpha: float = ALPHA,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write an adapter.

    Parameters
    ----------
    tensors : mapping of str to array or pair of arrays
        Pairs as `pairs` makes them, or arrays by their full name.
    changes : dict
        Metadata to set beside or instead of what an adapter has; None leaves a key out. A tuple is
        a value and its `gguf.GGUFValueType`.
    """
    writer = gguf.GGUFWriter(path, architecture)
    metadata: dict[str, Any] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": (alpha, gguf.GGUFValueType.FLOAT32),
        **(changes or {}),
    }
    for key, value in metadata.items():
        if isinstance(value, tuple):
            writer.add_key_value(key, *value)
        elif value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType.STRING)
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            writer.add_tensor(f"{name}.lora_a", tensor[0])
            writer.add_tensor(f"{name}.lora_b", tensor[1])
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merged(base: Path, out: Path, added: Pairs, *, scale: float = ALPHA / RANK) -> Path:
    """A float32 model with ``scale * B A`` added to its matrices."""
    content = bytearray(base.read_bytes())
    for tensor in gguf.GGUFReader(base).tensors:
        if tensor.name in added:
            a, b = added[tensor.name]
            product = a @ b.T if tensor.name == "token_embd.weight" else b @ a
            new = (tensor.data + np.float32(scale) * product).astype(np.float32)
            content[tensor.data_offset : tensor.data_offset + new.nbytes] = new.tobytes()
    out.write_bytes(content)
    return out
