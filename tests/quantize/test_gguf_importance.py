from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from sprat.engine.llama_scorer import Scorer
from sprat.errors import DataError
from sprat.quantize.gguf import requantize
from sprat.quantize.gguf_importance import collect

TEXTS = ["The river had been rising since noon.", "He called to his daughter."]
MATRICES = {f"attn_{part}" for part in ("q", "k", "v", "output")} | {
    *("ffn_gate", "ffn_up", "ffn_down")
}


def test_gguf_importance_covers_the_layers(tiny: Path) -> None:
    found = collect(tiny, TEXTS, context_length=64, tokens=1000, threads=1)
    assert found.keys() == {f"blk.0.{name}.weight" for name in MATRICES}
    assert found["blk.0.attn_q.weight"].shape == (32,)
    assert found["blk.0.ffn_down.weight"].shape == (64,)
    # These share their input.
    np.testing.assert_array_equal(found["blk.0.attn_q.weight"], found["blk.0.attn_k.weight"])


def test_gguf_importance_is_the_mean_square_of_the_input(tiny: Path) -> None:
    found = collect(tiny, TEXTS, context_length=64, tokens=1000, threads=1)
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny).tensors}
    scorer = Scorer(tiny, context_length=64, threads=1)
    ids = np.concatenate([scorer.tokenize(text) for text in TEXTS])
    scorer.close()
    # The first layer's input is RMSNorm of the embedding; its weight is 1.
    rows = tensors["token_embd.weight"][ids].astype(np.float64)
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found["blk.0.attn_q.weight"], (rows**2).mean(axis=0), rtol=1e-4)


def test_gguf_importance_stops_after_so_many_tokens(tiny: Path) -> None:
    few = collect(tiny, TEXTS, context_length=64, tokens=20, threads=1)
    cut = collect(tiny, TEXTS[:1], context_length=20, tokens=1000, threads=1)
    for name, values in few.items():
        np.testing.assert_array_equal(values, cut[name])


def test_gguf_importance_needs_texts(tiny: Path) -> None:
    with pytest.raises(DataError, match="no rows to calibrate with"):
        collect(tiny, [], context_length=64, tokens=10, threads=1)


@pytest.mark.parametrize("quantization", ["q4_0", "iq4_nl"])
def test_gguf_importance_guides_the_rounding(tiny: Path, tmp_path: Path, quantization: str) -> None:
    importance = {
        name: np.geomspace(1, 1e4, len(values)).astype(np.float32)
        for name, values in collect(tiny, TEXTS, context_length=64, tokens=99, threads=1).items()
    }
    paths = [tmp_path / f"{name}.gguf" for name in ("plain", "guided")]
    requantize(tiny, paths[0], quantization=quantization)
    requantize(tiny, paths[1], quantization=quantization, importance=importance)
    name = "blk.0.attn_q.weight"
    original = next(t.data for t in gguf.GGUFReader(tiny).tensors if t.name == name)
    errors = []
    for path in paths:
        tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
        rounded = gguf.dequantize(tensor.data, tensor.tensor_type)
        errors.append((importance[name] * (rounded - original) ** 2).sum())
    assert errors[1] < 0.8 * errors[0]
