"""Memory, processor time and paging of one process and all its descendants.

An engine may be a tree (Ollama starts a runner), so the whole tree is summed. To walk the tree is
the dear part, since every process of the machine is looked at (about 14 µs each): it is done when
:meth:`ProcessTree.rescan` is called, 1 Hz in telemetry. To read a process that is already known
costs 25 µs with warm caches and 250 µs after a sleep.

``resident_bytes`` is the sum of the resident sets; pages shared between processes of the tree
count in each. Processor time comes in ticks of 10 ms: at 10 Hz a percentage has steps of 10.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC = Path("/proc")
FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of Linux; all others are numbered anew
MAJOR_FAULTS = 9  # place in /proc/PID/stat, counted from the field after the name
Gone = (psutil.NoSuchProcess, psutil.AccessDenied)


@dataclass(frozen=True)
class TreeUse:
    """What a process tree uses at one moment.

    Attributes:
        processes: how many live.
        resident_bytes: sum over them.
        cpu_s: processor time since the call before, of the processes seen at both calls.
    """

    processes: int
    resident_bytes: int
    cpu_s: float


@dataclass(frozen=True)
class TreePaging:
    """What the kernel fetched from disks for a process tree, and what it put away.

    Attributes:
        major_faults: pages since the call before, of the processes seen at both calls.
        swap_bytes: sum over the processes; None where the kernel does not say.
    """

    major_faults: int
    swap_bytes: int | None


class ProcessTree:
    """A process and its descendants. Those that have ended are dropped without a fuss.

    Args:
        pid: of the root.
        proc: Linux's table of processes.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self.pid = pid
        self._proc = proc
        self._major_faults: dict[int, int] = {}
        self._members: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self.rescan()

    @property
    def pids(self) -> frozenset[int]:
        """Those that lived at the last look; none once the root has ended."""
        return frozenset(self._members) if self.pid in self._members else frozenset()

    def rescan(self) -> None:
        """Look for descendants again."""
        try:
            root = self._members.get(self.pid) or psutil.Process(self.pid)
            found = [root, *root.children(recursive=True)]
        except Gone:
            found = []  # the root has ended; orphans are nobody's tree any more
        known = self._members
        self._members = {p.pid: known[p.pid] if known.get(p.pid) == p else p for p in found}
        self._cpu_s = {pid: used for pid, used in self._cpu_s.items() if pid in self._members}
        self._major_faults = {p: n for p, n in self._major_faults.items() if p in self._members}

    def read(self) -> TreeUse | None:
        """Return what the tree uses now; None once the root has ended."""
        resident_bytes, cpu_s = 0, 0.0
        for pid, process in list(self._members.items()):
            try:
                own_bytes, times = process.memory_info().rss, process.cpu_times()
            except Gone:
                own_bytes = 0
            if own_bytes == 0:  # ended; a zombie holds no memory either
                del self._members[pid]
                self._cpu_s.pop(pid, None)
                continue
            used_s = times.user + times.system
            cpu_s += used_s - self._cpu_s.get(pid, used_s)
            self._cpu_s[pid] = used_s
            resident_bytes += own_bytes
        if self.pid not in self._members:
            return None
        return TreeUse(len(self._members), resident_bytes, cpu_s)

    def paging(self) -> TreePaging:
        """Return what was paged. Processes that have ended meanwhile are left out.

        Raises:
            RuntimeError: this system has no ``/proc`` of Linux's kind.
        """
        if not (self._proc / "self" / "stat").exists():
            raise RuntimeError("only Linux counts it by process")
        faults, swapped = 0, []
        for pid in self.pids:
            count = _major_faults(self._proc / str(pid))
            if count is None:  # ended
                continue
            faults += count - self._major_faults.get(pid, count)
            self._major_faults[pid] = count
            swapped.append(_status_bytes(self._proc / str(pid), "VmSwap"))
        known = [size for size in swapped if size is not None]
        return TreePaging(faults, sum(known) if known else None)


def sees_all_processes(proc: Path = PROC) -> bool:
    """Whether our processes have the numbers that a driver knows them by; in a container not."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()) == FIRST_PID_NAMESPACE
    except OSError:  # no Linux
        return False


def peak_resident_bytes(pid: int) -> int | None:
    """Return the largest resident set that a process ever had, as the kernel kept it (VmHWM).

    None where the kernel does not say, or the process has ended.
    """
    return _status_bytes(PROC / str(pid), "VmHWM")


def _status_bytes(process: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in (process / "status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return None


def _major_faults(process: Path) -> int | None:
    """Return how many pages a process has ever waited for; None once it has ended."""
    try:
        stat = (process / "stat").read_text()
    except OSError:
        return None
    # The second field is the name in brackets, and a name may hold blanks and brackets.
    return int(stat.rpartition(")")[2].split()[MAJOR_FAULTS])
