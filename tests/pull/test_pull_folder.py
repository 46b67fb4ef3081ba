from __future__ import annotations

from pathlib import Path

import pytest
from pulling import (
    Recorder,
    assert_nothing_there,
    leftovers,
)
from tiny_models import (
    POSITIONS,
    WIDTH,
    as_json,
    encoder_files,
    write_files,
)

from sprat.errors import (
    CorruptFile,
    StoreError,
    UnsupportedModel,
)
from sprat.pull import pull
from sprat.store import Store


def test_pull_folder_makes_a_complete_encoder(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = write_files(tmp_path / "My Model", files)
    before = {p: p.stat() for p in source.rglob("*")}
    tape = Recorder()
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
    assert [text for text, *_ in tape.phases] == ["copy", "convert to int8"]
    after = {p: p.stat() for p in source.rglob("*")}
    assert all(before[p].st_mtime_ns == after[p].st_mtime_ns for p in before)
    assert before.keys() == after.keys()
    assert leftovers(store) == []


def test_pull_folder_again_returns_at_once(
    store: Store, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = write_files(tmp_path / "m", files)
    first = pull(str(source), store)
    tape = Recorder()
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
