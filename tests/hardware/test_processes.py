import os
import subprocess
import sys
from collections import namedtuple

import psutil
import pytest

from shoestring.hardware.host import Host
from shoestring.hardware.probes import Probes
from shoestring.hardware.processes import (
    ProcessTree,
    peak_resident_bytes,
    sees_all_processes,
)


def test_a_process_that_never_was_has_no_figures():
    """A pid that nobody has is read as nothing, without an error."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(30)
    assert ProcessTree(process.pid).read() is None
    assert peak_resident_bytes(process.pid) is None


@pytest.mark.parametrize(
    ("namespace", "all_seen"),
    [("pid:[4026531836]", True), ("pid:[4026532561]", False), (None, False)],
)
def test_the_numbers_of_a_container_are_not_the_drivers(tmp_path, namespace, all_seen):
    """The first namespace is known by its number; a system that names none is not trusted."""
    (tmp_path / "self" / "ns").mkdir(parents=True)
    if namespace is not None:
        (tmp_path / "self" / "ns" / "pid").symlink_to(namespace)
    assert sees_all_processes(tmp_path) is all_seen


def write_process(proc, pid: int, *, major_faults: int, status: str) -> None:
    """Write a process as Linux shows it, with a name that is hard to read."""
    for name in (str(pid), "self"):
        (proc / name).mkdir(exist_ok=True)
        fields = ["S", *range(1, 9), major_faults, *range(10, 50)]
        line = f"{pid} (a) b ( 1) {' '.join(map(str, fields))}\n"
        (proc / name / "stat").write_text(line)
        (proc / name / "status").write_text(status)


def test_major_faults_are_counted_between_readings_and_swap_is_summed(tmp_path):
    """Faults are a difference, swap is a state; a name with brackets does not shift the fields."""
    pid = os.getpid()
    tree = ProcessTree(pid, tmp_path)
    write_process(tmp_path, pid, major_faults=100, status="VmSwap:\t  12 kB\n")
    first = tree.paging()
    write_process(tmp_path, pid, major_faults=140, status="VmSwap:\t  8 kB\n")
    second = tree.paging()
    assert (first.major_faults, first.swap_bytes) == (0, 12 * 1024)
    assert (second.major_faults, second.swap_bytes) == (40, 8 * 1024)


def test_swap_that_the_kernel_does_not_tell_is_none(tmp_path):
    """A sandbox writes fewer lines; a missing one is no 0."""
    write_process(tmp_path, os.getpid(), major_faults=0, status="VmRSS:\t 1 kB\n")
    assert ProcessTree(os.getpid(), tmp_path).paging().swap_bytes is None


def test_without_the_table_of_linux_paging_is_refused(tmp_path):
    """Other systems count it elsewhere, and say so."""
    with pytest.raises(RuntimeError, match="only Linux"):
        ProcessTree(os.getpid(), tmp_path).paging()


@pytest.mark.parametrize(
    ("stolen", "steal_percent"), [({"steal": 0.0}, 25.0), ({}, None)], ids=["told", "not told"]
)
def test_stolen_time_is_a_share_of_all_time(monkeypatch, stolen, steal_percent):
    """A quarter stolen and half idle is half busy; a system that does not count it gives None."""
    times = namedtuple("times", ["user", "idle", *stolen])  # noqa: PYI024 - fields vary
    before, now = times(0.0, 0.0, *stolen.values()), times(1.0, 2.0, *(1.0 for _ in stolen))
    readings = iter([before, now])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    probes = Probes()
    sample = Host(probes).read()
    assert sample["steal_percent"] == steal_percent
    assert sample["cpu_percent"] == (50.0 if stolen else 33.3)
    assert ("steal_percent" in probes.unavailable) == (steal_percent is None)
