"""Builds the bindings with ``SPRAT_SANITIZE=1`` and runs their tests on that build."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from reruns import KERNELS, ROOT, rerun, run

FILES = [
    *("test_sampling.py", "test_chunk.py", "test_wordpiece.py", "test_ngram_index.py"),
    *("test_stop_matcher.py", "test_embedding.py", "test_utf8_stream.py", "test_head.py"),
    *("test_logits.py", "test_pack.py", "test_pool.py", "test_trie.py", "test_viterbi.py"),
]


def library(name: str) -> str:
    return run("g++", f"-print-file-name={name}", cwd=KERNELS)


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
        f"--parallel={os.cpu_count()}",
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
    rerun(FILES, cwd=tmp_path, **environment)
