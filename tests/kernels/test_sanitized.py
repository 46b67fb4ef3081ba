"""Builds the bindings with ``SPRAT_SANITIZE=1`` and runs their tests on that build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def library(name: str) -> str:
    return run("g++", f"-print-file-name={name}", cwd=HERE)


@pytest.mark.timeout(600)
def test_sanitized_bindings_pass_the_kernel_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "kernels", source / "kernels", ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(ROOT / "setup.py", source)
    installed = tmp_path / "installed"
    shutil.copytree(source / "kernels", installed / "sprat" / "kernels")
    (installed / "sprat" / "__init__.py").touch()
    run(
        sys.executable,
        "setup.py",
        "build_ext",
        f"--build-lib={installed}",
        cwd=source,
        SPRAT_SANITIZE="1",
    )

    environment = {
        "PYTHONPATH": str(installed),
        # The C++ library beside that of the sanitizer, which else cannot follow exceptions.
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory until the end.
    }
    show = (
        "from sprat.kernels import _array, _labels, _logits, _text, _wordpiece;"
        " print(*(m.__file__ for m in (_array, _labels, _logits, _text, _wordpiece)))"
    )
    files = run(sys.executable, "-c", show, cwd=tmp_path, **environment).split()
    assert [Path(file).parent for file in files] == [installed / "sprat" / "kernels"] * 5
    passed = run(
        sys.executable,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "--confcutdir", HERE),
        *("-k", "not baseline"),  # the C++ tests run on it
        *(HERE / "test_chunk.py", HERE / "test_ngram_index.py", HERE / "test_stop_matcher.py"),
        *(HERE / "test_embedding.py", HERE / "test_head.py", HERE / "test_logits.py"),
        *(HERE / "test_pack.py", HERE / "test_pool.py", HERE / "test_sampling.py"),
        *(HERE / "test_trie.py", HERE / "test_utf8_stream.py", HERE / "test_viterbi.py"),
        HERE / "test_wordpiece.py",
        cwd=tmp_path,
        **environment,
    )
    assert " passed" in passed
