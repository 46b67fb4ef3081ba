"""The llama.cpp library behind llama-cpp-python: loaded once, and only if it fits this machine.

Its structs change between releases, so the version must be the pinned one. An install from source
is built for the CPU at hand (``-march=native``); on another CPU it dies of an illegal instruction
at the first use. What it was built for is asked of its ``ggml_cpu_has_*`` functions: each returns a
constant of the build, and nothing compiled for that CPU runs when the library is loaded. Everything
else does, from ``llama_print_system_info`` on.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

from sprat.errors import EngineError

VERSION = "0.3.36"
INSTALL = 'pip install "sprat[llama]"'
REBUILD = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python"
    f" llama-cpp-python=={VERSION}"
)

CPU_FLAGS = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "avx": "avx",
    "avx_vnni": "avx_vnni",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "bmi2": "bmi2",
    "avx512": "avx512f",
    "avx512_vbmi": "avx512vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "neon": "asimd",
    "fp16_va": "asimdhp",
    "matmul_int8": "i8mm",
    "sve": "sve",
    "dotprod": "asimddp",
    "sme": "sme",
    "sme2": "sme2",
}
"""``ggml_cpu_has_<key>`` says whether a build uses what ``/proc/cpuinfo`` calls ``<value>``."""

NAMES = (
    *("llama_adapter_lora_free", "llama_adapter_lora_init"),
    *("llama_backend_init", "llama_batch", "llama_batch_free", "llama_batch_init"),
    *("llama_context_default_params", "llama_decode"),
    *("llama_free", "llama_get_logits", "llama_get_logits_ith", "llama_get_memory"),
    *("llama_init_from_model", "llama_log_callback", "llama_log_set"),
    *("llama_max_parallel_sequences", "llama_memory_clear", "llama_memory_seq_cp"),
    *("llama_memory_seq_rm", "llama_model_default_params"),
    *("llama_model_free", "llama_model_get_vocab", "llama_model_has_decoder"),
    *("llama_model_has_encoder", "llama_model_load_from_file", "llama_model_meta_val_str"),
    *("llama_model_n_ctx_train", "llama_n_batch", "llama_n_ctx_seq", "llama_pos"),
    *("llama_print_system_info", "llama_seq_id", "llama_set_adapters_lora"),
    *("llama_set_n_threads",),
    *("llama_token", "llama_token_p", "llama_token_to_piece", "llama_tokenize"),
    *("llama_vocab_bos", "llama_vocab_eos", "llama_vocab_get_add_bos", "llama_vocab_get_attr"),
    *("llama_vocab_get_text", "llama_vocab_is_eog", "llama_vocab_n_tokens"),
)
"""What sprat's engine uses of the library."""

_ERROR_LEVEL = 4  # ggml.h; llama-cpp-python's own table is another
_errors: ContextVar[list[str] | None] = ContextVar("llama_errors", default=None)


@functools.cache
def load() -> Any:
    """The module ``llama_cpp.llama_cpp``, checked and initialized.

    Returns
    -------
    module
        Its log is off: errors go to `collect_errors`, all else nowhere.

    Raises
    ------
    EngineError
        It is missing, cannot be loaded, is of another version, or was built for another CPU.
    """
    try:
        check_version(metadata.version("llama-cpp-python"))
    except metadata.PackageNotFoundError:
        raise EngineError(f"llama-cpp-python is not installed: {INSTALL}") from None
    try:
        library = importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineError(
            f"llama-cpp-python {VERSION} is installed but cannot be loaded ({error});"
            f" install it again: {REBUILD}"
        ) from error
    check_interface(library)
    check_cpu(built_for(library), cpu_flags())
    library.llama_log_set(_log_callback(library), None)
    library.llama_backend_init()
    return library


def describe() -> str:
    """Version and CPU features of the library, for people.

    Raises
    ------
    EngineError
        As in `load`.
    """
    info = load().llama_print_system_info().decode()
    features = [part.split("=")[0].split(":")[-1].strip() for part in info.split("|")]
    return f"llama-cpp-python {VERSION}: {' '.join(filter(None, features))}"


