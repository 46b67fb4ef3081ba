"""llama-server and llama-bench, built for this machine: ``python -m sprat.benchmarks.peers_build``.

They come from the source package of the installed llama-cpp-python, which carries llama.cpp: the
peer is of the same commit as the library that sprat loads, and as natively built.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

from sprat.errors import SetupError, SpratError
from sprat.store import Store

PACKAGE = "llama-cpp-python"
PROGRAMS = ("llama-server", "llama-bench")
VARIABLE = "SPRAT_LLAMA_CPP_BIN"
"""Names a folder that has the programs already."""

FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",  # programs that can be moved
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_BUILD_MTMD=OFF",
)
NO_AMX = "-mno-amx-int8"
"""For compilers that know it; see `sprat.engine.llama_lib.is_amx_safe`."""


def find(store: Store) -> Path:
    """The folder of the programs.

    Parameters
    ----------
    store : Store
        They are looked for below it, unless ``SPRAT_LLAMA_CPP_BIN`` names another folder.

    Raises
    ------
    SetupError
        One of them is missing; the message says how to make them.
    """
    named = os.environ.get(VARIABLE)
    folder = default_folder(store) if named is None else Path(named)
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise SetupError(
            f"{folder}: no {' and no '.join(missing)}; `python -m sprat.benchmarks.peers_build` "
            f"builds them in some ten minutes, or let {VARIABLE} name a folder that has them"
        )
    return folder


def default_folder(store: Store) -> Path:
    """Where `build` puts the programs of the installed version."""
    return store.root / "peers" / f"llama.cpp-{version()}"


def version() -> str:
    """The installed version of llama-cpp-python.

    Raises
    ------
    SetupError
        It is not installed.
    """
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise SetupError(f"{PACKAGE} is not installed") from None


def build(out: Path) -> None:
    """Download the source package and build the programs; nothing is done where they are there.

    Parameters
    ----------
    out : Path
        Folder for the programs. It appears when all of them are built.

    Raises
    ------
    SetupError
        A tool is missing, or a step failed; its output went to stderr.
    """
    if all((out / name).is_file() for name in PROGRAMS):
        return
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise SetupError(f"no {tool} here; try `pip install cmake ninja`")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=out.parent) as name:
        folder = Path(name)
        source = _source(folder)
        flags = [*FLAGS]
        if _knows(NO_AMX):
            flags += [f"-DCMAKE_C_FLAGS={NO_AMX}", f"-DCMAKE_CXX_FLAGS={NO_AMX}"]
        _run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder / "build"), *flags])
        _run(["cmake", "--build", str(folder / "build"), "--target", *PROGRAMS])
        shutil.rmtree(out, ignore_errors=True)
        (folder / "build" / "bin").rename(out)


def _source(folder: Path) -> Path:
    """Unpack llama.cpp from the source package."""
    _run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE),
            *("--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={version()}"),
        ]
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    return source


def _knows(flag: str) -> bool:
    """Whether the C++ compiler takes a flag."""
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, flag, "-fsyntax-only", "-x", "c++", os.devnull]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(command: list[str]) -> None:
    # What the tools print is progress, and our stdout is not for that.
    status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status != 0:
        raise SetupError(f"{' '.join(command[:3])} ... failed with status {status}")


def main() -> int:
    """Build the programs; 0 when they are there."""
    parser = argparse.ArgumentParser(
        prog="python -m sprat.benchmarks.peers_build",
        description="Builds llama-server and llama-bench for the benchmark against them.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="absent: below SPRAT_HOME")
    given = parser.parse_args()
    try:
        out: Path = given.folder or default_folder(Store())
        build(out)
    except SpratError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
