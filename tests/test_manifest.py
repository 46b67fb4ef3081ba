"""Manifests: strict reading, and verification that misses nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat import manifest
from sprat.bundle_manifest import BundleManifest
from sprat.errors import CorruptFile
from sprat.manifest import (
    AdapterManifest,
    FileEntry,
    ModelManifest,
    ModelRef,
    digest_of,
)

HEX = "0123456789abcdef"
digests = st.text(HEX, min_size=64, max_size=64)


def entry(path: str, digit: str = "0", size: int = 1) -> FileEntry:
    return FileEntry(path=path, size=size, sha256=digit * 64)


def model(**changes: Any) -> ModelManifest:
    fields: dict[str, Any] = {
        "name": "minilm-l6",
        "kind": "encoder",
        "engine": "ct2",
        "architecture": "bert",
        "quantization": "int8",
        "weights": "int8",
        "source_weights": "model.safetensors",
        "pooling": "mean",
        "max_tokens": 256,
        "dimension": 384,
        "licence": "Apache-2.0",
        "source": "a wheel",
        "files": (entry("int8/model.bin", "a", 10), entry("model.safetensors", "b", 20)),
    }
    return ModelManifest(**{**fields, **changes})


def interval() -> dict[str, float]:
    return {"value": 0.9, "low": 0.8, "high": 1.0}


def tier(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "head",
        "base": {"name": "minilm-l6", "digest": "c" * 64},
        "weights": "head.safetensors",
        "calibration": {"temperature": 0.7},
        "accept_at": 0.5,
        "evaluation": {"n": 5, "metrics": {"accuracy": interval()}},
    }
    return {**fields, **changes}


def bundle(**changes: Any) -> BundleManifest:
    fields: dict[str, Any] = {
        "name": "tickets",
        "kind": "classify",
        "labels": ("bug", "praise"),
        "tiers": (tier(),),
        "train_rows": 10,
        "created": "2025-01-01T00:00:00Z",
        "made_by": "sprat 0.1.0",
        "files": (entry("head.safetensors", "d", 3),),
    }
    return BundleManifest(**{**fields, **changes})


def moderator(*thresholds: dict[str, Any], **changes: Any) -> BundleManifest:
    section = {"window": 300, "overlap": 75, "ngram_buckets": 4096, "thresholds": thresholds}
    return bundle(
        kind="moderate", labels=("spam",), tiers=(tier(moderation={**section, **changes}),)
    )


def adapter(**changes: Any) -> AdapterManifest:
    fields: dict[str, Any] = {
        "name": "polite",
        "kind": "lora",
        "base": {"name": "smollm2-135m", "digest": "c" * 64},
        "weights": "adapter.gguf",
        "rank": 8,
        "alpha": 16.0,
        "licence": "MIT",
        "source": "a file",
        "files": (entry("adapter.gguf", "d", 3),),
    }
    return AdapterManifest(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "model.bin").write_bytes(b"weights" * 1000)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    return tmp_path


# -- reading and writing ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [model(), bundle(), moderator({"flag_at": 0.4, "block_at": None}), adapter()],
    ids=["model", "bundle", "moderator", "adapter"],
)
def test_manifest_round_trips(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "document.json"
    manifest.write(path, document)
    assert manifest.read(path, type(document)) == document
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "document: Invalid JSON"),
        (b"{", "document: Invalid JSON"),
        (b"\xff\xfe", "document: Invalid JSON"),
        (b"[]", "document: Input should be an object"),
        (b"null", "document: Input should be an object"),
    ],
)
def test_manifest_read_names_what_is_no_document(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(CorruptFile) as caught:
        manifest.read(path, ModelManifest)
    assert caught.value.message.startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"format": 2}, "format"),
        ({"name": "../escape"}, "name"),
        ({"name": "UPPER"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"kind": "image"}, "kind"),
        ({"engine": "onnx"}, "engine"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"dimension": -1}, "dimension"),
        ({"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]}, "files.0.size"),
        ({"files": [{"path": "a", "size": 1, "sha256": "0" * 63}]}, "files.0.sha256"),
        ({"files": [{"path": "a", "size": 1, "sha256": "A" * 64}]}, "files.0.sha256"),
    ],
)
def test_manifest_read_names_the_wrong_field(
    tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(model().model_dump_json()), **change}))
    with pytest.raises(CorruptFile, match=f"model.json: {where}: "):
        manifest.read(path, ModelManifest)


@pytest.mark.parametrize("field", ["name", "engine", "weights", "files"])
def test_manifest_read_names_the_missing_field(tmp_path: Path, field: str) -> None:
    document = json.loads(model().model_dump_json())
    del document[field]
    path = tmp_path / "model.json"
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=f"{field}: Field required"):
        manifest.read(path, ModelManifest)


def test_manifest_read_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="missing"):
        manifest.read(tmp_path / "model.json", ModelManifest)
    with pytest.raises(CorruptFile, match="cannot be read: Is a directory"):
        manifest.read(tmp_path, ModelManifest)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("one",)},
        {"labels": ("same", "same")},
        {"labels": ("", "other")},
        {"train_rows": 0},
        {"tiers": ()},
        {"tiers": (tier(), tier(weights="other.safetensors"))},
        {"tiers": (tier(), tier(name="static"))},
        {"tiers": (tier(calibration={"temperature": 0.0}),)},
        {"tiers": (tier(calibration={"temperature": float("inf")}),)},
        {"tiers": (tier(calibration={"temperature": float("nan")}),)},
        {"tiers": (tier(accept_at=1.5),)},
        {"tiers": (tier(accept_at=float("nan")),)},
        {"tiers": (tier(base={"name": "m", "digest": "short"}),)},
        {"tiers": (tier(name="large"),)},
        {"kind": "route"},
        {"route": {"targets": {"bug": "a", "praise": "b"}}},
        {"kind": "route", "route": {"targets": {"bug": "a"}}},
        {"kind": "route", "route": {"targets": {"bug": "a", "praise": ""}}},
        {"kind": "route", "route": {"targets": {"bug": "a", "praise": "b", "more": "c"}}},
    ],
    ids=str,
)
def test_manifest_bundle_refuses_what_cannot_be_served(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        bundle(**change)


@pytest.mark.parametrize(
    ("thresholds", "change", "message"),
    [
        ([], {}, "0 thresholds for 1 labels"),
        ([{"flag_at": 0.5}] * 2, {}, "2 thresholds for 1 labels"),
        ([{"flag_at": 0.5, "block_at": 0.4}], {}, "block_at 0.4 is below flag_at 0.5"),
        ([{"flag_at": 0.0}], {}, "greater than 0"),
        ([{"flag_at": float("nan")}], {}, "less than or equal to 1"),
        ([{"flag_at": 0.5}], {"overlap": 300}, "overlap 300 is not below window 300"),
        ([{"flag_at": 0.5}], {"window": 0}, "greater than or equal to 1"),
        ([{"flag_at": 0.5}], {"ngram_buckets": 100}, "no power of two"),
        ([{"flag_at": 0.5}], {"ngram_buckets": 1}, "no power of two"),
    ],
)
def test_manifest_moderator_refuses_what_cannot_be_served(
    thresholds: list[dict[str, float]], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        moderator(*thresholds, **change)


def test_manifest_has_a_section_moderation_where_it_moderates() -> None:
    made = moderator({"flag_at": 0.5})
    with pytest.raises(ValueError, match="section moderation"):
        bundle(tiers=made.tiers)
    with pytest.raises(ValueError, match="section moderation"):
        bundle(kind="moderate")
    assert made.version != moderator({"flag_at": 0.6}).version


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": None},
        {"dimension": 0},
        {"engine": "llama"},
        {"kind": "generative"},
        {"kind": "generative", "engine": "static", "pooling": None, "dimension": 0},
        {"engine": "static", "dimension": 0},
    ],
    ids=str,
)
def test_manifest_model_refuses_fields_that_contradict_each_other(change: dict[str, Any]) -> None:
    """What `model.load` relies on: an encoder has pooling and dimension; llama generates."""
    with pytest.raises(ValueError, match="validation error"):
        model(**change)


def test_manifest_model_takes_a_static_encoder() -> None:
    made = model(engine="static", weights="model.safetensors", source_weights=None)
    assert (made.kind, made.engine) == ("encoder", "static")


def test_manifest_model_takes_a_generative_one() -> None:
    made = model(kind="generative", engine="llama", pooling=None, dimension=0)
    assert made.kind == "generative"


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../../b", "../b", "a\\b", "a/.."])
def test_manifest_entry_refuses_paths_that_leave_the_folder(path: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        entry(path)


@pytest.mark.parametrize("path", ["a", "a/b.bin", "..a", "a..b/c", ".hidden", "ü/ß"])
def test_manifest_entry_takes_paths_inside(path: str) -> None:
    assert entry(path).path == path


# -- digests ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text("abc/", min_size=1).map("f".__add__), digests), unique=True))
def test_manifest_digest_ignores_order(files: list[tuple[str, str]]) -> None:
    entries = [FileEntry(path=p, size=1, sha256=d) for p, d in files]
    assert digest_of(entries) == digest_of(reversed(entries))


def test_manifest_digest_changes_with_every_path_and_content() -> None:
    seen = {
        digest_of([]),
        digest_of([entry("a")]),
        digest_of([entry("b")]),
        digest_of([entry("a", "1")]),
        digest_of([entry("a"), entry("b")]),
        digest_of([entry("a")], extra="x"),
    }
    assert len(seen) == 6


def test_manifest_version_ignores_the_source_weights() -> None:
    """They may be dropped once quantized: nothing reads them."""
    with_source, without = model(), model(files=(entry("int8/model.bin", "a", 10),))
    assert with_source.digest == without.digest
    assert with_source.version == with_source.digest[:12]
    assert with_source.size_bytes == 30


def test_manifest_bundle_version_changes_with_all_that_answers_depend_on() -> None:
    versions = {
        bundle().version,
        bundle(labels=("praise", "bug")).version,
        bundle(tiers=(tier(calibration={"temperature": 0.8}),)).version,
        bundle(tiers=(tier(accept_at=0.25),)).version,
        bundle(tiers=(tier(calibration=None, accept_at=0.0),)).version,
        bundle(tiers=(tier(base={"name": "minilm-l6", "digest": "f" * 64}),)).version,
        bundle(tiers=(tier(), tier(name="finetune", weights="f.safetensors"))).version,
        bundle(files=(entry("head.safetensors", "e", 3),)).version,
        *(
            bundle(
                kind="route",
                route={"targets": {"bug": "a", "praise": target}, "default_target": default},
            ).version
            for target, default in (("b", ""), ("b", "c"), ("c", "b"))
        ),
    }
    assert len(versions) == 11


def test_manifest_bundle_version_stays_where_only_the_report_differs() -> None:
    head = entry("head.safetensors", "d", 3)
    assert bundle(files=(head, entry("report.json", "e", 3))).version == bundle().version


def test_manifest_adapter_version_changes_with_its_file_and_its_base() -> None:
    versions = {
        adapter().version,
        adapter(base=ModelRef(name="smollm2-135m", digest="f" * 64)).version,
        adapter(files=(entry("adapter.gguf", "e", 3),)).version,
    }
    assert len(versions) == 3
    assert adapter(licence="ISC").version in versions
    assert adapter().size_bytes == 3


# -- files -----------------------------------------------------------------------------------


def test_manifest_list_files_is_sorted_and_verifies(folder: Path) -> None:
    entries = manifest.list_files(folder, exclude=("model.json",))
    assert [e.path for e in entries] == ["int8/model.bin", "tokenizer.json"]
    assert [e.size for e in entries] == [7000, 2]
    manifest.verify(folder, entries)


def test_manifest_list_files_excludes(folder: Path) -> None:
    assert [e.path for e in manifest.list_files(folder, exclude=("tokenizer.json",))] == [
        "int8/model.bin"
    ]


def test_manifest_sha256_reads_over_block_edges(tmp_path: Path) -> None:
    import hashlib

    for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        data = os.urandom(size)
        (tmp_path / "f").write_bytes(data)
        assert manifest.sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_manifest_verify_names_the_missing_file(folder: Path) -> None:
    entries = manifest.list_files(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CorruptFile, match=r"tokenizer\.json: missing"):
        manifest.verify(folder, entries)


def test_manifest_verify_names_the_cut_file(folder: Path) -> None:
    entries = manifest.list_files(folder)
    os.truncate(folder / "int8" / "model.bin", 3500)
    with pytest.raises(CorruptFile, match="expected 7000 bytes, found 3500") as caught:
        manifest.verify(folder, entries)
    assert caught.value.path == str(folder / "int8" / "model.bin")


def test_manifest_verify_finds_one_flipped_bit(folder: Path) -> None:
    entries = manifest.list_files(folder)
    path = folder / "int8" / "model.bin"
    data = bytearray(path.read_bytes())
    data[6999] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"expected sha256 \w{12}\.\.\., found \w{12}\.\.\."):
        manifest.verify(folder, entries)


def test_manifest_verify_refuses_a_folder_in_the_place_of_a_file(folder: Path) -> None:
    entries = manifest.list_files(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()
    with pytest.raises(CorruptFile, match=r"tokenizer\.json: missing"):
        manifest.verify(folder, entries)
