from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from sprat.engine import llama_lib
from sprat.errors import EngineError

LIBRARY = llama_lib.load()


def load_in_new_process(folder: Path) -> subprocess.CompletedProcess[str]:
    """`load` where llama-cpp-python takes its shared libraries from a folder."""
    return subprocess.run(
        [sys.executable, "-c", "from sprat.engine import llama_lib; llama_lib.load()"],
        env={"LLAMA_CPP_LIB_PATH": str(folder), "PATH": "", "SPRAT_KERNELS": "reference"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_llama_lib_loads_once() -> None:
    assert llama_lib.load() is LIBRARY


def test_llama_lib_describes_version_and_cpu_features() -> None:
    assert re.fullmatch(r"llama-cpp-python 0\.3\.36:( [A-Z0-9_]+)+", llama_lib.describe())


def test_llama_lib_never_runs_kernels_that_compilers_get_wrong() -> None:
    assert llama_lib.is_amx_safe(("avx2", "avx512_vnni"))
    assert not llama_lib.is_amx_safe(("avx2", "avx512_vnni", "amx_int8"))


def test_llama_lib_refuses_another_version_and_names_both() -> None:
    with pytest.raises(EngineError, match=r"expected llama-cpp-python 0\.3\.36, found 0\.3\.35"):
        llama_lib.check_version("0.3.35")


def test_llama_lib_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(EngineError, match=r'not installed: pip install "sprat\[llama\]"'):
        llama_lib.load.__wrapped__()


def test_llama_lib_without_shared_library_is_an_error_not_a_crash(tmp_path: Path) -> None:
    done = load_in_new_process(tmp_path)
    assert done.returncode == 1
    assert "EngineError: llama-cpp-python 0.3.36 is installed but cannot be loaded" in done.stderr


def test_llama_lib_with_a_broken_shared_library_is_an_error_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / Path(LIBRARY._lib._name).name).write_bytes(b"this is no library")
    done = load_in_new_process(tmp_path)
    assert done.returncode == 1
    assert "EngineError: llama-cpp-python 0.3.36 is installed but cannot be loaded" in done.stderr


def test_llama_lib_names_cover_what_the_engine_uses() -> None:
    used = set()
    for file in Path(llama_lib.__file__).parent.glob("llama*.py"):
        used |= set(re.findall(r"(?:lib|library|load\(\))\.(llama_\w+)", file.read_text()))
    assert used == set(llama_lib.NAMES)


def test_llama_lib_refuses_a_library_that_lacks_names() -> None:
    names = {name: None for name in llama_lib.NAMES if name != "llama_decode"}
    with pytest.raises(EngineError, match="lacks llama_decode:"):
        llama_lib.check_interface(SimpleNamespace(**names))


@pytest.mark.parametrize("field", ["n_ctx", "type_v", "n_samplers"])
def test_llama_lib_refuses_structs_that_lie_otherwise(field: str) -> None:
    moved = LIBRARY.llama_context_default_params()
    setattr(moved, field, 77)
    names = {name: getattr(LIBRARY, name) for name in llama_lib.NAMES}
    names["llama_context_default_params"] = lambda: moved
    with pytest.raises(EngineError, match="structs differ"):
        llama_lib.check_interface(SimpleNamespace(**names))


def test_llama_lib_build_matches_the_cpu_that_runs_it() -> None:
    built = llama_lib.built_for(LIBRARY)
    assert built
    llama_lib.check_cpu(built, llama_lib.cpu_flags())


def test_llama_lib_refuses_a_build_for_another_cpu() -> None:
    with pytest.raises(EngineError, match=r"built for a CPU with avx512, amx_int8, which .* lacks"):
        llama_lib.check_cpu(("avx2", "avx512", "amx_int8"), frozenset(["fpu", "avx", "avx2"]))


def test_llama_lib_checks_nothing_where_the_cpu_is_not_known(tmp_path: Path) -> None:
    flags = llama_lib.cpu_flags(tmp_path / "missing")
    assert flags == frozenset()
    llama_lib.check_cpu(("avx512",), flags)


def test_llama_lib_build_that_chooses_at_run_time_needs_no_flags() -> None:
    assert llama_lib.built_for(SimpleNamespace(_lib=object())) == ()


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2\n\nflags\t\t: other\n", {"fpu", "avx2"}),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm\n", {"fp", "asimd", "i8mm"}),
        ("model name\t: x\n", set()),
    ],
)
def test_llama_lib_reads_cpu_flags(tmp_path: Path, text: str, flags: set[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert llama_lib.cpu_flags(path) == flags


def test_llama_lib_collects_errors_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"this is no model")
    params = LIBRARY.llama_model_default_params()
    with llama_lib.collect_errors() as outer:
        with llama_lib.collect_errors() as inner:
            LIBRARY.llama_model_load_from_file(str(junk).encode(), params)
        assert "invalid magic" in inner[0]
        assert outer == []
    LIBRARY.llama_model_load_from_file(str(junk).encode(), params)
    assert len(inner) == 3
    assert capfd.readouterr() == ("", "")
