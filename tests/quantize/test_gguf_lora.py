"""Adapters as files: llama.cpp makes of them what the papers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy_llama
import pytest
from tiny_models import HEADS, INNER, WIDTH, gguf_file

from sprat.engine.base import Choice
from sprat.engine.llama import LlamaEngine
from sprat.errors import CorruptFile, UnsupportedModel
from sprat.quantize import gguf_adapter, gguf_lora
from sprat.quantize.gguf_lora import LINEAR, Base, Pair

RANK, ALPHA = 4, 12.0
EPS = 1e-5
IDS = np.arange(40, 60, dtype=np.int32)
OPTIONS = np.arange(100, 108, dtype=np.int32)
SHAPES = {
    **{name: (WIDTH, WIDTH) for name in LINEAR if name.startswith("self_attn")},
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "base.gguf").write_bytes(gguf_file(folder))
    return folder / "base.gguf"


def pairs(*names: str) -> dict[tuple[int, str], Pair]:
    draw = np.random.default_rng(5)
    return {
        (0, name): (
            draw.normal(0, 0.5, (RANK, SHAPES[name][1])).astype(np.float32),
            draw.normal(0, 0.5, (SHAPES[name][0], RANK)).astype(np.float32),
        )
        for name in names
    }


def in_llama(base: Path, adapter: Path | None) -> np.ndarray:
    """Probabilities of the options, among themselves."""
    files = {} if adapter is None else {"a": adapter}
    engine = LlamaEngine(base, context_length=48, sequence_limit=1, threads=1, adapters=files)
    try:
        chooser = engine.chooser()
        options = tuple(OPTIONS[i : i + 1] for i in range(len(OPTIONS)))
        chooser.start(0, Choice(IDS, 0, options, is_pruned=False, adapter="".join(files)))
        while True:
            for chosen in chooser.step(max_tokens=64, threads=1):
                assert chosen.error is None
                return chosen.probabilities
    finally:
        engine.close()


def in_numpy(base: Path, added: dict[tuple[int, str], Pair]) -> np.ndarray:
    weights = numpy_llama.from_file(base, HEADS)
    for (layer, name), (a, b) in added.items():
        weights[f"blk.{layer}.{LINEAR[name]}.weight"] += ALPHA / RANK * b.astype(np.float64) @ a
    last = numpy_llama.logits(weights, IDS, heads=HEADS, eps=EPS)[-1][OPTIONS]
    powers = np.exp(last - last.max())
    return powers / powers.sum()


@pytest.mark.parametrize("names", [*((name,) for name in LINEAR), tuple(LINEAR)])
def test_gguf_lora_is_applied_as_transformers_orders_it(
    names: tuple[str, ...], base: Path, tmp_path: Path
) -> None:
    added = pairs(*names)
    gguf_lora.write(tmp_path / "a.gguf", gguf_lora.read_base(base), added, alpha=ALPHA)
    facts = gguf_adapter.inspect(tmp_path / "a.gguf", base=base)
    assert (facts.rank, facts.alpha) == (RANK, ALPHA)
    plain, tuned = in_llama(base, None), in_llama(base, tmp_path / "a.gguf")
    np.testing.assert_allclose(plain, in_numpy(base, {}), atol=1e-3)
    np.testing.assert_allclose(tuned, in_numpy(base, added), atol=1e-3)
    assert np.abs(plain - tuned).max() > 1e-2


def test_gguf_lora_leaves_the_rows_of_other_architectures(base: Path, tmp_path: Path) -> None:
    added = pairs("self_attn.q_proj")
    like_qwen = Base("qwen2", 1, {"attn_q": HEADS, "attn_k": HEADS})
    gguf_lora.write(tmp_path / "a.gguf", like_qwen, added, alpha=ALPHA)
    (tmp_path / "b.gguf").write_bytes(gguf_file(tmp_path, architecture="qwen2"))
    gguf_adapter.inspect(tmp_path / "a.gguf", base=tmp_path / "b.gguf")
    ((_, b),) = added.values()
    assert b.tobytes() in (tmp_path / "a.gguf").read_bytes()


def test_gguf_lora_interleaves_each_head() -> None:
    rows = np.arange(16, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    made = gguf_lora.interleave(rows, 2)
    assert made[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    assert made.flags.c_contiguous


def test_gguf_lora_refuses_other_architectures(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_file(tmp_path, architecture="gemma2"))
    with pytest.raises(UnsupportedModel, match=r"architecture llama, .* this is a gemma2"):
        gguf_lora.read_base(tmp_path / "m.gguf")


def test_gguf_lora_refuses_a_model_without_heads(base: Path, tmp_path: Path) -> None:
    content = base.read_bytes()
    key = b"llama.attention.head_count\x04"
    assert content.count(key) == 1
    (tmp_path / "m.gguf").write_bytes(content.replace(key, b"llama.attention.head_kount\x04"))
    with pytest.raises(CorruptFile, match="head_count: expected a number from 1, found None"):
        gguf_lora.read_base(tmp_path / "m.gguf")
