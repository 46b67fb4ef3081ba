from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat import measure
from sprat.errors import InvalidInput

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50)

X86 = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu avx avx2 fma made_up hypervisor

processor\t: 1
model name\t: Another CPU
"""

ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
"""

STATUS = "Name:\tsprat\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)


# Summaries


@given(VALUES)
def test_measure_percentiles_are_those_of_numpy(values: list[float]) -> None:
    found = measure.percentiles(values)
    expected = np.percentile(values, [50, 95, 99])
    assert [found.p50, found.p95, found.p99] == expected.tolist()


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_measure_percentiles_are_interpolated(values: list[float]) -> None:
    found = measure.percentiles(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert [found.p50, found.p95, found.p99] == pytest.approx([cuts[49], cuts[94], cuts[98]])


def test_measure_percentiles_of_one_value() -> None:
    assert measure.percentiles([7.0]) == measure.Percentiles(7.0, 7.0, 7.0)


@pytest.mark.parametrize("summarize", [measure.percentiles, measure.median])
def test_measure_refuses_to_summarize_nothing(summarize: Any) -> None:
    with pytest.raises(InvalidInput, match="values: expected 1 or more, got none"):
        summarize([])


@given(VALUES)
def test_measure_median_lies_among_the_values(values: list[float]) -> None:
    assert min(values) <= measure.median(values) <= max(values)


# CPU time


def test_measure_cpu_seconds_grow_with_work() -> None:
    before = measure.cpu_seconds()
    sum(i * i for i in range(300_000))
    after = measure.cpu_seconds()
    assert before is not None
    assert after is not None
    assert after > before


def test_measure_cpu_seconds_of_another_process() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert measure.cpu_seconds(child.pid) == pytest.approx(0.3, abs=0.1)


def test_measure_cpu_seconds_survive_a_strange_program_name(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    rest = " ".join(["S", *["0"] * 10, str(3 * ticks), str(2 * ticks), "0", "0"])
    write(tmp_path / "77" / "stat", f"77 (a) b (c) {rest}\n")
    assert measure.cpu_seconds(77, proc=tmp_path) == 5.0


def test_measure_cpu_seconds_fall_back_to_psutil(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    found = measure.cpu_seconds(os.getpid(), proc=tmp_path)
    assert found is not None
    assert found > 0


def test_measure_facts_of_no_process_are_none(tmp_path: Path) -> None:
    # No process has the largest number: it is above the kernel's limit.
    assert measure.cpu_seconds(2**31 - 1, proc=tmp_path) is None
    assert measure.memory(2**31 - 1, proc=tmp_path) is None


def test_measure_facts_are_none_without_procfs_and_psutil(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_psutil(monkeypatch)
    assert measure.cpu_seconds(os.getpid(), proc=tmp_path) is None
    assert measure.memory(proc=tmp_path) is None


def test_measure_imports_without_psutil() -> None:
    code = "import sys; sys.modules['psutil'] = None; import sprat.measure"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_measure_machine_cpu_seconds_include_our_own() -> None:
    machine, own = measure.machine_cpu_seconds(), measure.cpu_seconds()
    assert machine is not None
    assert own is not None
    assert machine > own > 0


def test_measure_machine_cpu_seconds_leave_out_idle_time(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    parts = [ticks * part for part in (1, 2, 4, 1000, 1000, 8, 16, 32, 1000, 1000)]
    write(tmp_path / "stat", f"cpu  {' '.join(map(str, parts))}\ncpu0 1 1 1 1\n")
    assert measure.machine_cpu_seconds(proc=tmp_path) == 63.0


def test_measure_machine_cpu_seconds_without_procfs(tmp_path: Path) -> None:
    assert measure.machine_cpu_seconds(proc=tmp_path) is None


# Memory


def test_measure_memory_of_this_process() -> None:
    found = measure.memory()
    assert found is not None
    assert found.peak is not None
    assert 10e6 < found.resident <= found.peak


def test_measure_memory_is_in_bytes(tmp_path: Path) -> None:
    write(tmp_path / "77" / "status", STATUS)
    assert measure.memory(77, proc=tmp_path) == measure.Memory(1024 * 1024, 2048 * 1024)


def test_measure_memory_of_an_ended_process_is_none(tmp_path: Path) -> None:
    write(tmp_path / "77" / "status", "Name:\tsprat\nState:\tZ (zombie)\n")
    assert measure.memory(77, proc=tmp_path) is None


def test_measure_memory_falls_back_to_psutil(tmp_path: Path) -> None:
    pytest.importorskip("psutil")
    found = measure.memory(proc=tmp_path)
    assert found is not None
    assert found.resident > 10e6
    assert found.peak is None


def test_measure_cgroup_memory_version_2(tmp_path: Path) -> None:
    write(tmp_path / "proc/77/cgroup", "0::/box/a\n")
    write(tmp_path / "sys/fs/cgroup/box/a/memory.current", "12345\n")
    assert measure.cgroup_memory(77, root=tmp_path) == 12345


def test_measure_cgroup_memory_version_1(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/box\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/memory/box/memory.usage_in_bytes", "777\n")
    assert measure.cgroup_memory(root=tmp_path) == 777


@pytest.mark.parametrize("lines", [None, "0::/\n", "3:cpuset:/\n"])
def test_measure_cgroup_memory_outside_of_a_group(tmp_path: Path, lines: str | None) -> None:
    if lines is not None:
        write(tmp_path / "proc/self/cgroup", lines)
    assert measure.cgroup_memory(root=tmp_path) is None


# The machine


def test_measure_machine_of_this_machine_is_json_without_its_name() -> None:
    facts = measure.machine()
    text = json.dumps(facts)
    assert facts["cpu"]
    assert facts["threads"] >= 1
    name = platform.node()
    # A short name may be part of a word.
    assert len(name) < 6 or name not in text


def test_measure_machine_names_cpu_and_flags(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", X86)
    write(tmp_path / "proc/meminfo", "MemTotal:       2000000 kB\nMemFree: 1 kB\n")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    facts = measure.machine(root=tmp_path)
    assert facts["cpu"] == "Some CPU @ 2.00GHz"
    assert facts["flags"] == ["avx", "avx2", "fma", "hypervisor"]
    assert facts["memory_mb"] == 2048
    assert facts["governor"] == "powersave"


def test_measure_machine_knows_the_flags_of_arm(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", ARM)
    facts = measure.machine(root=tmp_path)
    assert facts["cpu"]
    assert facts["flags"] == ["asimd", "asimddp", "i8mm"]


def test_measure_machine_without_procfs(tmp_path: Path) -> None:
    facts = measure.machine(root=tmp_path)
    assert facts["cpu"]
    assert facts["flags"] == []
    assert facts["memory_mb"] is None
    assert facts["governor"] is None


def test_measure_versions_leave_out_what_is_not_installed() -> None:
    found = measure.versions(("numpy", "no-such-package-of-ours"))
    assert found == {"numpy": np.__version__}


# The commit


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    write(tmp_path / "code.py", "1\n")
    write(tmp_path / "results/a.json", "1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_measure_commit_of_a_clean_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert measure.commit(checkout) == head[:12]
    write(checkout / "untracked.py", "1\n")
    assert measure.commit(checkout) == head[:12]


def test_measure_commit_tells_changes(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")[:12]
    write(checkout / "results/a.json", "2\n")
    assert measure.commit(checkout, exclude=["results"]) == head
    assert measure.commit(checkout) == f"{head}+changes"
    write(checkout / "code.py", "2\n")
    assert measure.commit(checkout, exclude=["results"]) == f"{head}+changes"


def test_measure_commit_is_that_of_the_folder_itself(checkout: Path) -> None:
    # An installed package may lie below a checkout that has nothing to do with it.
    assert measure.commit(checkout / "results") is None


def test_measure_commit_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert measure.commit(tmp_path) is None


def test_measure_commit_outside_of_a_checkout_or_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert measure.commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure.commit(tmp_path) is None
