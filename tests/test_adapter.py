"""Adapters: into the store for one version of one model, and out of it for that one only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
from doubles import no_leaked_threads
from tiny_models import encoder_files, gguf_file, write_files

from sprat import adapter
from sprat.budget import ComputePermits
from sprat.config import Config, ModelConfig
from sprat.errors import (
    CorruptFile,
    InvalidInput,
    NotFound,
    SpratError,
    StaleAdapter,
    StoreError,
    UnsupportedModel,
)
from sprat.manifest import ADAPTER_MANIFEST, sha256_file
from sprat.pull import pull
from sprat.registry import Registry
from sprat.scheduler import ComputePool
from sprat.store import Store

ENCODER, BASE = "tiny-encoder", "tiny"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a model, another version of it, an encoder, and an adapter."""
    folder = tmp_path_factory.mktemp("published")
    content = gguf_file(folder)
    (folder / "tiny.gguf").write_bytes(content)
    (folder / "newer.gguf").write_bytes(content[:-4] + b"\0\0\0\0")
    write_files(folder / ENCODER, encoder_files())
    lora.write_adapter(folder / "Polite Tone.gguf", lora.pairs(folder / "tiny.gguf"))
    return folder


@pytest.fixture
def polite(published: Path) -> Path:
    return published / "Polite Tone.gguf"


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    """A store with the model."""
    store = Store(tmp_path / "home")
    pull(str(published / "tiny.gguf"), store)
    return store


def replace_base(store: Store, published: Path) -> None:
    pull(str(published / "newer.gguf"), store, name=BASE, replace=True)


def test_adapter_add_records_the_base_that_is_here(store: Store, polite: Path) -> None:
    made = adapter.add(polite, store, base=BASE)
    base, _ = store.model(BASE)
    assert (made.name, made.kind) == ("polite-tone", "lora")
    assert (made.base.name, made.base.digest) == (BASE, base.digest)
    assert (made.rank, made.alpha, made.licence) == (lora.RANK, lora.ALPHA, "not stated")
    assert store.adapter("polite-tone", check=True)[0] == made
    assert [a.name for a, _ in store.adapters()] == ["polite-tone"]
    (path,) = adapter.resolve(["polite-tone"], store, base=base).values()
    assert sha256_file(path) == sha256_file(polite)


def test_adapter_add_takes_a_name_and_a_licence(store: Store, polite: Path, tmp_path: Path) -> None:
    licensed = lora.write_adapter(
        tmp_path / "a.gguf",
        lora.pairs(store.model(BASE)[1] / "model.gguf"),
        changes={"general.license": "MIT"},
    )
    assert adapter.add(licensed, store, base=BASE, name="x").licence == "MIT"
    assert adapter.add(licensed, store, base=BASE, name="y", licence="ISC").licence == "ISC"
    assert adapter.resolve(["y", "x"], store, base=store.model(BASE)[0]).keys() == {"x", "y"}


def test_adapter_versions_differ_by_file_and_base(
    store: Store, published: Path, polite: Path, tmp_path: Path
) -> None:
    other = lora.write_adapter(tmp_path / "b.gguf", lora.pairs(published / "tiny.gguf", seed=8))
    versions = [
        adapter.add(polite, store, base=BASE, name="a").version,
        adapter.add(other, store, base=BASE, name="b").version,
    ]
    replace_base(store, published)
    versions.append(adapter.add(polite, store, base=BASE, name="a", replace=True).version)
    assert len(set(versions)) == 3


def test_adapter_add_refuses_what_is_not_here(store: Store, polite: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="known: tiny"):
        adapter.add(polite, store, base="nothing")
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(NotFound, match="no file named"):
            adapter.add(path, store, base=BASE)
    with pytest.raises(InvalidInput, match="cannot be a name"):
        adapter.add(polite, store, base=BASE, name="../x")
    assert store.adapters() == []


def test_adapter_add_refuses_an_encoder(store: Store, published: Path, polite: Path) -> None:
    pull(str(published / ENCODER), store)
    with pytest.raises(InvalidInput, match="expected a generative model, but tiny-encoder is an"):
        adapter.add(polite, store, base=ENCODER)


def test_adapter_add_refuses_what_is_no_adapter_by_the_name_it_was_given(
    store: Store, published: Path, polite: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match="not an adapter") as unsupported:
        adapter.add(published / "tiny.gguf", store, base=BASE, name="x")
    assert unsupported.value.message.startswith(f"{published / 'tiny.gguf'}: ")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(polite.read_bytes()[:-64])
    with pytest.raises(CorruptFile, match="the weights are cut") as corrupt:
        adapter.add(cut, store, base=BASE)
    assert corrupt.value.path == str(cut)
    assert str(store.root) not in corrupt.value.message
    assert store.adapters() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_adapter_add_names_a_base_that_is_cut(store: Store, polite: Path) -> None:
    weights = store.model(BASE)[1] / "model.gguf"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(CorruptFile) as caught:
        adapter.add(polite, store, base=BASE)
    assert caught.value.path == str(weights)


