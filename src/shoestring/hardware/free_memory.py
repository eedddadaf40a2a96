"""How much memory can be taken now, within the limits of a container.

::

    free = min(MemAvailable, limit - (in use - idle cached files))    over our group and all above

``MemAvailable`` is the kernel's estimate of what can be had without swapping. A control group's
use counts cached files, too; those that nobody read of late are given back when memory is wanted,
so they are free. (Version 2 names the files ``memory.max``, ``memory.current``; version 1
``memory.limit_in_bytes``, ``memory.usage_in_bytes``; both have ``memory.stat``.)
"""

from __future__ import annotations

from pathlib import Path

from shoestring.hardware.cgroups import groups
from shoestring.hardware.platforms import read_text

FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, use, and the line of idle cached files in ``memory.stat``, by version."""


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return what a process may take now; None where the system does not say.

    Args:
        root: below which ``proc`` and ``sys`` lie.
    """
    available_bytes = _available_bytes(root)
    if available_bytes is None:
        return None
    left = (_left_bytes(folder) for folder in groups(root, "memory"))
    return min((available_bytes, *(size for size in left if size is not None)))


def _available_bytes(root: Path) -> int | None:
    if not (root / "proc").exists():
        import psutil  # systems without /proc

        return int(psutil.virtual_memory().available)
    kib = _line(read_text(root / "proc/meminfo"), "MemAvailable:")
    return None if kib is None else kib * 1024


def _left_bytes(folder: Path) -> int | None:
    """Return what a group's limit leaves; None without one (2**63 or so bounds nothing)."""
    for limit_file, use_file, idle in FILES:
        limit, used = _number(folder / limit_file), _number(folder / use_file)
        if limit is None:
            continue
        if used is None:  # the limit itself is all that is known
            return limit
        idle_bytes = _line(read_text(folder / "memory.stat"), idle) or 0
        return max(0, limit - max(0, used - idle_bytes))
    return None


def _number(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _line(text: str | None, key: str) -> int | None:
    """Return the number behind a key at the beginning of a line."""
    for line in (text or "").splitlines():
        words = line.split()
        if words[:1] == [key] and len(words) > 1 and words[1].isdecimal():
            return int(words[1])
    return None
