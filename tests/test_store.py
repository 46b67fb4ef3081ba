from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprat.bundle_manifest import BUNDLE_MANIFEST, BundleManifest, ReportSummary, TierManifest
from sprat.errors import CorruptFile, InvalidInput, NotFound, StoreError
from sprat.manifest import (
    MODEL_MANIFEST,
    Interval,
    ModelManifest,
    ModelRef,
    list_files,
    write,
)
from sprat.store import DOWNLOADS_KEPT_S, Store, home

HOSTILE_NAMES = [
    "",
    "..",
    "../x",
    "a/b",
    "/etc",
    "A",
    ".hidden",
    "-x",
    "a\n",
    "x" * 65,
    "a\0b",
    "é",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def build_model(folder: Path, name: str = "m", content: bytes = b"weights") -> None:
    (folder / "ct2").mkdir()
    (folder / "ct2" / "model.bin").write_bytes(content)
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "source").mkdir()
    (folder / "source" / "model.safetensors").write_bytes(b"published")
    manifest = ModelManifest(
        name=name,
        kind="encoder",
        engine="ct2",
        architecture="bert",
        quantization="int8",
        weights="ct2",
        source_weights="source/model.safetensors",
        pooling="mean",
        max_tokens=8,
        dimension=4,
        licence="MIT",
        source="test",
        files=list_files(folder),
    )
    write(folder / MODEL_MANIFEST, manifest)


def build_bundle(folder: Path, name: str = "b") -> None:
    (folder / "head.safetensors").write_bytes(b"head")
    interval = Interval(value=0.5, low=0.4, high=0.6)
    manifest = BundleManifest(
        name=name,
        kind="classify",
        labels=("x", "y"),
        tiers=(
            TierManifest(
                name="head",
                base=ModelRef(name="m", digest="0" * 64),
                weights="head.safetensors",
                calibration=None,
                evaluation=ReportSummary(n=5, metrics={"accuracy": interval}),
            ),
        ),
        train_rows=10,
        created="2025-01-01T00:00:00Z",
        made_by="test",
        files=list_files(folder),
    )
    write(folder / BUNDLE_MANIFEST, manifest)


def unexpected(folder: Path) -> None:
    raise AssertionError("must not be built")


def leftovers(store: Store) -> list[Path]:
    return [p for name in ("tmp", "downloads") for p in (store.root / name).glob("*")]


def test_store_home_is_sprat_home_or_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPRAT_HOME", str(tmp_path))
    assert home() == tmp_path
    assert Store().root == tmp_path
    monkeypatch.setenv("SPRAT_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert home() == tmp_path / "data" / "sprat"


def test_store_reading_an_absent_store_makes_nothing(store: Store) -> None:
    assert store.models() == []
    assert store.bundles() == []
    assert store.adapters() == []
    with pytest.raises(NotFound):
        store.model("m")
    with pytest.raises(NotFound):
        store.remove("m")
    assert not store.root.exists()


def test_store_add_model_then_read_it(store: Store) -> None:
    manifest, folder = store.add_model("m", build_model)
    assert folder == store.root / "models" / "m"
    assert store.model("m", check=True) == (manifest, folder)
    assert [m.name for m, _ in store.models()] == ["m"]
    assert leftovers(store) == []


def test_store_add_model_keeps_what_is_there_unless_replaced(store: Store) -> None:
    first, _ = store.add_model("m", build_model)
    assert store.add_model("m", unexpected)[0] == first
    second, folder = store.add_model(
        "m", lambda out: build_model(out, content=b"new"), replace=True
    )
    assert second.version != first.version
    assert (folder / "ct2" / "model.bin").read_bytes() == b"new"
    assert leftovers(store) == []


def test_store_add_bundle_refuses_to_overwrite_unless_told(store: Store) -> None:
    manifest, _ = store.add_bundle("b", build_bundle)
    with pytest.raises(StoreError, match="b is there already"):
        store.add_bundle("b", unexpected)
    assert store.add_bundle("b", build_bundle, replace=True)[0] == manifest
    assert [b.name for b, _ in store.bundles()] == ["b"]


def test_store_names_belong_to_one_kind(store: Store) -> None:
    store.add_model("m", build_model)
    with pytest.raises(StoreError, match="name of a model"):
        store.add_bundle("m", unexpected)
    store.add_bundle("b", build_bundle)
    with pytest.raises(StoreError, match="name of a bundle"):
        store.add_model("b", unexpected, replace=True)


def test_store_bundle_by_name_or_path(store: Store, tmp_path: Path) -> None:
    manifest, folder = store.add_bundle("b", build_bundle)
    assert store.bundle("b", check=True) == (manifest, folder)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    assert store.bundle(elsewhere, check=True) == (manifest, elsewhere)
    assert store.bundle(str(elsewhere))[0] == manifest
    with pytest.raises(NotFound, match="nowhere"):
        store.bundle("./nowhere")
    with pytest.raises(NotFound, match="known: b"):
        store.bundle("elsewhere")


def test_store_unknown_name_lists_the_known(store: Store) -> None:
    store.add_model("m", build_model)
    store.add_bundle("b", build_bundle)
    with pytest.raises(NotFound, match="no model named 'x'; known: m"):
        store.model("x")
    with pytest.raises(NotFound, match="known: b, m"):
        store.remove("x")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_store_refuses_what_is_no_name(store: Store, name: str) -> None:
    for call in (
        lambda: store.model(name),
        lambda: store.add_model(name, unexpected),
        lambda: store.add_bundle(name, unexpected),
        lambda: store.adapter(name),
        lambda: store.add_adapter(name, unexpected),
        lambda: store.remove(name),
        lambda: store.remove_adapter(name),
    ):
        with pytest.raises(InvalidInput, match="cannot be a name"):
            call()
    assert not store.root.exists()


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "a..b", "a.models", "x" * 64])
def test_store_takes_every_proper_name(store: Store, name: str) -> None:
    store.add_model(name, lambda folder: build_model(folder, name))
    store.add_model(name, lambda folder: build_model(folder, name), replace=True)
    assert store.model(name)[0].name == name
    store.remove(name)
    assert store.models() == []


