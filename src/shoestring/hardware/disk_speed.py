"""How fast a file is read from its disk: what loading a model waits for.

A part of a file that is there already is read in order, past the page cache, until the time or the
size is used up::

    bytes/s = bytes read / seconds

Past the cache means ``O_DIRECT``; where the file system refuses that, the cached pages are dropped
first (``posix_fadvise``). Whether it worked is not taken on trust: the kernel counts what a process
fetches from storage (``read_bytes`` of ``/proc/self/io``), and where less came from there than was
read, the figure is of a cache, and is None. Nothing is written. A controller or a hypervisor may
have a cache of its own, which nobody sees from here: of a disk's first reading more is to be
believed than of a second.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.hardware.platforms import read_text

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1 << 20
BLOCK_BYTES = 8 * MEBIBYTE
LEAST_BYTES = 16 * MEBIBYTE
MOST_BYTES = 512 * MEBIBYTE
FETCHED = 0.95
"""Share of the bytes that storage must have given."""


@dataclass(frozen=True)
class DiskSpeed:
    """What was measured.

    Attributes:
        bytes_per_s: None where it cannot be told.
        missing: why not; None where it is known.
        read_bytes: that were read; None where nothing was.
        seconds: that it took, likewise.
        how: ``O_DIRECT`` or ``cache dropped``, likewise.
    """

    bytes_per_s: float | None
    missing: str | None
    read_bytes: int | None = None
    seconds: float | None = None
    how: str | None = None


def measure_disk_speed(
    path: Path,
    *,
    budget_s: float = 1.0,
    most_bytes: int = MOST_BYTES,
    root: Path = Path("/"),
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> DiskSpeed:
    """Measure the disk on which a file or folder lies.

    Args:
        path: a file of at least 16 MiB, or a folder, of which the largest file is taken.
        budget_s: after which no further block is read.
        most_bytes: to read.
        root: below which ``proc`` lies.
        clock_ns: nanoseconds of a clock that nobody sets.
    """
    try:
        file = _choose_file(path)
        if file is None:
            return DiskSpeed(
                None, f"{path}: no file of {LEAST_BYTES // MEBIBYTE} MiB or more to read there"
            )
        return _measure(file, budget_s, most_bytes, root, clock_ns)
    except OSError as error:
        return DiskSpeed(None, f"{path}: {error.strerror or error}")


def _choose_file(path: Path) -> Path | None:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    if largest is None or largest.stat().st_size < LEAST_BYTES:
        return None
    return largest


def _measure(
    file: Path, budget_s: float, most_bytes: int, root: Path, clock_ns: Callable[[], int]
) -> DiskSpeed:
    handle, how = _open(file)
    if handle is None:
        return DiskSpeed(None, f"{file}: {how}")
    try:
        before = _fetched_bytes(root)
        read_bytes, seconds = _read(handle, budget_s, most_bytes, clock_ns)
        after = _fetched_bytes(root)
    finally:
        os.close(handle)
    if before is None or after is None:
        missing = "the kernel does not say what came from the disk (/proc/self/io)"
    elif after - before < FETCHED * read_bytes:
        missing = f"{after - before} of {read_bytes} bytes came from a disk; the others were cached"
    else:
        return DiskSpeed(read_bytes / seconds, None, read_bytes, seconds, how)
    return DiskSpeed(None, f"{file}: {missing}", read_bytes, seconds, how)


def _open(file: Path) -> tuple[int | None, str]:
    """Open a file so that its reading passes the cache; return how, or None and why not."""
    if hasattr(os, "O_DIRECT"):
        try:
            return os.open(file, os.O_RDONLY | os.O_DIRECT), "O_DIRECT"
        except OSError:  # this file system has no such thing; what else is wrong shows below
            pass
    if not hasattr(os, "posix_fadvise"):
        return None, "this system can neither pass nor drop the page cache"
    handle = os.open(file, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    return handle, "cache dropped"


def _read(
    handle: int, budget_s: float, most_bytes: int, clock_ns: Callable[[], int]
) -> tuple[int, float]:
    """Read from the beginning; return bytes and seconds."""
    read_bytes = 0
    with mmap.mmap(-1, BLOCK_BYTES) as block:  # O_DIRECT wants memory in whole pages
        start_ns = clock_ns()
        while True:
            got = os.readv(handle, [block])
            read_bytes += got
            elapsed_s = (clock_ns() - start_ns) / 1e9
            if got < BLOCK_BYTES or elapsed_s >= budget_s or read_bytes >= most_bytes:
                return read_bytes, max(elapsed_s, 1e-9)


def _fetched_bytes(root: Path) -> int | None:
    """Return what storage gave to this process since it began."""
    for line in (read_text(root / "proc/self/io") or "").splitlines():
        key, _, value = line.partition(":")
        if key == "read_bytes":
            return int(value)
    return None
