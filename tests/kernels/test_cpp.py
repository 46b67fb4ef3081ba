"""Builds each C++ test under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it.

Compilers work ahead of the tests, one on each core; a test waits for its own program only. Fuzzers
run for ``SPRAT_FUZZ_SECONDS`` each. An input that fails becomes a file in the folder of their
seeds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    "-g1",  # lines, for reports; no variables, which take as long again to compile
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
Programs = dict[Path, "Future[Path]"]


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


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    folder = tmp_path_factory.mktemp("cpp")
    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        yield {source: compilers.submit(build, source, folder) for source in SOURCES + FUZZERS}
        compilers.shutdown(cancel_futures=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_cpp_passes_under_sanitizers(source: Path, programs: Programs) -> None:
    program = programs[source].result()
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300 + 2 * FUZZ_SECONDS)
@pytest.mark.parametrize("source", FUZZERS, ids=lambda source: source.stem)
def test_cpp_fuzzer_finds_nothing(source: Path, programs: Programs) -> None:
    seeds = HERE / "cpp" / "seeds" / source.stem.removeprefix("fuzz_")
    done = subprocess.run(
        [programs[source].result(), seeds, str(FUZZ_SECONDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > len([*seeds.iterdir()])