def test_store_ignores_what_is_not_its_own(store: Store) -> None:
    store.add_model("m", build_model)
    (store.root / "models" / ".DS_Store").write_bytes(b"")
    (store.root / "models" / "Not A Name").mkdir()
    assert [m.name for m, _ in store.models()] == ["m"]


def test_store_remove_takes_all_of_it(store: Store) -> None:
    store.add_model("m", build_model)
    store.add_bundle("b", build_bundle)
    store.remove("m")
    store.remove("b")
    assert store.models() == []
    assert store.bundles() == []
    assert leftovers(store) == []
    assert list((store.root / "models").iterdir()) == []


@pytest.mark.parametrize("change", ["flip", "cut", "delete"])
@pytest.mark.parametrize("file", ["ct2/model.bin", "tokenizer.json"])
def test_store_check_names_a_corrupt_file(store: Store, file: str, change: str) -> None:
    _, folder = store.add_model("m", build_model)
    path = folder / file
    if change == "delete":
        path.unlink()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(b"X" + path.read_bytes()[1:])
    store.model("m")
    with pytest.raises(CorruptFile) as caught:
        store.model("m", check=True)
    assert caught.value.path == str(path)


def test_store_check_leaves_source_weights_alone(store: Store) -> None:
    _, folder = store.add_model("m", build_model)
    (folder / "source" / "model.safetensors").unlink()
    store.model("m", check=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"])
def test_store_names_a_corrupt_manifest(store: Store, content: bytes) -> None:
    _, folder = store.add_model("m", build_model)
    (folder / MODEL_MANIFEST).write_bytes(content)
    with pytest.raises(CorruptFile, match=r"model\.json"):
        store.model("m")
    store.remove("m")


def test_store_notices_a_renamed_folder(store: Store) -> None:
    _, folder = store.add_model("m", build_model)
    folder.rename(folder.with_name("other"))
    with pytest.raises(CorruptFile, match="expected 'other', found 'm'"):
        store.model("other")


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_store_failed_build_leaves_nothing(store: Store, error: BaseException) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 1000)
        raise error

    with pytest.raises(type(error)):
        store.add_model("m", build)
    assert store.models() == []
    assert leftovers(store) == []
    store.add_model("m", build_model)


def test_store_failed_replacement_keeps_the_old_one(store: Store) -> None:
    first, _ = store.add_model("m", build_model)
    with pytest.raises(CorruptFile):
        store.add_model("m", lambda folder: build_model(folder, "wrong name"[:5]), replace=True)
    assert store.model("m", check=True)[0] == first


def test_store_disk_full_while_building(store: Store) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_bytes(b"x" * 1000)
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(StoreError, match="no space left"):
        store.add_model("m", build)
    assert store.models() == []
    assert leftovers(store) == []


def test_store_require_space_says_what_is_needed_and_free(store: Store) -> None:
    store.require_space(1)
    with pytest.raises(StoreError, match=r"1000000000000\.0 MB needed, .* MB free") as caught:
        store.require_space(10**18)
    assert caught.value.metadata["needed_bytes"] == str(10**18)
    assert int(caught.value.metadata["free_bytes"]) > 0


