"""How many cores this process may use, of those that the machine has.

A container or a notebook service lends a part of a machine: some cores only (the affinity mask),
or some time of them only (the quota of a control group). Both hold::

    lent = min(cores in the affinity mask, quota / period)

A quota may be a fraction of a core. For a number of threads it is rounded down: one thread more
than the quota pays for is stopped in the middle of each period, and all others wait for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from shoestring.hardware.cgroups import cpu_limit_cores

STATUS = Path("proc/self/status")


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many threads this process can keep busy; at least 1.

    Args:
        root: below which ``proc`` and ``sys`` lie.
    """
    return max(1, int(lent_cores(root, _known_cores()) or 1))


def lent_cores(root: Path, logical: int | None) -> float | None:
    """Return how many cores' worth of time this process may use.

    Args:
        root: below which ``proc`` and ``sys`` lie.
        logical: cores of the machine, for where the kernel shows no affinity mask.

    Returns:
        Cores, a fraction where a quota says so; None where nothing is known.
    """
    limits = [float(n) for n in (_allowed_cores(root) or logical, cpu_limit_cores(root)) if n]
    return min(limits, default=None)


def _known_cores() -> int | None:
    """Count the cores by system calls, which also work where there is no ``/proc``."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _allowed_cores(root: Path) -> int | None:
    """Count the cores of the affinity mask, written like ``0-3,8``."""
    try:
        status = (root / STATUS).read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return None
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list":
            ranges = [part.split("-") for part in value.strip().split(",")]
            return sum(int(bounds[-1]) - int(bounds[0]) + 1 for bounds in ranges)
    return None
