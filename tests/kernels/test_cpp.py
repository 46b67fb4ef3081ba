"""Builds each C++ test under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it.

Fuzzers run for ``SPRAT_FUZZ_SECONDS`` each. An input that fails becomes a file in the folder of
their seeds.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parents[1] / "kernels" / "include"
SOURCES = sorted((HERE / "cpp").glob("test_*.cpp"))
FUZZERS = sorted((HERE / "cpp").glob("fuzz_*.cpp"))
FUZZ_SECONDS = float(os.environ.get("SPRAT_FUZZ_SECONDS", "3"))
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


def build(source: Path, folder: Path) -> Path:
    program = folder / source.stem
    built = subprocess.run(
        ["g++", *FLAGS, f"-I{HEADERS}", str(source), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_cpp_passes_under_sanitizers(source: Path, tmp_path: Path) -> None:
    done = subprocess.run([build(source, tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300 + 2 * FUZZ_SECONDS)
@pytest.mark.parametrize("source", FUZZERS, ids=lambda source: source.stem)
def test_cpp_fuzzer_finds_nothing(source: Path, tmp_path: Path) -> None:
    seeds = HERE / "cpp" / "seeds" / source.stem.removeprefix("fuzz_")
    done = subprocess.run(
        [build(source, tmp_path), seeds, str(FUZZ_SECONDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > len([*seeds.iterdir()])
