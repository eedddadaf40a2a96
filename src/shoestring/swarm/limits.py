"""Caps on a worker's memory, processor time and processes, by control groups of our own.

A group is made below the agent's own one (in version 2 also beside it, for there a group with
processes may not hand controllers down), is named by its agent, and is removed after its worker.
What an agent that was killed left behind is removed by the next one: only groups named as ours,
whose agent is gone, and that are empty, for the kernel removes no others.

Version 1: ``Documentation/admin-guide/cgroup-v1``; version 2: ``.../cgroup-v2.rst`` of Linux.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shoestring.hardware.cgroups import groups
from shoestring.hardware.platforms import START_FIELD, read_text

PREFIX = "shoestring-worker"
PERIOD_US = 100_000
_numbers = itertools.count()


@dataclass(frozen=True)
class Wanted:
    """What a worker may use.

    Attributes:
        memory_bytes: resident and cached; None: no limit.
        cores: processor time, in cores; None: no limit.
        processes: threads included.
    """

    memory_bytes: int | None
    cores: float | None
    processes: int


class Group:
    """Control groups of one worker, one a hierarchy.

    Args:
        wanted: the limits.
        root: below which ``proc`` and ``sys`` lie.

    Attributes:
        holds: ``memory``, ``cpu`` and ``pids``, where the limit holds, with the kind.
        lacks: where it does not, with the reason.
    """

    def __init__(self, wanted: Wanted, root: Path = Path("/")) -> None:
        remove_leftovers(root)
        self.holds: dict[str, str] = {}
        self.lacks: dict[str, str] = {}
        self._folders: dict[str, Path] = {}
        name = f"{PREFIX}-{_owner(os.getpid(), root)}-{next(_numbers)}"
        for controller, values in _values(wanted).items():
            self._limit(controller, values, name, root)

    def add(self, pid: int) -> None:
        """Move a process into all of them; what it starts later is born there.

        Raises:
            OSError: the kernel refuses.
        """
        for folder in dict.fromkeys(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int | None:
        """Return how many processes the memory limit has ended, or None where it is not told."""
        folder = self._folders.get("memory")
        if folder is None:
            return None
        for name in ("memory.events", "memory.oom_control"):
            for line in (read_text(folder / name) or "").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return None

    def remove(self) -> None:
        """Remove them; one that still has processes stays for the next agent."""
        for folder in dict.fromkeys(self._folders.values()):
            _remove(folder)
        self._folders.clear()

    def _limit(
        self, controller: str, values: dict[str, dict[str, str]], name: str, root: Path
    ) -> None:
        """Make the first group that takes the limit."""
        reason = f"no control group with {controller} here"
        for parent, version in _parents(root, controller):
            folder = parent / name
            try:
                if version == "v2":
                    _hand_down(parent, controller)
                folder.mkdir(exist_ok=True)
                for file, value in values[version].items():
                    _set(folder / file, value)
            except OSError as error:
                reason = f"{parent}: {error.strerror}"
                if folder not in self._folders.values():
                    _remove(folder)
                continue
            self._folders[controller] = folder
            self.holds[controller] = f"cgroup {version}"
            return
        self.lacks[controller] = reason


def remove_leftovers(root: Path = Path("/")) -> None:
    """Remove the empty groups of agents that are gone."""
    for controller in ("memory", "cpu", "pids"):
        for parent, _ in _parents(root, controller):
            for folder in parent.glob(f"{PREFIX}-*"):
                pid = folder.name.removeprefix(f"{PREFIX}-").split("-")[0]
                alive = pid.isdigit() and folder.name.startswith(
                    f"{PREFIX}-{_owner(int(pid), root)}-"
                )
                if not alive:
                    _remove(folder)


def _values(wanted: Wanted) -> dict[str, dict[str, dict[str, str]]]:
    """Return controller, version, file and value; a leading ``?`` marks files that may lack."""
    values = {"pids": {v: {"pids.max": str(wanted.processes)} for v in ("v1", "v2")}}
    if wanted.memory_bytes is not None:
        size = str(wanted.memory_bytes)
        values["memory"] = {
            "v1": {"memory.limit_in_bytes": size, "?memory.memsw.limit_in_bytes": size},
            "v2": {"memory.max": size, "?memory.swap.max": "0", "memory.oom.group": "1"},
        }
    if wanted.cores is not None:
        quota = str(max(1000, round(wanted.cores * PERIOD_US)))
        values["cpu"] = {
            "v1": {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota},
            "v2": {"cpu.max": f"{quota} {PERIOD_US}"},
        }
    return values


def _parents(root: Path, controller: str) -> list[tuple[Path, str]]:
    """List the groups below which one of ours may be made, and their version."""
    found = []
    for folder in groups(root, controller):
        offered = read_text(folder / "cgroup.controllers")
        if offered is not None and controller in offered.split():
            found.append((folder, "v2"))
        elif offered is None and (folder / "cgroup.procs").exists():
            found.append((folder, "v1"))
    if found and found[0][1] == "v1":
        return found[:1]
    return [(folder, version) for folder, version in found if version == "v2"][:2]


def _hand_down(parent: Path, controller: str) -> None:
    """Let the groups below a group of version 2 have a controller."""
    if controller not in (read_text(parent / "cgroup.subtree_control") or "").split():
        (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _set(file: Path, value: str) -> None:
    if file.name.startswith("?"):
        file = file.with_name(file.name[1:])
        if not file.exists():  # a kernel that does not count swap
            return
    with file.open("r+") as limit:  # never made: where it is missing the limit would not hold
        limit.write(value)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # it was never made, or still has processes
        folder.rmdir()


def _owner(pid: int, root: Path) -> str | None:
    """Name a process so that no later one has the same name; None: it is gone."""
    stat = read_text(root / f"proc/{pid}/stat")
    if stat is None:
        return None
    return f"{pid}-{stat.rpartition(')')[2].split()[START_FIELD]}"
