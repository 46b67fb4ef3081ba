"""LoRA adapters in llama.cpp: what they do to logits, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lora
import numpy as np
import pytest
from tiny_models import gguf_file

from sprat.engine import llama_lib
from sprat.engine.llama_adapter import Adapter, apply
from sprat.engine.llama_lane import Lane, Row
from sprat.errors import CorruptFile
from sprat.values import FloatArray, IntArray

LIB = llama_lib.load()
IDS = np.arange(3, 23, dtype=np.int32)
EVERYWHERE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Model:
    """A model with one context, and the adapters that a test loads for it."""

    def __init__(self, path: Path) -> None:
        self.pointer = LIB.llama_model_load_from_file(
            str(path).encode(), LIB.llama_model_default_params()
        )
        self.lane = Lane(LIB, self.pointer, places=1, spare=0, capacity=64, threads=1)
        self.adapters: list[Adapter] = []

    def adapter(self, path: Path) -> Adapter:
        self.adapters.append(Adapter(LIB, self.pointer, path))
        return self.adapters[-1]

    def apply(self, adapter: Adapter | None) -> None:
        apply(LIB, self.lane.context, adapter)

    def logits(self, adapter: Adapter | None = None, ids: IntArray = IDS) -> FloatArray:
        """Of the last token, under an adapter or under none."""
        self.apply(adapter)
        occupant = SimpleNamespace(place=-1)
        self.lane.enter(occupant)
        assert self.lane.decode([Row(0, ids, 0, outputs=1)], threads=1) == 0
        row: FloatArray = self.lane.logits(1)[0].copy()
        self.lane.leave(occupant)
        return row

    def close(self) -> None:
        self.lane.close()
        for adapter in self.adapters:
            adapter.close()
        LIB.llama_model_free(self.pointer)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer llama in float32."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.gguf").write_bytes(gguf_file(folder))
    return folder / "tiny.gguf"


@pytest.fixture
def model(base: Path) -> Iterator[Model]:
    made = Model(base)
    yield made
    made.close()


@pytest.mark.parametrize(
    "targets",
    [*((f"{part}.weight",) for part in EVERYWHERE), ("output.weight",), ("token_embd.weight",)],
    ids=lambda targets: targets[0],
)
def test_llama_adapter_is_the_model_with_the_product_added(
    model: Model, base: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    pairs = lora.pairs(base, targets=targets, size=0.3)
    adapter = model.adapter(lora.write_adapter(tmp_path / "a.gguf", pairs))
    whole = Model(lora.merged(base, tmp_path / "merged.gguf", pairs))
    expected = whole.logits()
    whole.close()
    np.testing.assert_allclose(model.logits(adapter), expected, atol=1e-4)
    assert np.abs(model.logits() - expected).max() > 1e-3


def test_llama_adapter_is_scaled_by_alpha_over_rank(
    model: Model, base: Path, tmp_path: Path
) -> None:
    """Of the output matrix, so that logits are linear in it."""
    pairs = lora.pairs(base, targets=["output.weight"], rank=8)
    once, thrice = (
        model.logits(model.adapter(lora.write_adapter(tmp_path / "a.gguf", pairs, alpha=alpha)))
        - model.logits()
        for alpha in (8.0, 24.0)
    )
    np.testing.assert_allclose(thrice, 3 * once, atol=1e-5)
    assert np.abs(once).max() > 1e-3


def test_llama_adapter_taken_off_or_exchanged_leaves_nothing(
    model: Model, base: Path, tmp_path: Path
) -> None:
    first, second = (
        model.adapter(lora.write_adapter(tmp_path / "a.gguf", lora.pairs(base, seed=seed)))
        for seed in (1, 2)
    )
    plain, one, two = model.logits(), model.logits(first), model.logits(second)
    for row, adapter in ((plain, None), (two, second), (one, first), (plain, None)):
        np.testing.assert_array_equal(model.logits(adapter), row)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, plain)


def test_llama_adapter_changes_what_a_real_model_says(q8: Path, tmp_path: Path) -> None:
    model = Model(q8)
    pairs = lora.pairs(q8, size=0.2)
    adapter = model.adapter(lora.write_adapter(tmp_path / "a.gguf", pairs))
    plain, adapted = model.logits(), model.logits(adapter)
    model.close()
    assert np.isfinite(adapted).all()
    assert plain.argmax() != adapted.argmax()


def test_llama_adapter_close_before_its_model_and_twice(
    model: Model, base: Path, tmp_path: Path
) -> None:
    adapter = model.adapter(lora.write_adapter(tmp_path / "a.gguf", lora.pairs(base)))
    model.logits(adapter)
    model.apply(None)
    adapter.close()
    adapter.close()
    model.logits()


def refused(model: Model, path: Path) -> CorruptFile:
    with pytest.raises(CorruptFile, match=r"llama\.cpp cannot load it") as caught:
        Adapter(LIB, model.pointer, path)
    assert caught.value.path == str(path)
    model.logits()
    return caught.value


def test_llama_adapter_for_another_architecture(model: Model, base: Path, tmp_path: Path) -> None:
    path = lora.write_adapter(tmp_path / "a.gguf", lora.pairs(base), architecture="qwen2")
    assert "arch mismatch" in refused(model, path).message


def test_llama_adapter_of_another_shape(
    model: Model, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = lora.pairs(base)
    wrong = {name: (a[:, :-1].copy(), b) for name, (a, b) in pairs.items()}
    path = lora.write_adapter(tmp_path / "a.gguf", wrong)
    assert "incorrect shape" in refused(model, path).message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, 0.999])
def test_llama_adapter_that_is_cut(model: Model, base: Path, tmp_path: Path, keep: float) -> None:
    content = lora.write_adapter(tmp_path / "whole.gguf", lora.pairs(base)).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(keep if keep >= 1 or not keep else keep * len(content))])
    refused(model, path)


def test_llama_adapter_that_is_a_model_or_missing(model: Model, base: Path, tmp_path: Path) -> None:
    refused(model, base)
    refused(model, tmp_path / "none.gguf")


def test_llama_adapter_loads_from_a_path_that_is_not_ascii(
    model: Model, base: Path, tmp_path: Path
) -> None:
    model.adapter(lora.write_adapter(tmp_path / "Fisch 🐟.gguf", lora.pairs(base)))