@pytest.fixture
def read_only(store: Store) -> Iterator[Store]:
    """A store with a model and a bundle that this process cannot write to."""
    store.add_model("m", build_model)
    store.add_bundle("b", build_bundle)
    if os.geteuid():
        folders = [store.root, *(p for p in store.root.rglob("*") if p.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield store
        for folder in folders:
            folder.chmod(0o755)
        return
    root = str(store.root)
    for command in (["mount", "--bind", root, root], ["mount", "-o", "remount,ro,bind", root]):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            subprocess.run(["umount", root], capture_output=True, check=False)
            pytest.skip("root may write anywhere, and mounting is not permitted here")
    yield store
    subprocess.run(["umount", root], check=True)


def test_store_read_only_can_be_read_but_not_changed(read_only: Store) -> None:
    read_only.model("m", check=True)
    read_only.bundle("b", check=True)
    for call in (
        lambda: read_only.add_model("n", unexpected),
        lambda: read_only.add_model("m", unexpected, replace=True),
        lambda: read_only.remove("m"),
    ):
        with pytest.raises(StoreError, match=r"Read-only|Permission denied"):
            call()
    assert [m.name for m, _ in read_only.models()] == ["m"]


def test_store_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        Store(tmp_path / "file").add_model("m", unexpected)


def test_store_second_adder_waits_and_finds_it_there(store: Store) -> None:
    building, go, waited = threading.Event(), threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        building.set()
        assert go.wait(10)
        build_model(folder)

    first = threading.Thread(target=store.add_model, args=("m", slow))
    first.start()
    assert building.wait(10)

    def on_wait() -> None:
        waited.set()
        go.set()

    manifest, _ = store.add_model("m", unexpected, on_wait=on_wait)
    first.join()
    assert waited.is_set()
    assert manifest == store.model("m", check=True)[0]


def test_store_other_names_do_not_wait(store: Store) -> None:
    def outer(folder: Path) -> None:
        store.add_bundle("b", build_bundle)
        build_model(folder)

    store.add_model("m", outer)
    assert store.bundle("b")[0].name == "b"


KILLED = """
import os, signal, sys
from pathlib import Path
from sprat.store import Store

def build(folder):
    (folder / "half").write_bytes(b"x" * 100_000)
    print("building", flush=True)
    signal.pause()

Store(Path(sys.argv[1])).add_model("m", build)
"""


def test_store_killed_adder_is_swept_by_the_next_change(store: Store) -> None:
    command = [sys.executable, "-c", KILLED, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        # Alive, it is left alone by a change of another name.
        store.add_bundle("b", build_bundle)
        assert len(leftovers(store)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert store.models() == []
    assert len(leftovers(store)) == 1
    store.add_bundle("b", build_bundle, replace=True)
    assert leftovers(store) == []
    store.add_model("m", build_model)


@pytest.mark.parametrize("by", ["the same name", "another name"])
def test_store_replacement_killed_between_its_two_renames_is_undone(store: Store, by: str) -> None:
    manifest, folder = store.add_model("m", build_model)
    folder.rename(store.root / "tmp" / "m.models")
    if by == "the same name":
        assert store.add_model("m", unexpected)[0] == manifest
    else:
        store.add_bundle("b", build_bundle)
    assert store.model("m", check=True) == (manifest, folder)


def test_store_failed_second_rename_puts_the_old_one_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, folder = store.add_model("m", build_model)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == folder and self.suffix != ".models":
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        store.add_model("m", build_model, replace=True)
    assert store.model("m", check=True) == (manifest, folder)
    assert leftovers(store) == []


def test_store_partial_downloads_last_until_added_or_a_week(store: Store) -> None:
    def interrupted(folder: Path) -> None:
        (store.partial_downloads("m") / "x.part").write_bytes(b"half")
        raise ConnectionResetError("gone")

    with pytest.raises(StoreError):
        store.add_model("m", interrupted)
    assert (store.root / "downloads" / "m" / "x.part").exists()
    store.add_model("m", build_model)
    assert not (store.root / "downloads" / "m").exists()

    stale = store.partial_downloads("stale")
    past = time.time() - DOWNLOADS_KEPT_S - 60
    os.utime(stale, (past, past))
    recent = store.partial_downloads("recent")
    store.remove("m")
    assert not stale.exists()
    assert recent.exists()


def test_store_files_are_as_readable_as_the_umask_says(store: Store) -> None:
    before = os.umask(0o022)
    try:
        _, folder = store.add_model("m", build_model)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / MODEL_MANIFEST).stat().st_mode & 0o777 == 0o644