def check_version(found: str) -> None:
    """Refuse any version but the pinned one.

    Raises
    ------
    EngineError
        Names both.
    """
    if found != VERSION:
        raise EngineError(
            f"expected llama-cpp-python {VERSION}, found {found}, whose structs may differ:"
            f" {INSTALL}"
        )


def check_interface(library: Any) -> None:
    """Refuse a library that lacks a name, or whose structs lie otherwise in memory than expected.

    Raises
    ------
    EngineError
        Names what is missing.
    """
    missing = [name for name in NAMES if not hasattr(library, name)]
    if missing:
        raise EngineError(f"llama-cpp-python lacks {', '.join(missing)}: {REBUILD}")
    context, model = library.llama_context_default_params(), library.llama_model_default_params()
    # Known defaults from one end of each struct to the other.
    found = (
        *(context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max),
        *(context.flash_attn_type, context.type_v, context.offload_kqv, context.kv_unified),
        *(context.n_samplers, model.n_gpu_layers, model.use_extra_bufts, model.load_mtp),
    )
    if found != (512, 2048, 512, 1, -1, 1, True, False, 0, -1, True, False):
        raise EngineError(
            f"the llama.cpp library is not that of llama-cpp-python {VERSION}: its structs differ."
            f" Unset LLAMA_CPP_LIB_PATH, or install it again: {REBUILD}"
        )


def built_for(library: Any) -> tuple[str, ...]:
    """Keys of `CPU_FLAGS` that a build of llama.cpp uses without asking the CPU.

    Empty for a build that chooses among variants when it runs.
    """
    used = []
    for key in CPU_FLAGS:
        try:
            has = getattr(library._lib, f"ggml_cpu_has_{key}")
        except AttributeError:
            continue
        has.argtypes, has.restype = [], ctypes.c_int
        if has():
            used.append(key)
    return tuple(used)


def is_amx_safe(built: Iterable[str]) -> bool:
    """Whether a build may use its kernels for Intel's AMX: it has none.

    GCC before 13.3 and 14.1 compiles ``_tile_loadconfig`` wrongly (bug 114098: most of the tile
    configuration is taken for dead), so that the first matrix product dies of an illegal
    instruction. Which compiler made a library cannot be asked. The Makefile builds without AMX.

    Parameters
    ----------
    built : iterable of str
        As `built_for` returns it.
    """
    return "amx_int8" not in built


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this CPU offers, in the words of Linux; empty where they cannot be read."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    named = (line.split(":", 1) for line in lines if ":" in line)
    return frozenset(next((v.split() for k, v in named if k.strip() in ("flags", "Features")), ()))


def check_cpu(built: Iterable[str], flags: frozenset[str]) -> None:
    """Compare what a build uses with what a CPU offers.

    Parameters
    ----------
    built : iterable of str
        As `built_for` returns it.
    flags : frozenset of str
        As `cpu_flags` returns it; when it is empty, nothing is checked.

    Raises
    ------
    EngineError
        Names what the CPU lacks.
    """
    missing = [key for key in built if CPU_FLAGS[key] not in flags]
    if flags and missing:
        raise EngineError(
            f"llama-cpp-python was built for a CPU with {', '.join(missing)}, which this one lacks."
            f" Build it on this machine: {REBUILD}"
        )


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Collect the error lines that llama.cpp logs on this thread inside the block."""
    lines: list[str] = []
    token = _errors.set(lines)
    try:
        yield lines
    finally:
        _errors.reset(token)


@functools.cache
def _log_callback(library: Any) -> Any:
    """The log callback; cached, because llama.cpp keeps only a pointer to it."""

    @library.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, _: Any) -> None:
        lines = _errors.get()
        if level == _ERROR_LEVEL and lines is not None:
            lines.append(text.decode("utf-8", "replace").strip())

    return on_log


def metadata_text(library: Any, model: Any, key: str) -> str | None:
    """A value of a model's GGUF metadata as text; None where it is not there."""
    size = library.llama_model_meta_val_str(model, key.encode(), None, 0)
    if size < 0:
        return None
    buffer = ctypes.create_string_buffer(size + 1)
    library.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
