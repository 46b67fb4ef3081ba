"""The CPU budget: what is detected, and permits that are bounded and fair."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sprat import budget
from sprat.budget import ComputePermits, detect

WAIT_S = 10.0


# -- detection -------------------------------------------------------------------------------


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    def allow(cpus: set[int]) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)

    allow(set(range(8)))
    return allow


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def siblings(root: Path, *sets: str) -> None:
    """One set of hyper-threads a CPU, such as ``0,4``."""
    for cpu, text in enumerate(sets):
        write(root, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", text + "\n")


def test_budget_of_this_machine_is_sane() -> None:
    found = detect()
    assert 1 <= found.threads <= found.physical <= found.affinity <= (os.cpu_count() or 1)


@pytest.mark.usefixtures("affinity")
def test_budget_without_proc_and_sys_is_the_affinity(tmp_path: Path) -> None:
    found = detect(root=tmp_path)
    assert (found.threads, found.affinity, found.physical, found.quota) == (8, 8, 8, None)


@pytest.mark.usefixtures("affinity")
def test_budget_counts_hyper_threads_once(tmp_path: Path) -> None:
    siblings(tmp_path, *["0,4", "1,5", "2,6", "3,7"] * 2)
    found = detect(root=tmp_path)
    assert (found.threads, found.affinity, found.physical) == (4, 8, 4)


def test_budget_counts_only_the_cores_it_may_use(
    tmp_path: Path, affinity: Callable[[set[int]], None]
) -> None:
    siblings(tmp_path, *["0,4", "1,5", "2,6", "3,7"] * 2)
    affinity({0, 4, 5})
    assert (detect(root=tmp_path).threads, detect(root=tmp_path).affinity) == (2, 3)


def test_budget_without_affinity_uses_the_cpu_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert detect(root=tmp_path).affinity == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert detect(root=tmp_path).threads == 1


@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize(
    ("limit", "quota", "threads"),
    [
        ("max 100000", None, 8),
        ("400000 100000", 4.0, 4),
        ("765000 100000", 7.65, 7),
        ("199999 100000", 1.99999, 1),
        ("50000 100000", 0.5, 1),
        ("1600000 100000", 16.0, 8),
        ("20000 10000", 2.0, 2),
    ],
)
def test_budget_cgroup_v2_quota_is_rounded_down(
    tmp_path: Path, limit: str, quota: float | None, threads: int
) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", limit + "\n")
    found = detect(root=tmp_path)
    assert found.quota == quota
    assert found.threads == threads


@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize(
    ("outer", "middle", "inner", "quota"),
    [
        ("max 100000", "300000 100000", "max 100000", 3.0),
        ("max 100000", "300000 100000", "200000 100000", 2.0),
        ("max 100000", "100000 100000", "200000 100000", 1.0),
        ("500000 100000", "max 100000", "max 100000", 5.0),
        ("max 100000", "max 100000", "max 100000", None),
    ],
)
def test_budget_cgroup_v2_takes_the_least_of_nested_groups(
    tmp_path: Path, outer: str, middle: str, inner: str, quota: float | None
) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/pod/box\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", outer)
    write(tmp_path, "sys/fs/cgroup/pod/cpu.max", middle)
    write(tmp_path, "sys/fs/cgroup/pod/box/cpu.max", inner)
    assert detect(root=tmp_path).quota == quota


@pytest.mark.usefixtures("affinity")
def test_budget_cgroup_path_of_the_host_seen_from_a_container(tmp_path: Path) -> None:
    """Without a cgroup namespace the path is the host's, the mount the container's own."""
    write(tmp_path, "proc/self/cgroup", "0::/docker/0123456789ab\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "200000 100000\n")
    assert detect(root=tmp_path).quota == 2.0


@pytest.mark.usefixtures("affinity")
def test_budget_cgroup_path_above_the_namespace(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/../../other\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert detect(root=tmp_path).quota == 3.0


@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize(
    ("quota_us", "quota"), [("150000", 1.5), ("-1", None), ("800000", 8.0), ("1000", 0.01)]
)
def test_budget_cgroup_v1_quota(tmp_path: Path, quota_us: str, quota: float | None) -> None:
    write(
        tmp_path,
        "proc/self/cgroup",
        "12:memory:/box\n5:cpuset:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/box\n",
    )
    write(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", quota_us + "\n")
    write(tmp_path, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert detect(root=tmp_path).quota == quota


@pytest.mark.usefixtures("affinity")
def test_budget_cgroup_v1_takes_the_least_of_nested_groups(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/pod/box\n")
    for folder, quota in (("", "-1"), ("pod/", "250000"), ("pod/box/", "600000")):
        write(tmp_path, f"sys/fs/cgroup/cpu/{folder}cpu.cfs_quota_us", quota)
        write(tmp_path, f"sys/fs/cgroup/cpu/{folder}cpu.cfs_period_us", "100000")
    found = detect(root=tmp_path)
    assert (found.quota, found.threads) == (2.5, 2)


@pytest.mark.usefixtures("affinity")
@pytest.mark.parametrize("line", ["", "garbage", "0::", "a:b", "4:cpu:/x"])
@pytest.mark.parametrize("limit", ["", "x y", "x", "100000 0", "max", "1 2 3"])
def test_budget_survives_cgroup_files_it_cannot_read(tmp_path: Path, line: str, limit: str) -> None:
    write(tmp_path, "proc/self/cgroup", line + "\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", limit)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", limit)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", limit)
    assert detect(root=tmp_path).threads == 8


@pytest.mark.usefixtures("affinity")
def test_budget_override_wins_and_is_said(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "250000 100000\n")
    measured, set_by_hand = detect(root=tmp_path), detect(16, root=tmp_path)
    assert str(measured) == "2 (affinity 8, physical cores 8, cgroup quota 2.5)"
    assert (set_by_hand.threads, set_by_hand.override) == (16, 16)
    assert str(set_by_hand) == (
        "16 (affinity 8, physical cores 8, cgroup quota 2.5), set by configuration"
    )


@pytest.mark.usefixtures("affinity")
def test_budget_says_when_there_is_no_quota(tmp_path: Path) -> None:
    assert str(detect(root=tmp_path)) == "8 (affinity 8, physical cores 8, cgroup quota none)"


# -- permits ---------------------------------------------------------------------------------


class Holder:
    """A thread that holds permits until it is told to let go."""

    def __init__(self, permits: ComputePermits, owner: str, want: int = 1) -> None:
        self.granted = 0
        self.has = threading.Event()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(permits, owner, want))
        self._thread.start()

    def _run(self, permits: ComputePermits, owner: str, want: int) -> None:
        with permits.hold(owner, want) as granted:
            self.granted = granted
            self.has.set()
            assert self._let_go.wait(WAIT_S), "nobody let this holder go"

    def is_waiting(self) -> bool:
        return not self.has.wait(0.03)

    def release(self) -> None:
        assert self.has.wait(WAIT_S), "no permit came"
        self.end()

    def end(self) -> None:
        self._let_go.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


Hold = Callable[..., Holder]


@contextmanager
def holders(permits: ComputePermits) -> Iterator[Hold]:
    made: list[Holder] = []

    def hold(owner: str, want: int = 1) -> Holder:
        before = len(permits._queue)
        holder = Holder(permits, owner, want)
        made.append(holder)
        until = time.monotonic() + WAIT_S
        while not holder.has.is_set() and len(permits._queue) == before:
            assert time.monotonic() < until, "the holder never asked"
            time.sleep(0.0005)
        return holder

    try:
        yield hold
    finally:
        for holder in made:
            holder.end()


def test_budget_permits_alone_gets_all_it_wants() -> None:
    permits = ComputePermits(4)
    for want, granted in ((1, 1), (3, 3), (4, 4), (9, 4)):
        with permits.hold("a", want) as held:
            assert held == granted


def test_budget_permits_want_many_gets_one_while_another_owner_is_active() -> None:
    permits = ComputePermits(4)
    with permits.hold("encoder"), permits.hold("generator", 4) as held:
        assert held == 1


def test_budget_permits_want_many_gets_one_shortly_after_another_owner_was_active() -> None:
    permits = ComputePermits(2)
    with permits.hold("encoder"):
        pass
    with permits.hold("generator", 2) as held:
        assert held == 1


def test_budget_permits_want_many_gets_all_when_the_others_went_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "CONTENTION_WINDOW_S", 0.01)
    permits = ComputePermits(2)
    with permits.hold("encoder"):
        pass
    time.sleep(0.02)
    with permits.hold("generator", 2) as held:
        assert held == 2


def test_budget_permits_an_owner_that_computes_for_long_is_still_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "CONTENTION_WINDOW_S", 0.01)
    permits = ComputePermits(2)
    with holders(permits) as hold:
        encoder = hold("encoder")
        time.sleep(0.02)
        generator = hold("generator", 2)
        assert not generator.is_waiting(), "waits for a permit that the encoder holds"
        assert (encoder.granted, generator.granted) == (1, 1)


def test_budget_permits_workers_of_one_owner_do_not_compete() -> None:
    permits = ComputePermits(2)
    with permits.hold("encoder"):
        pass
    with permits.hold("encoder", 2) as held:
        assert held == 2


def test_budget_permits_are_served_in_order() -> None:
    permits = ComputePermits(1)
    with holders(permits) as hold:
        first = hold("a")
        queue = [hold(owner) for owner in ("b", "c", "a", "b")]
        assert all(waiting.is_waiting() for waiting in queue)
        current = first
        for waiting in queue:
            current.release()
            assert waiting.has.wait(WAIT_S)
            assert [w.has.is_set() for w in queue[queue.index(waiting) + 1 :]].count(True) == 0
            current = waiting


def test_budget_permits_a_want_of_one_does_not_overtake_a_want_of_many() -> None:
    permits = ComputePermits(2)
    with holders(permits) as hold:
        small = hold("a")
        large = hold("a", 2)
        late = hold("a")
        assert large.is_waiting()
        assert late.is_waiting()
        small.release()
        assert large.has.wait(WAIT_S)
        assert large.granted == 2
        assert late.is_waiting()
        large.release()
        assert late.has.wait(WAIT_S)


def test_budget_permits_are_spare_while_most_are_free_and_nobody_waits() -> None:
    permits = ComputePermits(3)
    assert permits.has_spare
    with holders(permits) as hold:
        first = hold("a")
        assert permits.has_spare
        second = hold("b")
        assert not permits.has_spare, "a third is less than half"
        hold("c")
        waiting = hold("d")
        for each in (first, second, waiting):
            assert not permits.has_spare
            each.release()
        assert permits.has_spare
    one = ComputePermits(1)
    assert one.has_spare
    with one.hold("a"):
        assert not one.has_spare


def test_budget_permits_come_back_after_an_exception() -> None:
    permits = ComputePermits(2)
    for _ in range(3):
        with pytest.raises(KeyError), permits.hold("a", 2) as held:
            assert held == 2
            raise KeyError
    with permits.hold("a", 2) as held:
        assert held == 2


def test_budget_permits_a_freed_permit_wakes_the_next_at_once() -> None:
    permits = ComputePermits(1)
    with holders(permits) as hold:
        first = hold("a")
        second = hold("b")
        first.release()
        started = time.monotonic()
        assert second.has.wait(WAIT_S)
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_budget_permits_are_never_exceeded_under_hammering(size: int) -> None:
    permits = ComputePermits(size)
    lock = threading.Lock()
    running = most = rounds = 0
    wrong: list[str] = []

    def hammer(owner: str, seed: int) -> None:
        nonlocal running, most, rounds
        coin = random.Random(seed)
        for _ in range(100):
            want = coin.randint(1, size + 1)
            with permits.hold(owner, want) as held:
                with lock:
                    running += held
                    most = max(most, running)
                    rounds += 1
                if not 1 <= held <= min(want, size):
                    wrong.append(f"wanted {want}, held {held}")
                if coin.random() < 0.2:
                    time.sleep(0)
                with lock:
                    running -= held

    threads = [
        threading.Thread(target=hammer, args=(owner, seed))
        for seed, owner in enumerate(["a", "a", "a", "b", "b", "c", "d", "d"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a thread waits for ever"
    assert not wrong
    assert (running, rounds) == (0, 800)
    assert most <= size
    with permits.hold("a", size) as held:
        assert held >= 1
