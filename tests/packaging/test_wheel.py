"""From the tree to an sdist, from that to a wheel, from that into an empty environment."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from reruns import ROOT, run

NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "*.so", "build", "dist", "results", "tests"
)

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, work / "tree", ignore=NOT_SOURCE)
    run(
        sys.executable,
        *("-m", "build", "--sdist", "--no-isolation", "--outdir"),
        work / "out",
        cwd=work / "tree",
    )
    (made,) = (work / "out").iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without optimization, which only takes longer here."""
    work = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        *("-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
        f"--config-settings=--build-option=build_ext --parallel={os.cpu_count()}",
        *("--wheel-dir", work, sdist),
        cwd=work,
        SPRAT_DEBUG="1",
    )
    (made,) = work.iterdir()
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of programs of a new environment with the wheel and its base dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return folder / "bin"


def test_sdist_has_sources_only(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "kernels/_array.cpp",
        "kernels/_array.pyi",
        "kernels/_labels.cpp",
        "kernels/_labels.pyi",
        "kernels/_logits.cpp",
        "kernels/_logits.pyi",
        "kernels/_text.pyx",
        "kernels/include/sprat/chunk.hpp",
        "kernels/include/sprat/lanes.hpp",
        "kernels/include/sprat/logits.hpp",
        "kernels/include/sprat/ngram.hpp",
        "kernels/_wordpiece.pyx",
        "kernels/include/sprat/pool.hpp",
        "kernels/include/sprat/sampling.hpp",
        "kernels/include/sprat/stop.hpp",
        "kernels/include/sprat/utf8.hpp",
        "kernels/include/sprat/wordpiece.hpp",
        "proto/v1/sprat.proto",
        "pyproject.toml",
        "runtime/py.typed",
        "setup.py",
    } <= names
    assert [name for name in names if name.endswith((".so", ".pyc")) or "build/" in name] == []


def test_wheel_has_what_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = archive.read(metadata).decode()
    assert {
        "sprat/kernels/_array.pyi",
        "sprat/kernels/_labels.pyi",
        "sprat/kernels/_logits.pyi",
        "sprat/kernels/include/sprat/pool.hpp",
        "sprat/proto/v1/sprat.proto",
        "sprat/proto/v1/sprat_pb2.pyi",
        "sprat/py.typed",
        "sprat/train/page.css",
        "sprat/train/page.js",
    } <= names
    assert [name for name in names if name.startswith("sprat/demo/") and name.endswith(".jsonl")]
    assert {name.split("/")[0] for name in names} == {"sprat", metadata.split("/")[0]}
    assert "License-Expression: Apache-2.0" in about


def test_wheel_runs_from_anywhere(environment: Path, tmp_path: Path) -> None:
    code = """
import json
import sprat
from sprat.kernels import Utf8Stream, implementation
print(json.dumps([sprat.__file__, implementation, Utf8Stream().feed(b"\\xc3\\xa9")]))
"""
    file, implementation, text = json.loads(run(environment / "python", "-c", code, cwd=tmp_path))
    assert Path(file).is_relative_to(environment.parent)
    assert implementation == os.environ.get("SPRAT_KERNELS", "native")
    assert text == "\u00e9"


def test_wheel_brings_the_command_line(environment: Path, tmp_path: Path) -> None:
    shown = run(environment / "sprat", "--help", cwd=tmp_path)
    assert "serve" in shown


def test_wheel_brings_nothing_heavy(environment: Path, tmp_path: Path) -> None:
    heavy = ["llama_cpp", "matplotlib", "scipy", "sklearn", "torch", "transformers"]
    code = f"""
import json
from importlib.util import find_spec
print(json.dumps([name for name in {heavy} if find_spec(name)]))
"""
    assert json.loads(run(environment / "python", "-c", code, cwd=tmp_path)) == []


def test_wheel_dependencies_agree(environment: Path, tmp_path: Path) -> None:
    run(environment / "python", "-m", "pip", "check", cwd=tmp_path)
