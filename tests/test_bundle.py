"""Bundles: read back as written, refused when anything is off, written as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from languages import language, with_language
from remotes import remote_tier

from sprat import manifest as manifests
from sprat.bundle import Bundle, write_bundle
from sprat.bundle_manifest import (
    BUNDLE_MANIFEST,
    REPORT,
    BundleManifest,
    Calibration,
    ReportSummary,
    TierManifest,
)
from sprat.errors import CorruptFile, SpratError, StaleBundle, StoreError
from sprat.head import Head
from sprat.manifest import FileEntry, Interval, ModelManifest, ModelRef

HEAD = "head.safetensors"
LABELS = ("bug", "praise", "question")
DIMENSION = 4
ROUGHLY = Interval(value=0.9, low=0.8, high=1.0)


def model(weights: str = "a", **changes: Any) -> ModelManifest:
    fields: dict[str, Any] = {
        "name": "minilm",
        "kind": "encoder",
        "engine": "ct2",
        "architecture": "bert",
        "quantization": "int8",
        "weights": "int8",
        "pooling": "mean",
        "max_tokens": 256,
        "dimension": DIMENSION,
        "licence": "Apache-2.0",
        "source": "here",
        "files": (FileEntry(path="int8/model.bin", size=1, sha256=weights * 64),),
    }
    return ModelManifest(**{**fields, **changes})


BASES = {"minilm": model()}


def bundle(labels: tuple[str, ...] = LABELS) -> Bundle:
    rng = np.random.default_rng(0)
    base = model()
    return Bundle(
        BundleManifest(
            name="tickets",
            kind="classify",
            labels=labels,
            tiers=(
                TierManifest(
                    name="head",
                    base=ModelRef(name=base.name, digest=base.digest),
                    weights=HEAD,
                    calibration=Calibration(temperature=0.7),
                    evaluation=ReportSummary(n=5, metrics={"accuracy": ROUGHLY}),
                ),
            ),
            train_rows=10,
            created="2025-01-01T00:00:00+00:00",
            made_by="sprat 0.1.0",
            files=(),
        ),
        (
            Head(
                rng.standard_normal((len(labels), DIMENSION), np.float32),
                rng.standard_normal(len(labels), np.float32),
                0.7,
            ),
        ),
    )


def build(folder: Path) -> BundleManifest:
    return bundle().save(folder, report="{}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tickets"
    folder.mkdir()
    build(folder)
    return folder


def rewrite_head(folder: Path, tensors: dict[str, Any] | bytes) -> None:
    """Another head with a manifest that vouches for it: what is wrong is the head itself."""
    content = tensors if isinstance(tensors, bytes) else safetensors.numpy.save(tensors)
    (folder / HEAD).write_bytes(content)
    manifest = manifests.read(folder / BUNDLE_MANIFEST, BundleManifest)
    files = manifests.list_files(folder, exclude=[BUNDLE_MANIFEST])
    manifests.write(folder / BUNDLE_MANIFEST, manifest.model_copy(update={"files": files}))


# -- reading ---------------------------------------------------------------------------------


def test_bundle_reads_what_was_saved(tmp_path: Path) -> None:
    saved = bundle()
    manifest = saved.save(tmp_path, report='{"n": 5}\n')
    loaded = Bundle.load(tmp_path, bases=BASES)
    assert loaded.manifest == manifest
    assert loaded.manifest.model_copy(update={"files": ()}) == saved.manifest
    ((head, was),) = zip(loaded.heads, saved.heads, strict=True)
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.temperature == was.temperature == 0.7
    np.testing.assert_array_equal(head.weight, was.weight)
    np.testing.assert_array_equal(head.bias, was.bias)
    assert {f.path for f in manifest.files} == {HEAD, REPORT}
    assert json.loads((tmp_path / REPORT).read_text()) == {"n": 5}
    assert Bundle.load(tmp_path).manifest == manifest


def test_bundle_logits_are_one_row_a_text() -> None:
    (head,) = bundle().heads
    vectors = np.eye(DIMENSION, dtype=np.float32)[:2]
    logits = head.logits(vectors)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, head.weight.T[:2] + head.bias)


def test_bundle_ranks_the_labels_by_their_calibrated_probability() -> None:
    (head,) = bundle().heads
    vectors = np.eye(DIMENSION, dtype=np.float32)[:2]
    powers = np.exp(head.logits(vectors).astype(np.float64) / head.temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    indices, probabilities = head.rank(vectors, top_k=99)
    assert indices.shape == (2, len(LABELS))
    np.testing.assert_array_equal(indices, np.argsort(-expected, axis=1))
    np.testing.assert_allclose(
        probabilities, np.take_along_axis(expected, indices, axis=1), rtol=1e-5
    )
    best, most = head.rank(vectors, top_k=1)
    np.testing.assert_array_equal(best, indices[:, :1])
    np.testing.assert_array_equal(most, probabilities[:, :1])


def test_bundle_same_content_has_the_same_version(tmp_path: Path, folder: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    assert build(again).version == Bundle.load(folder).manifest.version


def test_bundle_of_another_model_is_stale(folder: Path) -> None:
    other = model(weights="b")
    with pytest.raises(StaleBundle) as caught:
        Bundle.load(folder, bases={"minilm": other})
    message = caught.value.message
    assert f"tier head was made with minilm version {model().version}" in message
    assert f"minilm here is version {other.version}" in message
    assert "train the bundle again" in message


def test_bundle_with_a_language_tier_reads_what_was_saved(tmp_path: Path) -> None:
    versions = set()
    digests = ("a" * 64, "b" * 64)
    for number, digest in enumerate(digests):
        folder = tmp_path / str(number)
        folder.mkdir()
        asks = {"instructions": "Which?", "adapter": {"name": "polite", "digest": digest}}
        made = with_language(bundle(), model(), asks=asks)
        saved = made.save(folder, report="{}\n")
        read = Bundle.load(folder)
        assert read.manifest == saved
        assert (len(read.heads), len(saved.tiers)) == (1, 2)
        assert [ref.digest for ref in saved.adapters] == [digest]
        versions.add(saved.version)
    assert len(versions | {bundle().manifest.version}) == 3


def test_bundle_takes_the_same_model_under_another_name(folder: Path) -> None:
    Bundle.load(folder, bases={"minilm": model(name="minilm-mirror")})


def test_bundle_head_must_fit_the_model(folder: Path) -> None:
    with pytest.raises(CorruptFile, match="weight: 4 columns, but vectors of minilm have 8"):
        Bundle.load(folder, bases={"minilm": model(dimension=8)})


@pytest.mark.parametrize("name", [HEAD, REPORT])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected .* bytes, found"),
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "expected sha256"),
    ],
)
def test_bundle_file_that_is_not_as_listed_is_corrupt(
    folder: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder / name)
    with pytest.raises(CorruptFile, match=message) as caught:
        Bundle.load(folder)
    assert caught.value.path == str(folder / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("labels"), "labels"),
        (lambda document: document.update(labels=["a"]), "labels"),
        (lambda document: document.update(labels=["a", "b", "a"]), "labels"),
        (
            lambda document: document["tiers"][0].update(calibration={"temperature": 0}),
            "temperature",
        ),
        (
            lambda document: document["tiers"][0].update(calibration={"temperature": 1e-40}),
            "temperature",
        ),
        (lambda document: document.update(extra=1), "extra"),
        (lambda document: document.update(format=1), "format"),
        (lambda document: document.update(files=[]), f"files: {HEAD} is not listed"),
        (lambda document: document["files"][0].update(path="../x"), "path"),
        (
            lambda document: document["tiers"][0].update(name="language"),
            "weights if its name is one of static, head, finetune",
        ),
        (lambda document: document["tiers"][0].update(weights=""), "either weights or the section"),
        (
            lambda document: document["tiers"].append(language(model(), ("a", "b"))),
            "tier language: expected the labels of the bundle",
        ),
        (
            lambda document: document["tiers"].append(
                language(model(), ("a", "b", "c"), weights="x.safetensors")
            ),
            "either weights or the section",
        ),
        (
            lambda document: document["tiers"].insert(0, language(model(), ("a", "b", "c"))),
            "those with weights come first",
        ),
        (
            lambda document: document["tiers"].extend([language(model(), ("a", "b", "c"))] * 2),
            "no two may have the same name",
        ),
        (
            lambda document: (
                document.update(kind="extract", extract={}),
                document["tiers"].append(language(model(), ("a", "b", "c"))),
            ),
            "tier language: expected what a task of kind extract asks",
        ),
        (
            lambda document: document["tiers"].append(remote_tier("abc", name="head")),
            "weights if its name is one of static, head, finetune",
        ),
        (
            lambda document: document["tiers"].append(remote_tier("ab")),
            "tier remote: expected the labels of the bundle",
        ),
        (
            lambda document: document["tiers"].append(
                {**remote_tier("abc"), "base": document["tiers"][0]["base"]}
            ),
            "a base if it is not remote",
        ),
        (
            lambda document: document.update(tiers=[remote_tier("abc")]),
            "the first may not be remote",
        ),
        (
            lambda document: document["tiers"].append(remote_tier("abc", asks={"votes": 0})),
            "votes",
        ),
    ],
)
def test_bundle_manifest_that_makes_no_sense_is_corrupt(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = folder / BUNDLE_MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=message):
        Bundle.load(folder)


def test_bundle_without_manifest_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="missing"):
        Bundle.load(tmp_path)
    (tmp_path / BUNDLE_MANIFEST).write_text("{")
    with pytest.raises(CorruptFile, match="JSON"):
        Bundle.load(tmp_path)


WEIGHT = np.zeros((3, DIMENSION), np.float32)
BIAS = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not a safetensors file"),
        (b"\xff" * 64, "not a safetensors file"),
        (safetensors.numpy.save({"weight": WEIGHT, "bias": BIAS})[:-1], "not a safetensors file"),
        ({"weight": WEIGHT}, "expected tensors bias and weight, found weight"),
        ({"weight": WEIGHT, "bias": BIAS, "scale": BIAS}, "found bias, scale, weight"),
        (
            {"weight": WEIGHT.astype(np.float64), "bias": BIAS},
            r"expected float32\[3, D\], found F64",
        ),
        ({"weight": WEIGHT.astype(np.float16), "bias": BIAS}, r"found F16\[3, 4\]"),
        ({"weight": WEIGHT[:2], "bias": BIAS}, r"weight: expected .*, found F32\[2, 4\]"),
        ({"weight": WEIGHT[0], "bias": BIAS}, r"found F32\[4\]"),
        ({"weight": WEIGHT[:, :0], "bias": BIAS}, r"found F32\[3, 0\]"),
        ({"weight": WEIGHT, "bias": BIAS[:2]}, r"bias: expected float32\[3\], found F32\[2\]"),
        ({"weight": WEIGHT, "bias": WEIGHT}, r"bias: expected float32\[3\], found F32\[3, 4\]"),
        (
            {"weight": WEIGHT + np.float32(np.nan), "bias": BIAS},
            "weight: not all values are finite",
        ),
        ({"weight": WEIGHT, "bias": BIAS + np.float32(np.inf)}, "bias: not all values are finite"),
    ],
)
def test_bundle_head_that_makes_no_sense_is_corrupt(
    folder: Path, head: dict[str, Any] | bytes, message: str
) -> None:
    rewrite_head(folder, head)
    with pytest.raises(CorruptFile, match=message) as caught:
        Bundle.load(folder, bases=BASES)
    assert caught.value.path == str(folder / HEAD)


# -- writing to a path -----------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_bundle_is_written_beside_and_moved_in(tmp_path: Path) -> None:
    path = tmp_path / "out"
    seen: list[Path] = []

    def watched(folder: Path) -> None:
        assert names(folder) == []
        assert not path.exists()
        seen.append(folder)
        build(folder)

    assert write_bundle(path, watched) == Bundle.load(path).manifest
    assert seen[0].parent == tmp_path
    assert names(tmp_path) == ["out"]
    assert path.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_bundle_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("out.v2"), build)
    assert names(tmp_path) == ["out.v2"]


def test_bundle_is_replaced_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "out"
    first = write_bundle(path, build)

    def other(folder: Path) -> None:
        bundle(labels=("a", "b")).save(folder, report="{}\n")

    with pytest.raises(StoreError, match="is there already; replace it explicitly"):
        write_bundle(path, other)
    assert Bundle.load(path).manifest == first
    write_bundle(path, other, replace=True)
    assert Bundle.load(path).manifest.labels == ("a", "b")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "dangling link"])
def test_bundle_never_replaces_what_is_no_bundle(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("precious")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "precious").write_text("")

    def never(folder: Path) -> None:
        raise AssertionError("built for nothing")

    for replace in (False, True):
        with pytest.raises(StoreError, match="is not a bundle; choose another path"):
            write_bundle(path, never, replace=replace)
    assert names(tmp_path) == ["out"]


class _BuildError(Exception):
    pass


@pytest.mark.parametrize("error", [_BuildError(), KeyboardInterrupt()])
def test_bundle_failed_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out"
    first = write_bundle(path, build)

    def fail(folder: Path) -> None:
        build(folder)
        raise error

    with pytest.raises(type(error)):
        write_bundle(path, fail, replace=True)
    assert Bundle.load(path).manifest == first
    assert names(tmp_path) == ["out"]


def test_bundle_failed_replacement_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    first = write_bundle(path, build)
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.suffix == ".new":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(StoreError, match="Permission denied"):
        write_bundle(path, build, replace=True)
    assert Bundle.load(path).manifest == first
    assert names(tmp_path) == ["out"]


def test_bundle_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out"
    others: list[BundleManifest] = []

    def overtaken(folder: Path) -> None:
        build(folder)
        others.append(write_bundle(path, build))

    with pytest.raises(StoreError, match="is there already"):
        write_bundle(path, overtaken)
    assert Bundle.load(path).manifest == others[0]
    assert names(tmp_path) == ["out"]


def test_bundle_build_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="missing"):
        write_bundle(tmp_path / "out", lambda folder: None)
    assert names(tmp_path) == []


def test_bundle_full_disk_is_a_store_error(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / HEAD))

    with pytest.raises(StoreError, match="No space left"):
        write_bundle(tmp_path / "out", full)
    assert names(tmp_path) == []


def test_bundle_missing_parent_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent is no folder; make it first"):
        write_bundle(tmp_path / "absent" / "out", build)


def test_bundle_errors_are_of_the_data_loss_branch() -> None:
    assert issubclass(StaleBundle, CorruptFile)
    assert issubclass(CorruptFile, SpratError)
