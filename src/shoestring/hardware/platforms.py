"""Whose machine this is: Kaggle's, Colab's, a container or one's own; what it keeps, how long.

A notebook service lends a machine for a session. When the session ends, all is lost but one
folder; so it must be known where that folder is, and when the end comes::

    age of the session = seconds since boot now - those at which process 1 was started

Process 1 is the first of the service's container. Both moments are read from the same clock of
the kernel, which nobody sets, so a step of the wall clock moves no deadline.
The limits are those that the services publish: Kaggle 12 h (on TPUs 9 h, which is left out here),
Colab "at most 12 h", where an idle session may end much sooner.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = {"KAGGLE_KERNEL_RUN_TYPE": "kaggle", "COLAB_RELEASE_TAG": "colab"}
"""By which a notebook service shows itself."""
CONTAINER_MARKS = ("docker", "containerd", "kubepods", "libpod", "lxc")
HOUR_S = 3600.0
SESSION_LIMIT_S = {"kaggle": 12 * HOUR_S, "colab": 12 * HOUR_S}
START_FIELD = 19
"""``starttime`` in ``/proc/PID/stat``, counted from behind the name of the program."""


@dataclass(frozen=True)
class Platform:
    """Where a session runs, and what of it lasts.

    Attributes:
        name: ``kaggle``, ``colab``, ``container`` or ``local``.
        persistent: the folder that outlives the session; it may have to be made. None where there
            is none, or where nothing ends.
        persistent_missing: why there is none; None where there is one.
        inputs: read-only folders below which an earlier session's output may be attached.
        session_limit_s: how long a session may last; None without a limit.
        session_began_s: when it began, on the clock of ``time.monotonic``; None where unknown.
    """

    name: str
    persistent: Path | None
    persistent_missing: str | None
    inputs: tuple[Path, ...]
    session_limit_s: float | None
    session_began_s: float | None


def since_boot_s() -> float:
    """Return the seconds since the machine was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def detect_platform(
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    *,
    uptime_s: Callable[[], float] = since_boot_s,
) -> Platform:
    """Find out where this session runs. Nothing is made or written.

    Args:
        root: below which ``proc``, ``kaggle`` and ``content`` lie.
        environ: environment variables, by which Kaggle and Colab show themselves.
        uptime_s: seconds since boot, the clock of ``/proc/1/stat``.
    """
    name = platform_name(root, environ)
    limit_s = SESSION_LIMIT_S.get(name)
    persistent, missing = _persistent(name, root)
    inputs = root / "kaggle/input"
    age_s = _session_age_s(root, uptime_s(), limit_s) if limit_s is not None else None
    return Platform(
        name=name,
        persistent=persistent,
        persistent_missing=missing,
        inputs=(inputs,) if name == "kaggle" and inputs.is_dir() else (),
        session_limit_s=limit_s,
        session_began_s=None if age_s is None else time.monotonic() - age_s,
    )


def platform_name(root: Path, environ: Mapping[str, str]) -> str:
    """Name the platform by its variables, a container by the marks that it leaves in files."""
    for variable, name in VARIABLES.items():
        if variable in environ:
            return name
    marked = (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
    first_process = read_text(root / "proc/1/cgroup") or ""
    if marked or "container" in environ or any(mark in first_process for mark in CONTAINER_MARKS):
        return "container"
    return "local"


def _persistent(name: str, root: Path) -> tuple[Path | None, str | None]:
    """Return the folder that outlives the session, or why there is none."""
    if name == "kaggle":
        working = root / "kaggle/working"
        return (working, None) if working.is_dir() else (None, f"{working} is not there")
    if name == "colab":
        drive = root / "content/drive/MyDrive"
        if drive.is_dir():
            return drive / "shoestring", None
        return None, "Drive is not mounted: google.colab.drive.mount('/content/drive')"
    return None, "a session here has no end: what is written stays where it is"


def _session_age_s(root: Path, uptime_s: float, limit_s: float) -> float | None:
    """Return how long ago process 1 was started; None where that does not tell the session's age.

    A session that is older than its limit would be over: then process 1 is not of this session.
    """
    stat = read_text(root / "proc/1/stat")
    # The name of the program stands in brackets and may hold anything, brackets too.
    fields = (stat or "").rpartition(")")[2].split()
    if len(fields) <= START_FIELD:
        return None
    age_s = uptime_s - int(fields[START_FIELD]) / os.sysconf("SC_CLK_TCK")
    return age_s if 0 <= age_s <= limit_s else None


def read_text(path: Path) -> str | None:
    """Return a text file, or None where it is not there or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
