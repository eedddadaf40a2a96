"""Memory and processor time of one process and all its descendants.

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


class ProcessTree:
    """A process and its descendants. Those that have ended are dropped without a fuss."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._members: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self.rescan()

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


def peak_resident_bytes(pid: int) -> int | None:
    """Return the largest resident set that a process ever had, as the kernel kept it (VmHWM).

    None where the kernel does not say, or the process has ended.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "VmHWM":
                return int(value.split()[0]) * 1024
    return None
