"""How sprat measures: medians, percentiles, CPU time, memory, and what machine it was.

Small helpers for ``sprat bench`` and for `sprat.benchmarks`. What the system does not tell is None.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from sprat.budget import detect
from sprat.errors import InvalidInput

CPU_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve", "hypervisor"),
)
"""Of all that a CPU says of itself: what the kernels of the engines look at, and whether it is
virtual."""

PACKAGES = (
    *("sprat", "ctranslate2", "llama-cpp-python", "tokenizers", "numpy"),
    *("grpcio", "protobuf"),
)
"""Packages whose versions move figures."""


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two middle ones.

    Raises
    ------
    InvalidInput
        Without a value.
    """
    found = list(values)
    if not found:
        raise InvalidInput("values: expected 1 or more, got none", field="values")
    return float(statistics.median(found))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies in short; the unit is that of the values."""

    p50: float
    p95: float
    p99: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """The 50th, 95th and 99th percentile, interpolated between neighbours.

    Raises
    ------
    InvalidInput
        Without a value.

    Examples
    --------
    >>> percentiles([1.0, 2.0, 3.0]).p50
    2.0
    """
    if not values:
        raise InvalidInput("values: expected 1 or more, got none", field="values")
    p50, p95, p99 = np.percentile(np.asarray(values, np.float64), (50, 95, 99)).tolist()
    return Percentiles(p50, p95, p99)


def cpu_seconds(pid: int | None = None, *, proc: Path = Path("/proc")) -> float | None:
    """CPU time that a process has used, user and system, in all of its threads.

    Parameters
    ----------
    pid : int, optional
        Absent: this process.
    proc : Path
        Where procfs is mounted.

    Returns
    -------
    float or None
        Seconds; in steps of a clock tick (10 ms on Linux) for another process.
    """
    if pid is None:
        return time.process_time()
    try:
        # The name of the program, in parentheses, may hold spaces and parentheses itself.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        times = _psutil("cpu_times", pid)
        return None if times is None else float(times.user + times.system)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds(*, proc: Path = Path("/proc")) -> float | None:
    """CPU time that the whole machine has used since it started, time stolen from it included.

    With the CPU time of our own processes, it tells how much others disturbed a measurement.

    Parameters
    ----------
    proc : Path
        Where procfs is mounted.

    Returns
    -------
    float or None
        Seconds, summed over the CPUs.
    """
    try:
        fields = (proc / "stat").read_text().split("\n")[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process.

    Attributes
    ----------
    resident : int
        Bytes in RAM now, files mapped into the process included.
    peak : int or None
        Most bytes in RAM so far.
    """

    resident: int
    peak: int | None


def memory(pid: int | None = None, *, proc: Path = Path("/proc")) -> Memory | None:
    """Memory of a process.

    Parameters
    ----------
    pid : int, optional
        Absent: this process.
    proc : Path
        Where procfs is mounted.
    """
    pid = os.getpid() if pid is None else pid
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        info = _psutil("memory_info", pid)
        return None if info is None else Memory(int(info.rss), None)
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmRSS", "VmHWM")
    }
    if "VmRSS" not in kilobytes:
        return None  # A process that has ended has no memory.
    peak = kilobytes.get("VmHWM")
    return Memory(kilobytes["VmRSS"] * 1024, None if peak is None else peak * 1024)


def cgroup_memory(pid: int | None = None, *, root: Path = Path("/")) -> int | None:
    """Memory of the control group of a process: what a container is charged and killed for.

    It counts every process of the group, and cached files.

    Parameters
    ----------
    pid : int, optional
        Absent: this process.
    root : Path
        Where ``proc`` and ``sys`` are mounted.

    Returns
    -------
    int or None
        Bytes; None outside of a control group.
    """
    try:
        lines = (root / "proc" / str(pid or "self") / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            file = root / "sys/fs/cgroup" / path.lstrip("/") / "memory.current"
        elif "memory" in controllers.split(","):
            folder = root / "sys/fs/cgroup/memory" / path.lstrip("/")
            file = folder / "memory.usage_in_bytes"
        else:
            continue
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            continue
    return None


def _psutil(method: str, pid: int) -> Any:
    """A fact from psutil, where it is installed and knows the process."""
    try:
        psutil = import_module("psutil")
    except ImportError:
        return None
    try:
        return getattr(psutil.Process(pid), method)()
    except psutil.Error:
        return None


def machine(*, root: Path = Path("/")) -> dict[str, Any]:
    """What a figure depends on, as JSON values: CPU, budget, memory, system. No names of hosts.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are mounted.
    """
    budget = detect(root=root)
    facts = _cpuinfo(root)
    flags = {*facts.get("flags", "").split(), *facts.get("Features", "").split()}
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "threads": budget.threads,
        "affinity": budget.affinity,
        "physical_cores": budget.physical,
        "cgroup_quota": budget.quota,
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mb": _total_memory_mb(root),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor of ``/proc/cpuinfo``; empty elsewhere."""
    block = (_read(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _total_memory_mb(root: Path) -> int | None:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that are installed, by name."""
    found = ((package, _version(package)) for package in packages)
    return {package: version for package, version in found if version is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit(folder: Path, *, exclude: Sequence[str] = ()) -> str | None:
    """The commit that a checkout stands at.

    Parameters
    ----------
    folder : Path
        Top folder of the checkout.
    exclude : sequence of str
        Paths in it whose changes do not count, such as the results themselves.

    Returns
    -------
    str or None
        12 hex digits, with ``+changes`` where tracked files differ from it; None outside of a
        checkout, before the first commit, or without git.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not top or not head or Path(top).resolve() != folder.resolve():
        return None
    others = [f":(exclude){path}" for path in exclude]
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *others)
    return f"{head}+changes" if changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
