"""Builds each C++ test under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parents[1] / "kernels" / "include"
SOURCES = sorted((HERE / "cpp").glob("test_*.cpp"))
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g",
    "-D_GLIBCXX_ASSERTIONS",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]


def test_cpp_every_header_has_a_test() -> None:
    tested = {source.stem.removeprefix("test_") for source in SOURCES}
    assert tested == {header.stem for header in HEADERS.glob("sprat/*.hpp")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_cpp_passes_under_sanitizers(source: Path, tmp_path: Path) -> None:
    program = tmp_path / source.stem
    built = subprocess.run(
        ["g++", *FLAGS, f"-I{HEADERS}", str(source), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
