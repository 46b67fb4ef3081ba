"""The llama.cpp library behind llama-cpp-python: loaded once, and only if it fits this machine.

Its structs change between releases, so the version must be the pinned one. Its build uses the
instructions of the CPU it was built on, so these are compared with this CPU first, in a process of
its own: what would kill the server there, only ends the probe.
"""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from collections import deque
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sprat.errors import EngineError

log = logging.getLogger(__name__)

VERSION = "0.3.36"
INSTALL = 'pip install "sprat[llama]"'
REBUILD = f"pip install --force-reinstall --no-cache-dir llama-cpp-python=={VERSION}"

_ERROR_LEVEL = 4
_FEATURES = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512_vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
}
"""What the build says of itself, and the flag in ``/proc/cpuinfo`` that it needs."""

_PROBE = """
import ctypes, sys
for name in ("ggml-base", "ggml-cpu", "ggml", "llama"):
    library = ctypes.CDLL(f"{sys.argv[1]}/lib{name}.so", mode=ctypes.RTLD_GLOBAL)
library.llama_print_system_info.restype = ctypes.c_char_p
print(library.llama_print_system_info().decode())
"""

last_errors: deque[str] = deque(maxlen=3)
"""The newest error lines of the library, for the message of a failed load."""


def describe() -> str:
    """Version and CPU features of the library, for people.

    Raises
    ------
    EngineError
        As in `load`.
    """
    library = load()
    features = _built_with(library.llama_print_system_info().decode())
    return f"llama-cpp-python {VERSION}: {' '.join(features)}"


@functools.cache
def load() -> Any:
    """The module ``llama_cpp.llama_cpp``, checked and initialized.

    Raises
    ------
    EngineError
        It is not installed, of another version, or built for another CPU.
    """
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise EngineError(f"llama-cpp-python is not installed; {INSTALL}")
    found = metadata.version("llama-cpp-python")
    if found != VERSION:
        raise EngineError(
            f"expected llama-cpp-python {VERSION}, found {found}: its structs differ; {INSTALL}"
        )
    check_cpu(_probe(Path(spec.origin).parent / "lib"), _cpu_flags())
    from llama_cpp import llama_cpp as library

    library.llama_log_set(_on_log(library), None)
    library.llama_backend_init()
    return library


def _probe(folder: Path) -> str:
    """What the build says of itself, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROBE, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode < 0:
        raise EngineError(
            f"llama.cpp died of signal {-done.returncode} here: it was built for another CPU; "
            f"rebuild it: {REBUILD}"
        )
    if done.returncode > 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise EngineError(f"llama.cpp cannot be loaded: {' '.join(last)}; {INSTALL}")
    return done.stdout


def check_cpu(system_info: str, flags: frozenset[str]) -> None:
    """Compare the features of a build with the flags of a CPU.

    Parameters
    ----------
    system_info : str
        As ``llama_print_system_info`` returns it: ``CPU : AVX = 1 | AVX2 = 1 | ...``.
    flags : frozenset of str
        As in ``/proc/cpuinfo``; empty where they are not known, and then nothing is checked.

    Raises
    ------
    EngineError
        Names the missing features.
    """
    if not flags:
        return
    missing = [
        name
        for name in _built_with(system_info)
        if name in _FEATURES and _FEATURES[name] not in flags
    ]
    if missing:
        raise EngineError(
            f"llama.cpp was built for a CPU with {', '.join(missing)}, which this one lacks; "
            f"rebuild it: {REBUILD}"
        )


def _built_with(system_info: str) -> list[str]:
    parts = system_info.split(":", 1)[-1].split("|")
    return [part.split("=")[0].strip() for part in parts if "= 1" in part]


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((x.split(":", 1)[1].split() for x in lines if x.startswith("flags")), ()))


@functools.cache
def _on_log(library: Any) -> Any:
    """A log callback that keeps error lines and drops the rest. Cached: it must stay alive."""

    @library.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, _: Any) -> None:
        if level == _ERROR_LEVEL:
            last_errors.append(text.decode("utf-8", "replace").strip())

    return on_log
