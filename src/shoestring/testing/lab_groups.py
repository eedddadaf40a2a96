"""Caps of memory and processor time for a lab's processes, by control groups of version 1 or 2.

A lab's groups are ``shoestring-lab-PID/HOST/NUMBER`` below our own group, or the nearest one above
in which we may make groups that have the controller: NUMBER is one process that was started, with
its children. Caps of the host stand at HOST.

Where no group can be had, memory is capped by the resource limit of private writable memory
(RLIMIT_DATA) of each process: an allocation beyond it fails, where a group would kill. There is
nothing like it for a share of the processor.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import ShoestringError
from shoestring.hardware.cgroups import groups
from shoestring.testing.faults import NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "shoestring-lab-"
MEMORY, CPU = "memory", "cpu"
FILES_V1 = {MEMORY: "memory.limit_in_bytes", CPU: "cpu.cfs_quota_us"}
ENABLED_V2 = "cgroup.subtree_control"
MEMBERS = "cgroup.procs"
PERIOD_US, LEAST_QUOTA_US = 10_000, 1_000
"""A short period: the process is slowed, not stopped for a tenth of a second. 1 ms is the least
quota that the kernel takes."""
PATIENCE_S, POLL_S = 10.0, 0.01


@dataclass(frozen=True)
class Place:
    """Where groups of ours can be made.

    Attributes:
        folder: the group above ours.
        version: of control groups.
    """

    folder: Path
    version: int


def find_places(root: Path = Path("/")) -> dict[str, Place]:
    """Return the place for each controller that can be had; with version 2 it is one and the same.

    Args:
        root: of the file system.
    """
    places: dict[str, Place] = {}
    for controller, file in FILES_V1.items():
        for folder in groups(root, controller):
            if not os.access(folder, os.W_OK):
                continue
            if (folder / file).exists() and not (folder / ENABLED_V2).exists():
                places[controller] = Place(folder, 1)
                break
            if controller in _words(folder / ENABLED_V2) and places.get(
                MEMORY, Place(folder, 2)
            ) == Place(folder, 2):
                places[controller] = Place(folder, 2)
                break
    return places


class Groups:
    """The groups of one lab.

    Args:
        number: the lab's, its keeper's process id.
        places: from :func:`find_places`.
    """

    def __init__(self, number: int, places: Mapping[str, Place]) -> None:
        self._name = f"{PREFIX}{number}"
        self._places = places

    def caps_by(self) -> dict[str, str | None]:
        """Say by what each cap is kept; None: it cannot be."""
        by: dict[str, str | None] = {MEMORY: "RLIMIT_DATA", CPU: None}
        return by | {name: f"cgroup v{one.version}" for name, one in self._places.items()}

    def make(self, path: str, memory_bytes: int | None, cpu_share: float | None) -> dict[str, Path]:
        """Make a group with these caps, below those of the host if it has any.

        Args:
            path: ``HOST`` or ``HOST/NUMBER``.
            memory_bytes: None: no cap of its own.
            cpu_share: likewise, in cores.

        Returns:
            The group's folder for each controller.

        Raises:
            NotAllowedError: processor time shall be capped and cannot, or the kernel refuses.
        """
        if cpu_share is not None and CPU not in self._places:
            raise NotAllowedError(
                f"cpu_share {cpu_share:g}: no control group lets us cap processor time; be root, "
                "or have the cpu controller delegated"
            )
        folders = {c: one.folder / self._name / path for c, one in self._places.items()}
        try:
            for controller, place in self._places.items():
                folders[controller].mkdir(parents=True, exist_ok=True)
                if place.version == 2:  # noqa: PLR2004
                    _enable(place, folders[controller].parent, list(self._places))
            if memory_bytes is not None and MEMORY in folders:
                _cap_memory(folders[MEMORY], self._places[MEMORY].version, memory_bytes)
            if cpu_share is not None:
                _cap_cpu(folders[CPU], self._places[CPU].version, cpu_share)
        except OSError as error:
            raise NotAllowedError(
                f"{error.filename} cannot be set for memory {memory_bytes}, cpu_share {cpu_share}: "
                f"{error.strerror}; a group above may have less"
            ) from error
        return folders

    def entry(self, folders: Mapping[str, Path], memory_bytes: int | None) -> Callable[[], None]:
        """Return what a child calls to be in a group; it opens and writes files, no more."""
        files = [folder / MEMBERS for folder in dict.fromkeys(folders.values())]
        limit_bytes = memory_bytes if MEMORY not in folders else None

        def enter() -> None:
            for file in files:
                file.write_text("0")
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

        return enter


def remove_empty(folders: Mapping[str, Path]) -> None:
    """Remove a group whose process has ended."""
    for folder in dict.fromkeys(folders.values()):
        with suppress(OSError):  # it still holds children of the process: goes with the lab
            folder.rmdir()


def remove_groups(places: Mapping[str, Place]) -> None:
    """Remove the groups of all labs whose keeper is gone, and of this process.

    Raises:
        ShoestringError: processes are still there after ten seconds.
    """
    for place in set(places.values()):
        for folder in place.folder.glob(f"{PREFIX}*"):
            number = folder.name.removeprefix(PREFIX)
            if number == str(os.getpid()) or not Path("/proc", number).exists():
                _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    """Remove a group and those below it, when the kernel has ended their last processes."""
    deadline_s = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for one in (*inner, folder):
        while True:
            try:
                one.rmdir()
            except FileNotFoundError:  # another one of us was faster
                break
            except OSError as error:  # version 1 tells nobody when a group is empty
                if time.monotonic() > deadline_s:
                    raise ShoestringError(
                        f"control group {one} is still in use: {_words(one / MEMBERS)}"
                    ) from error
                pause.wait(POLL_S)
            else:
                break


def _words(file: Path) -> list[str]:
    """Return what a file of the kernel's lists; nothing where there is no such file."""
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []


def _enable(place: Place, parent: Path, controllers: list[str]) -> None:
    """Let the groups between the place and a new one have the controllers."""
    above = [one for one in (parent, *parent.parents) if place.folder in one.parents]
    for folder in reversed(above):
        (folder / ENABLED_V2).write_text(" ".join(f"+{name}" for name in controllers))


def _cap_memory(folder: Path, version: int, limit_bytes: int) -> None:
    if version == 1:
        (folder / FILES_V1[MEMORY]).write_text(str(limit_bytes))
        swap, swap_bytes = folder / "memory.memsw.limit_in_bytes", limit_bytes  # both together
    else:
        (folder / "memory.max").write_text(str(limit_bytes))
        swap, swap_bytes = folder / "memory.swap.max", 0
    if swap.exists():  # kernels without accounting of swap have none
        swap.write_text(str(swap_bytes))


def _cap_cpu(folder: Path, version: int, share: float) -> None:
    quota_us = max(LEAST_QUOTA_US, round(share * PERIOD_US))
    period_us = round(quota_us / share)
    if version == 1:
        (folder / "cpu.cfs_period_us").write_text(str(period_us))
        (folder / FILES_V1[CPU]).write_text(str(quota_us))
    else:
        (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
