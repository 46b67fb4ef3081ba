"""The Makefile says what to install on a machine where something is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKING = f'exec {sys.executable} "$@"'
TOO_OLD = 'case "$*" in -V) echo Python 3.9.2;; *version_info*) exit 1;; esac'
WITHOUT_VENV = f'case "$*" in *ensurepip*) exit 1;; *) {WORKING};; esac'
WITHOUT_HEADERS = f'case "$*" in *Python.h*) exit 1;; *) {WORKING};; esac'


@pytest.mark.parametrize(
    ("python3", "said"),
    [
        (None, "no python3 here. Try: apt-get install python3 python3-venv python3-dev"),
        (
            TOO_OLD,
            "sprat needs Python 3.10 or newer, this is Python 3.9.2. Try: make PYTHON=python3.12",
        ),
        (WITHOUT_VENV, "python3 cannot make environments. Try: apt-get install python3-venv"),
        (WITHOUT_HEADERS, "the headers of python3 are missing. Try: apt-get install python3-dev"),
        (WORKING, "no C++ compiler here. Try: apt-get install g++"),
    ],
    ids=["python3", "version", "venv", "headers", "g++"],
)
def test_makefile_names_what_is_missing(python3: str | None, said: str, tmp_path: Path) -> None:
    for tool in ("find", "make"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    if python3 is not None:
        script = tmp_path / "python3"
        script.write_text(f"#!/bin/bash\n{python3}\n")
        script.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"make: {said}"
    assert not (tmp_path / "venv").exists()


def test_makefile_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:"))
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == set(phony.removeprefix(".PHONY:").split())