def test_adapter_names_are_taken_once(store: Store, polite: Path) -> None:
    adapter.add(polite, store, base=BASE, name="a")
    with pytest.raises(StoreError, match="adapter a is there already"):
        adapter.add(polite, store, base=BASE, name="a")
    adapter.add(polite, store, base=BASE, name="a", replace=True)
    with pytest.raises(StoreError, match="tiny is the name of a model"):
        adapter.add(polite, store, base=BASE, name=BASE)
    with pytest.raises(StoreError, match="a is the name of an adapter"):
        pull(str(store.model(BASE)[1] / "model.gguf"), store, name="a")


def test_adapter_remove_takes_adapters_only(store: Store, polite: Path) -> None:
    adapter.add(polite, store, base=BASE, name="a")
    with pytest.raises(NotFound, match="known: tiny"):
        store.remove("a")
    with pytest.raises(NotFound, match="no adapter named 'tiny'; known: a"):
        store.remove_adapter(BASE)
    store.remove_adapter("a")
    assert store.adapters() == []
    assert list((store.root / "tmp").iterdir()) == []
    assert store.model(BASE, check=True)


def test_adapter_replacement_killed_between_its_two_renames_is_undone(
    store: Store, polite: Path
) -> None:
    made = adapter.add(polite, store, base=BASE, name="a")
    store.adapter("a")[1].rename(store.root / "tmp" / "a.adapters")
    adapter.add(polite, store, base=BASE, name="b")
    assert store.adapter("a", check=True)[0] == made


ADD = """
import sys
from pathlib import Path
from sprat import adapter
from sprat.store import Store
adapter.add(Path(sys.argv[2]), Store(Path(sys.argv[1])), base="tiny", name="a")
"""


def test_adapter_added_by_two_processes_at_once_is_added_by_one(store: Store, polite: Path) -> None:
    command = [sys.executable, "-c", ADD, str(store.root), str(polite)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=60)[1] for process in running)
    assert sorted(process.returncode for process in running) == [0, 1]
    assert "StoreError: adapter a is there already" in said
    assert store.adapter("a", check=True)
    assert list((store.root / "tmp").iterdir()) == []


# -- loading ---------------------------------------------------------------------------------


@pytest.fixture
def loaded(store: Store, polite: Path) -> Iterator[Any]:
    """Load the model with one adapter, named ``a`` unless told."""
    adapter.add(polite, store, base=BASE, name="a")
    permits = ComputePermits(1)

    def load(name: str = "a", model: str = BASE) -> None:
        config = Config(models={model: ModelConfig(adapters=(name,), context_length=32)})
        Registry.load(config, store, permits=permits, pool=pool).close()

    with no_leaked_threads():
        pool = ComputePool(permits)
        yield load
        pool.close()


def refused(load: Any, kind: type[SpratError], *arguments: str) -> str:
    with pytest.raises(kind) as caught:
        load(*arguments)
    assert type(caught.value) is kind
    return str(caught.value)


def test_adapter_loads_with_its_model(loaded: Any) -> None:
    loaded()


def test_adapter_that_was_removed(loaded: Any, store: Store) -> None:
    store.remove_adapter("a")
    assert refused(loaded, NotFound) == "no adapter named 'a'"


def test_adapter_unknown_offers_the_known(loaded: Any) -> None:
    assert refused(loaded, NotFound, "b") == "no adapter named 'b'; known: a"
    assert "cannot be a name" in refused(loaded, InvalidInput, "../b")


def test_adapter_whose_base_was_replaced(loaded: Any, store: Store, published: Path) -> None:
    before = store.model(BASE)[0].version
    replace_base(store, published)
    folder, now = store.adapter("a")[1], store.model(BASE)[0].version
    assert refused(loaded, StaleAdapter) == (
        f"{folder}: made for tiny version {before}, but tiny here is version {now}; "
        "add it again for this one"
    )


def test_adapter_with_another_model(loaded: Any, store: Store, published: Path) -> None:
    pull(str(published / "newer.gguf"), store)
    pull(str(published / ENCODER), store)
    assert "newer here is version" in refused(loaded, StaleAdapter, "a", "newer")
    assert "tiny-encoder here is version" in refused(loaded, StaleAdapter, "a", ENCODER)


@pytest.mark.parametrize("change", ["flip", "cut", "delete"])
def test_adapter_file_that_changed(loaded: Any, store: Store, change: str) -> None:
    path = store.adapter("a")[1] / adapter.WEIGHTS
    content = path.read_bytes()
    if change == "delete":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"" if change == "cut" else bytes([content[-1] ^ 1])))
    assert refused(loaded, CorruptFile).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"format": 2}, "format"),
        ({"name": "b"}, "name"),
        ({"kind": "control"}, "kind"),
        ({"base": {"name": "tiny", "digest": "short"}}, "base.digest"),
        ({"rank": 0}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": None}, "alpha"),
        ({"files": []}, "files"),
        ({"weights": "../tiny.gguf"}, "files"),
    ],
    ids=str,
)
def test_adapter_manifest_that_is_wrong(
    loaded: Any, store: Store, change: dict[str, Any], where: str
) -> None:
    path = store.adapter("a")[1] / ADAPTER_MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert refused(loaded, CorruptFile).startswith(f"{path}: {where}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", None])
def test_adapter_manifest_that_is_none(loaded: Any, store: Store, content: bytes | None) -> None:
    path = store.adapter("a")[1] / ADAPTER_MANIFEST
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    refused(loaded, CorruptFile)
    with pytest.raises(CorruptFile, match=ADAPTER_MANIFEST):
        store.adapters()
    store.remove_adapter("a")
