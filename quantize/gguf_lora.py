"""LoRA adapters written as GGUF files, from matrices as transformers names and orders them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprat.errors import CorruptFile, UnsupportedModel
from sprat.quantize.gguf_header import Header
from sprat.values import FloatArray

LINEAR = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The linear maps of a layer, by their names in transformers: their names in GGUF files."""

ARCHITECTURES = {"llama": True, "qwen2": False, "qwen3": False}
"""Architectures whose layers hold exactly these, and whether files hold the rows of Q and K in the
order of the rotation's pairs, instead of all first halves of the pairs before all second ones."""

Pair = tuple[FloatArray, FloatArray]
"""A float32[R, columns] and B float32[rows, R]: B A is added to a matrix float32[rows, columns]."""


@dataclass(frozen=True, slots=True)
class Base:
    """What has to be known of a model to write adapters for it.

    Attributes
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    layers : int
        How many it has.
    heads : dict of str to int
        Attention heads behind the rows of ``attn_q`` and ``attn_k``.
    head_size : int or None
        Rows of a head; None where the header leaves it to the width of the model.
    """

    architecture: str
    layers: int
    heads: Mapping[str, int]
    head_size: int | None = None


def read_base(path: Path) -> Base:
    """Read what the header of a model says.

    Raises
    ------
    CorruptFile
        It is no GGUF file, or its header contradicts itself.
    UnsupportedModel
        Adapters are not written for this architecture.
    """
    header = Header(path)
    architecture = header.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{path}: adapters are trained for models of architecture "
            f"{', '.join(ARCHITECTURES)}, this is a {architecture}"
        )

    def number(key: str, default: int | None = None) -> int:
        value = header.metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise CorruptFile(
                str(path), f"{architecture}.{key}: expected a number from 1, found {value!r}"
            )
        return value

    queries = number("attention.head_count")
    keys = number("attention.head_count_kv", queries)
    key = "attention.key_length"
    has_size = f"{architecture}.{key}" in header.metadata
    return Base(
        architecture,
        number("block_count"),
        {"attn_q": queries, "attn_k": keys},
        number(key) if has_size else None,
    )


def write(path: Path, base: Base, pairs: Mapping[tuple[int, str], Pair], *, alpha: float) -> None:
    """Write an adapter.

    Parameters
    ----------
    path : Path
        A new file.
    base : Base
        The model that it is for.
    pairs : mapping of (int, str) to (float32[R, columns], float32[rows, R])
        By layer, from 0, and name in transformers, which is one of `LINEAR`.
    alpha : float
        Each product is multiplied by ``alpha / R``.
    """
    import gguf

    writer = gguf.GGUFWriter(path, base.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for (layer, name), (a, b) in sorted(pairs.items()):
        matrix = LINEAR[name]
        if ARCHITECTURES[base.architecture] and matrix in base.heads:
            b = interleave(b, base.heads[matrix])
        at = f"blk.{layer}.{matrix}.weight"
        writer.add_tensor(f"{at}.lora_a", np.ascontiguousarray(a, np.float32))
        writer.add_tensor(f"{at}.lora_b", np.ascontiguousarray(b, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(matrix: FloatArray, heads: int) -> FloatArray:
    """Reorder the rows of each head: 0, D/2, 1, D/2 + 1, ... of its D rows.

    Rotary embeddings turn pairs of rows. In transformers the partner of row i is row i + D/2, in
    GGUF files of llamas it is the next one.

    Parameters
    ----------
    matrix : float32[heads * D, columns]
        D is even.

    Examples
    --------
    >>> rows = np.arange(8, dtype=np.float32)[:, None]
    >>> interleave(rows, 2).ravel().tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    columns = matrix.shape[1]
    halves = matrix.reshape(heads, 2, -1, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1, columns)
