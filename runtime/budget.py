"""The CPU budget: how many compute threads may run at once, and who runs next.

One budget for the process, shared by every engine. Its size is the smallest of what the
scheduler allows (affinity), what the container pays for (cgroup quota, rounded down) and what the
machine has (physical cores): more threads than that make each other slower, silently.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONTENTION_WINDOW_S = 0.25
"""How long an owner counts as active after it last asked for a permit or gave one back."""


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """How many compute threads this process may run, and why.

    Attributes
    ----------
    threads : int
        The budget, at least 1.
    affinity, physical : int
        Logical CPUs that this process may run on; physical cores among them.
    quota : float or None
        CPUs that the cgroup pays for; None without a limit.
    override : int or None
        What the operator set instead.
    """

    threads: int
    affinity: int
    physical: int
    quota: float | None
    override: int | None = None

    def __str__(self) -> str:
        quota = "none" if self.quota is None else f"{self.quota:g}"
        origin = "" if self.override is None else ", set by configuration"
        return (
            f"{self.threads} (affinity {self.affinity}, physical cores {self.physical}, "
            f"cgroup quota {quota}){origin}"
        )


def detect(override: int | None = None, *, root: Path = Path("/")) -> CpuBudget:
    """Measure the CPU budget of this process.

    Parameters
    ----------
    override : int, optional
        Use this many threads instead, at least 1.
    root : Path
        Where ``proc`` and ``sys`` are mounted.
    """
    cpus = _affinity()
    physical = _physical_cores(cpus, root)
    quota = _cgroup_quota(root)
    threads = min(len(cpus), physical)
    if quota is not None:
        threads = min(threads, int(quota))
    return CpuBudget(
        threads=max(1, threads if override is None else override),
        affinity=len(cpus),
        physical=physical,
        quota=quota,
        override=override,
    )


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int], root: Path) -> int:
    """Distinct sets of hyper-threads among ``cpus``; all of them where the kernel does not say."""
    cores = set()
    for cpu in cpus:
        path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            cores.add(path.read_text().strip())
        except OSError:
            return len(cpus)
    return max(1, len(cores))


def _cgroup_quota(root: Path) -> float | None:
    """CPUs allowed by cgroup v2 or v1: the least of this group and those above it."""
    quotas = map(_group_quota, _cgroup_folders(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def _group_quota(folder: Path) -> float | None:
    """CPUs of one group; None where it has no limit (``max``, -1) or none that can be read."""
    try:
        if (file := folder / "cpu.max").exists():
            limit, period = file.read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        quota = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return quota if quota > 0 else None


def _cgroup_folders(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, controllers_and_path = line.partition(":")
        controllers, colon, path = controllers_and_path.partition(":")
        if not colon:
            continue
        if controllers == "":
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        folder = mount / path.lstrip("/")
        yield folder
        while folder != mount:
            folder = folder.parent
            yield folder


@dataclass(slots=True)
class _Waiter:
    owner: str
    want: int
    granted: int = 0


class ComputePermits:
    """A fair semaphore over the CPU budget: one permit is one running compute thread.

    Whoever asks first is served first. An owner that asks for several permits gets all of them
    only while no other owner is active; else it gets one, and the rest of the cores stay with the
    others. So a long prompt on llama.cpp runs on every core while it is alone, and beside short
    classifications it keeps to one.

    Parameters
    ----------
    permits : int
        The CPU budget.
    """

    def __init__(self, permits: int) -> None:
        self.permits = permits
        self._free = permits
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[_Waiter] = deque()
        self._last_seen: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    @property
    def has_spare(self) -> bool:
        """Whether nobody waits, and more than half of the permits are free."""
        with self._lock:
            return not self._queue and 2 * self._free > self.permits

    @contextmanager
    def hold(self, owner: str, want: int = 1) -> Iterator[int]:
        """Hold permits for the duration of a block.

        Parameters
        ----------
        owner : str
            Who asks, such as the name of a model; owners compete, workers of one owner do not.
        want : int
            Most permits of use, from 1; at least one is granted.

        Yields
        ------
        int
            Permits held: compute threads that may run.
        """
        granted = self._acquire(owner, min(want, self.permits))
        try:
            yield granted
        finally:
            with self._lock:
                self._free += granted
                self._held[owner] -= granted
                self._last_seen[owner] = time.monotonic()
                self._grant()

    def _acquire(self, owner: str, want: int) -> int:
        waiter = _Waiter(owner, want)
        with self._lock:
            self._last_seen[owner] = time.monotonic()
            self._queue.append(waiter)
            self._grant()
            while not waiter.granted:
                self._changed.wait()
        return waiter.granted

    def _grant(self) -> None:
        """Serve the head of the queue as long as its permits are free. Holds the lock."""
        now = time.monotonic()
        woke = False
        while self._queue and self._free:
            head = self._queue[0]
            want = 1 if head.want == 1 or self._contended(head.owner, now) else head.want
            if want > self._free:
                break
            self._queue.popleft()
            head.granted = want
            self._free -= want
            self._held[head.owner] += want
            woke = True
        if woke:
            self._changed.notify_all()

    def _contended(self, owner: str, now: float) -> bool:
        horizon = now - CONTENTION_WINDOW_S
        return any(
            self._held[other] > 0 or seen > horizon
            for other, seen in self._last_seen.items()
            if other != owner
        )
