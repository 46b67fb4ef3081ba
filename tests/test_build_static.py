"""Static models in the store: pulled from a folder, or distilled from an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model2vec
import numpy as np
import pytest
from pulling import Recorder, assert_nothing_there, leftovers
from static_models import DIMENSION, save, static_model, unigram
from tiny_models import WIDTH, encoder_files, gguf_file, write_files

from sprat.build_static import distilled
from sprat.engine.static import StaticEncoder
from sprat.errors import CorruptFile, InvalidInput, NotFound, StoreError, UnsupportedModel
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(static_model(normalize=True, max_length=99), tmp_path / "Potion")


def test_pull_static_folder_as_it_is(store: Store, source: Path) -> None:
    tape = Recorder()
    manifest = pull(str(source), store, progress=tape)
    assert manifest == store.model("potion", check=True)[0]
    assert (manifest.kind, manifest.engine, manifest.architecture) == (
        *("encoder", "static", "model2vec"),
    )
    assert (manifest.quantization, manifest.weights) == ("float32", "model.safetensors")
    assert (manifest.pooling, manifest.max_tokens, manifest.dimension) == ("mean", 99, DIMENSION)
    assert manifest.source == f"file:{source}"
    assert manifest.source_weights is None
    folder = store.root / "models" / "potion"
    assert sorted(p.name for p in folder.iterdir()) == [
        *("config.json", "model.json", "model.safetensors", "tokenizer.json"),
    ]
    assert [text for text, *_ in tape.phases] == ["copy"]
    assert pull(str(source), store) == manifest
    assert leftovers(store) == []


@pytest.mark.parametrize("quantization", ["int8", "float16"])
def test_pull_static_folder_quantizes_when_asked(
    store: Store, source: Path, quantization: str
) -> None:
    name = "small"
    manifest = pull(str(source), store, name=name, quantization=quantization)
    assert manifest.quantization == quantization
    assert manifest.source_weights == "source/model.safetensors"
    folder = store.root / "models" / name
    config = json.loads((folder / "config.json").read_text())
    assert (config["embedding_dtype"], config["normalize"]) == (quantization, True)
    texts = ["my parcel is late", "refunds!"]
    expected = model2vec.StaticModel.from_pretrained(source).encode(texts)
    np.testing.assert_allclose(StaticEncoder(folder).encode(texts).vectors, expected, atol=0.01)
    assert pull(str(source), store, name=name, quantization=quantization) == manifest
    with pytest.raises(StoreError, match="another model named small"):
        pull(str(source), store, name=name)


def test_pull_static_refuses_what_cannot_be_made(store: Store, tmp_path: Path) -> None:
    small = save(static_model(dtype="int8"), tmp_path / "small")
    with pytest.raises(InvalidInput, match="int8 already"):
        pull(str(small), store, quantization="float16")
    encoder = write_files(tmp_path / "encoder", encoder_files())
    with pytest.raises(InvalidInput, match="expected int8 or float32 for an encoder"):
        pull(str(encoder), store, quantization="float16")
    bad = save(static_model(), tmp_path / "bad")
    (bad / "config.json").write_text('{"normalize": 3}')
    with pytest.raises(CorruptFile, match=f"file:{bad}: config.json: normalize"):
        pull(str(bad), store)
    assert_nothing_there(store)


def add_encoder(store: Store, tmp_path: Path) -> str:
    return pull(str(write_files(tmp_path / "tiny", encoder_files())), store).name


def test_distilled_is_in_the_store_and_serves(store: Store, tmp_path: Path) -> None:
    base = add_encoder(store, tmp_path)
    tape = Recorder()
    manifest = distilled(base, "tiny-static", store, dimension=4, progress=tape)
    assert manifest == store.model("tiny-static", check=True)[0]
    assert (manifest.engine, manifest.quantization, manifest.dimension) == ("static", "int8", 4)
    encoder = store.model(base)[0]
    assert manifest.source == f"distilled from {base} {encoder.version}"
    assert manifest.licence == encoder.licence
    assert tape.phases[0] == ("embed 8 tokens", 8, 8)
    with Runtime(models=["tiny-static"], store=store) as runtime:
        result = runtime.embed("tiny-static", ["parcel late", "refund"])
    assert result.vectors.shape == (2, 4)
    library = model2vec.StaticModel.from_pretrained(store.root / "models" / "tiny-static")
    expected = library.encode(["parcel late", "refund"])
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)
    again = distilled(base, "tiny-static", store, dimension=3)
    assert again == manifest
    other = distilled(base, "tiny-static", store, dimension=3, quantization="float16", replace=True)
    assert (other.dimension, other.quantization) == (3, "float16")


def test_distilled_twice_is_the_same(store: Store, tmp_path: Path) -> None:
    base = add_encoder(store, tmp_path)
    made = [distilled(base, name, store) for name in ("one", "two")]
    assert made[0].digest == made[1].digest
    # 8 tokens span no more.
    assert made[0].dimension == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": WIDTH + 1}, "dimension: expected 1 to 7, got 33"),
        ({"quantization": "q8_0"}, "quantization: expected int8, float16, float32, got 'q8_0'"),
    ],
)
def test_distilled_refuses_bad_options(
    store: Store, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    base = add_encoder(store, tmp_path)
    with pytest.raises(InvalidInput, match=message):
        distilled(base, "made", store, **options)
    assert [manifest.name for manifest, _ in store.models()] == [base]
    assert leftovers(store) == []


def test_distilled_needs_an_encoder(store: Store, source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        distilled("nothing", "made", store)
    pull(str(source), store)
    with pytest.raises(UnsupportedModel, match="potion is static already"):
        distilled("potion", "made", store)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_file(tmp_path))
    pull(str(path), store)
    with pytest.raises(UnsupportedModel, match="tiny is a generative model"):
        distilled("tiny", "made", store)


def test_pull_static_with_another_tokenizer(store: Store, tmp_path: Path) -> None:
    library = static_model(unigram())
    pull(str(save(library, tmp_path / "multi")), store)
    with Runtime(models=["multi"], store=store) as runtime:
        found = runtime.embed("multi", ["my parcel is late"]).vectors
    np.testing.assert_allclose(found, library.encode(["my parcel is late"]), atol=1e-6)
