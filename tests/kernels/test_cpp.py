"""Builds each C++ test under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it.

Programs are built and run ahead of the tests, one on each core; a test waits for its own one only.
Fuzzers run for ``SPRAT_FUZZ_SECONDS`` each. An input that fails becomes a file in the folder of
their seeds.
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
Done = subprocess.CompletedProcess[str]
Programs = dict[Path, "Future[Done]"]


def test_cpp_every_header_has_a_test() -> None:
    tested = {source.stem.removeprefix("test_") for source in SOURCES}
    assert tested == {header.stem for header in HEADERS.glob("sprat/*.hpp")}


def seeds(source: Path) -> Path:
    return HERE / "cpp" / "seeds" / source.stem.removeprefix("fuzz_")


def build_and_run(source: Path, folder: Path) -> Done:
    def run(*command: str | Path) -> Done:
        return subprocess.run(command, capture_output=True, text=True, check=False)

    program = folder / source.stem
    built = run("g++", *FLAGS, f"-I{HEADERS}", source, "-o", program)
    assert built.returncode == 0, built.stderr
    return run(program, *((seeds(source), str(FUZZ_SECONDS)) if source in FUZZERS else ()))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    folder = tmp_path_factory.mktemp("cpp")
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        yield {each: workers.submit(build_and_run, each, folder) for each in SOURCES + FUZZERS}
        workers.shutdown(cancel_futures=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_cpp_passes_under_sanitizers(source: Path, programs: Programs) -> None:
    done = programs[source].result()
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300 + 2 * FUZZ_SECONDS * len(FUZZERS))
@pytest.mark.parametrize("source", FUZZERS, ids=lambda source: source.stem)
def test_cpp_fuzzer_finds_nothing(source: Path, programs: Programs) -> None:
    done = programs[source].result()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > len([*seeds(source).iterdir()])
