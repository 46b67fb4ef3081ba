"""Runs kernel tests once more in processes of their own: of another build, for another CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "tests" / "kernels"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command, which has to succeed."""
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


def rerun(files: Sequence[str], *, cwd: Path = ROOT, **environment: str) -> None:
    """Run files of ``tests/kernels``, dealt out to as many processes as there are cores."""

    def one(part: Sequence[str]) -> str:
        return run(
            sys.executable,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "--confcutdir", KERNELS),
            # Without a deadline, and the same examples every time: they vary in the first run.
            "--hypothesis-profile=ci",
            *(KERNELS / file for file in part),
            cwd=cwd,
            **environment,
        )

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        outputs = [*pool.map(one, [part for i in range(cores) if (part := files[i::cores])])]
    assert all(" passed" in output for output in outputs)
