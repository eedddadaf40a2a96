"""What the control groups of Linux leave to this process, in versions 1 and 2.

``/proc/self/cgroup`` names the group, one line a hierarchy: ``NUMBER:CONTROLLERS:PATH``, where
version 2 has number 0 and no controllers. A limit of any group above holds as well, so all are
read up to the mount. In a container the path may be the host's; then only the mount is found,
and that is the container's own group.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

MOUNT = Path("sys/fs/cgroup")
NO_LIMIT_BYTES = 1 << 60  # version 1 says "none" by a number near 2**63


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the tightest memory limit, or None where there is none."""
    limits = [_bytes(t) for t in _read_all(root, "memory.max", "memory", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_limit_cores(root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time the tightest quota allows, or None without one."""
    limits = [_ratio(text) for text in _read_all(root, "cpu.max", "cpu", "cpu.cfs_quota_us")]
    return min((limit for limit in limits if limit is not None), default=None)


def _read_all(root: Path, file_v2: str, controller: str, file_v1: str) -> list[str]:
    """Read a limit's file in each group from ours up to the mount."""
    texts = []
    for folder in groups(root, controller):
        for name in (file_v2, file_v1):
            try:
                text = (folder / name).read_text().strip()
                if name == "cpu.cfs_quota_us":
                    text += " " + (folder / "cpu.cfs_period_us").read_text().strip()
            except OSError:  # most groups do not have most files
                continue
            texts.append(text)
    return texts


def groups(root: Path, controller: str) -> list[Path]:
    """List the folders of the groups that hold this process, for one controller."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no control groups here
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = [root / MOUNT, root / MOUNT / "unified"]
        elif controller in controllers.split(","):
            mounts = [root / MOUNT / controllers, root / MOUNT / controller]
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        folders += [mount / above for mount in mounts for above in (group, *group.parents)]
    return list(dict.fromkeys(folders))


def _bytes(text: str) -> int | None:
    if text == "max" or int(text) >= NO_LIMIT_BYTES:
        return None
    return int(text)


def _ratio(text: str) -> float | None:
    """Turn ``QUOTA PERIOD`` (microseconds) into cores; ``max`` or -1 is no quota."""
    quota, period = text.split()
    if quota == "max" or int(quota) < 0:
        return None
    return int(quota) / int(period)
