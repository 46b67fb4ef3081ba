from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sprat.benchmarks import peers_build
from sprat.errors import SetupError
from sprat.store import Store


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with files of the programs' names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in peers_build.PROGRAMS:
        (folder / name).touch()
    return folder


def test_peers_build_finds_programs_where_it_is_told(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(peers_build.VARIABLE, str(programs))
    assert peers_build.find(Store(tmp_path / "store")) == programs


def test_peers_build_finds_programs_below_the_store(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(peers_build.VARIABLE, raising=False)
    store = Store(tmp_path / "store")
    folder = peers_build.default_folder(store)
    folder.parent.mkdir(parents=True)
    programs.rename(folder)
    assert peers_build.find(store) == folder


def test_peers_build_says_how_to_make_a_missing_program(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "llama-bench").unlink()
    monkeypatch.setenv(peers_build.VARIABLE, str(programs))
    with pytest.raises(
        SetupError, match=r"no llama-bench; `python -m sprat\.benchmarks\.peers_build` builds"
    ):
        peers_build.find(Store(tmp_path))


def test_peers_build_leaves_what_is_there(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    peers_build.build(programs)


def test_peers_build_names_a_missing_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["peers_build", str(tmp_path / "bin")])
    assert peers_build.main() == 1
    assert capsys.readouterr().err == "error: no cmake here; try `pip install cmake ninja`\n"
    assert not (tmp_path / "bin").exists()
