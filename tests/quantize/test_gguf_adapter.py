"""What a LoRA adapter must be before llama.cpp is handed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import lora
import numpy as np
import pytest
from lora import Pairs
from tiny_models import gguf_file

from sprat.errors import CorruptFile, SpratError, UnsupportedModel
from sprat.quantize.gguf_adapter import AdapterFacts, inspect

FLOAT32, FLOAT64, INT32 = (
    gguf.GGUFValueType.FLOAT32,
    gguf.GGUFValueType.FLOAT64,
    gguf.GGUFValueType.INT32,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer llama with an output of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.gguf").write_bytes(gguf_file(folder))
    return folder / "tiny.gguf"


@pytest.fixture(scope="module")
def pairs(base: Path) -> Pairs:
    return lora.pairs(base)


def refused(path: Path, base: Path) -> SpratError:
    with pytest.raises((CorruptFile, UnsupportedModel)) as caught:
        inspect(path, base=base)
    assert str(path) in caught.value.message
    return caught.value


def test_gguf_adapter_inspect_reads_what_it_is(base: Path, pairs: Pairs, tmp_path: Path) -> None:
    path = lora.write_adapter(tmp_path / "a.gguf", pairs, changes={"general.license": "MIT"})
    assert inspect(path, base=base) == AdapterFacts(rank=4, alpha=8.0, licence="MIT")


def test_gguf_adapter_inspect_needs_no_licence_and_names_the_largest_rank(
    base: Path, tmp_path: Path
) -> None:
    pairs = {
        **lora.pairs(base, targets=["attn_q.weight", "token_embd.weight"], rank=2),
        **lora.pairs(base, targets=["output.weight"], rank=16),
    }
    path = lora.write_adapter(tmp_path / "a.gguf", pairs)
    assert inspect(path, base=base) == AdapterFacts(rank=16, alpha=8.0, licence="")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_gguf_adapter_inspect_fits_the_real_model(
    smollm: Path, tmp_path: Path, dtype: type[np.floating[Any]]
) -> None:
    base = smollm / "model.gguf"
    pairs = {name: (a.astype(dtype), b.astype(dtype)) for name, (a, b) in lora.pairs(base).items()}
    assert inspect(lora.write_adapter(tmp_path / "a.gguf", pairs), base=base).rank == lora.RANK


def test_gguf_adapter_inspect_refuses_the_embedding_of_a_model_without_an_output_of_its_own(
    smollm: Path, tmp_path: Path
) -> None:
    """There llama.cpp takes the pair for that of the output, and aborts."""
    base = smollm / "model.gguf"
    path = lora.write_adapter(tmp_path / "a.gguf", lora.pairs(base, targets=["token_embd.weight"]))
    assert "which is the output of this model too" in refused(path, base).message


def test_gguf_adapter_inspect_refuses_a_model_in_its_place(base: Path, tmp_path: Path) -> None:
    assert refused(base, base).message == f"{base}: holds 'model', not an adapter"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"general.type": None}, UnsupportedModel, "holds 'model', not an adapter"),
        ({"general.type": (1, INT32)}, CorruptFile, "general.type: expected a string, found 1"),
        ({"adapter.type": None}, CorruptFile, "adapter.type: expected a string, found None"),
        ({"adapter.type": "control"}, UnsupportedModel, "type 'lora', found 'control'"),
        (
            {"adapter.alora.invocation_tokens": ([1, 2], gguf.GGUFValueType.ARRAY)},
            UnsupportedModel,
            "an activated LoRA",
        ),
        ({"adapter.lora.alpha": None}, CorruptFile, "expected a float32, found None"),
        # llama.cpp would abort.
        ({"adapter.lora.alpha": (8.0, FLOAT64)}, CorruptFile, "expected a float32, found 8.0"),
        ({"adapter.lora.alpha": (8, INT32)}, CorruptFile, "expected a float32, found 8"),
        ({"adapter.lora.alpha": "8"}, CorruptFile, "expected a float32, found '8'"),
        ({"adapter.lora.alpha": (0.0, FLOAT32)}, CorruptFile, "a number above 0, found 0.0"),
        ({"adapter.lora.alpha": (-1.0, FLOAT32)}, CorruptFile, "a number above 0, found -1.0"),
        ({"adapter.lora.alpha": (np.inf, FLOAT32)}, CorruptFile, "a number above 0, found inf"),
        ({"adapter.lora.alpha": (np.nan, FLOAT32)}, CorruptFile, "a number above 0, found nan"),
    ],
    ids=str,
)
def test_gguf_adapter_inspect_refuses_metadata(
    base: Path,
    pairs: Pairs,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[SpratError],
    said: str,
) -> None:
    caught = refused(lora.write_adapter(tmp_path / "a.gguf", pairs, changes=changes), base)
    assert isinstance(caught, error)
    assert said in caught.message


def test_gguf_adapter_inspect_refuses_another_architecture(
    base: Path, pairs: Pairs, tmp_path: Path
) -> None:
    path = lora.write_adapter(tmp_path / "a.gguf", pairs, architecture="qwen2")
    assert "made for a qwen2, but tiny.gguf is a llama" in refused(path, base).message


def test_gguf_adapter_inspect_refuses_one_for_a_larger_model(
    base: Path, smollm: Path, tmp_path: Path
) -> None:
    pairs = lora.pairs(smollm / "model.gguf", targets=["attn_q.weight"])
    first = {"blk.0.attn_q.weight": pairs["blk.0.attn_q.weight"]}
    path = lora.write_adapter(tmp_path / "a.gguf", first)
    assert refused(path, base).message == (
        f"{path}: adapts blk.0.attn_q.weight by matrices of shapes (576, 4) and (4, 576), but "
        "for this model and rank 4 they are (32, 4) and (4, 32)"
    )
    path = lora.write_adapter(tmp_path / "a.gguf", pairs)
    refused(path, base)
    del pairs["blk.0.attn_q.weight"]
    path = lora.write_adapter(tmp_path / "a.gguf", pairs)
    assert "the model has no matrix blk.1.attn_q.weight" in refused(path, base).message


Q = "blk.0.attn_q.weight"
A, B = np.ones((4, 32), np.float32), np.ones((32, 4), np.float32)


@pytest.mark.parametrize(
    ("tensors", "error", "said"),
    [
        ({f"{Q}.lora_a": A}, CorruptFile, f"tensor {Q}.lora_b is missing"),
        ({f"{Q}.lora_b": B}, CorruptFile, f"tensor {Q}.lora_a is missing"),
        ({Q: A}, UnsupportedModel, "expected lora_a and lora_b only"),
        # llama.cpp takes these two and leaves them out.
        (
            {Q: (A, B), "blk.0.attn_norm.weight": np.ones(32, np.float32)},
            UnsupportedModel,
            "tensor blk.0.attn_norm.weight: expected lora_a and lora_b only",
        ),
        (
            {"blk.0.attn_norm.weight": (A, np.ones((1, 4), np.float32))},
            UnsupportedModel,
            "the model has no matrix blk.0.attn_norm.weight",
        ),
        ({Q: (A[:, :16], B)}, UnsupportedModel, "shapes (16, 4) and (4, 32)"),
        ({Q: (A, B[:16])}, UnsupportedModel, "shapes (32, 4) and (4, 16)"),
        ({Q: (A, B[:, :2])}, UnsupportedModel, "and rank 2 they are (32, 2) and (2, 32)"),
        ({Q: (A.T, B.T)}, UnsupportedModel, "shapes (4, 32) and (32, 4)"),
        # llama.cpp would abort on these.
        ({Q: (np.stack([A, A]), B)}, UnsupportedModel, "shapes (32, 4, 2) and (4, 32)"),
        ({Q: (A.astype(np.int32), B)}, UnsupportedModel, "found i32"),
        ({Q: (A, B.astype(np.float64))}, UnsupportedModel, "found f64"),
    ],
)
def test_gguf_adapter_inspect_refuses_tensors(
    base: Path,
    tmp_path: Path,
    tensors: dict[str, Any],
    error: type[SpratError],
    said: str,
) -> None:
    contiguous = {
        name: tuple(map(np.ascontiguousarray, each)) if isinstance(each, tuple) else each
        for name, each in tensors.items()
    }
    caught = refused(lora.write_adapter(tmp_path / "a.gguf", contiguous), base)
    assert isinstance(caught, error)
    assert said in caught.message


def test_gguf_adapter_inspect_refuses_a_file_cut_at_any_byte(base: Path, tmp_path: Path) -> None:
    content = lora.write_adapter(tmp_path / "whole.gguf", {Q: (A[:1], B[:, :1])}).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(len(content) - gguf.GGUF_DEFAULT_ALIGNMENT):
        path.write_bytes(content[:size])
        assert isinstance(refused(path, base), CorruptFile)


def test_gguf_adapter_inspect_survives_any_changed_byte(base: Path, tmp_path: Path) -> None:
    content = bytearray(lora.write_adapter(tmp_path / "a.gguf", {Q: (A, B)}).read_bytes())
    path, refusals = tmp_path / "changed.gguf", 0
    for at in range(len(content) - A.nbytes - B.nbytes):
        before, content[at] = content[at], content[at] ^ 0xFF
        path.write_bytes(content)
        try:
            inspect(path, base=base)
        except (CorruptFile, UnsupportedModel):
            refusals += 1
        content[at] = before
    assert refusals > 100


def test_gguf_adapter_inspect_names_a_cut_base(pairs: Pairs, base: Path, tmp_path: Path) -> None:
    cut = tmp_path / "base.gguf"
    cut.write_bytes(base.read_bytes()[:-32])
    with pytest.raises(CorruptFile, match="the weights are cut") as caught:
        inspect(lora.write_adapter(tmp_path / "a.gguf", pairs), base=cut)
    assert caught.value.path == str(cut)


def test_gguf_adapter_inspect_counts_experts(tmp_path: Path) -> None:
    """A mixture's matrices have a pair for each expert."""
    experts, name = 3, "blk.0.ffn_up_exps.weight"
    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_tensor(name, np.ones((experts, 64, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    a, b = np.ones((experts, 4, 32), np.float32), np.ones((experts, 64, 4), np.float32)
    path = lora.write_adapter(tmp_path / "a.gguf", {name: (a, b)})
    assert inspect(path, base=tmp_path / "base.gguf").rank == 4
    path = lora.write_adapter(tmp_path / "a.gguf", {name: (a[:2].copy(), b)})
    assert "they are (32, 4, 3) and (4, 64, 3)" in refused(path, tmp_path / "base.gguf").message
