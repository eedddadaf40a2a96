"""How fast memory is read by all cores together: what decoding on a processor waits for.

To make a token the engine reads every weight once, and they do not fit into the caches. So each
thread runs over a part of its own of a buffer that is far larger than the last-level cache, again
and again::

    bytes/s = bytes of all parts / (last thread's end - common start)

- threads: the cores that we may use (affinity and quota), as the engine would be given;
- buffer: 4 times the last-level caches (``/sys``; 512 MiB where they are not known), at least
  256 MiB and at most 2 GiB, and never more than an eighth of what is free. Below twice the caches
  the figure flatters, and ``how`` says so;
- work: numpy's maximum of 32-bit integers, which computes next to nothing (over 1 MiB in a cache
  one Xeon core made 73 GB/s, over memory 14) and releases Python's lock. Each thread writes its
  part first, so that it lies near.

Copying and STREAM's triad stand beside it for comparison. Numpy makes the triad in two passes
(``a = s * c``; ``a += b``), and all bytes of both are counted: 2 + 3 a element, where STREAM in C
counts 3. What a cache line costs that is fetched to be overwritten is not counted, as STREAM does.

The best of the rounds is what the machine can do, the median what it did. How much of the cores'
time the threads really got stands beside them: ``busy_share`` well below 1 means that others were
at work, and that the figures are of a part of the machine.
"""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import MissingError
from shoestring.hardware.cores import usable_cores
from shoestring.hardware.free_memory import free_memory_bytes
from shoestring.hardware.platforms import read_text

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1 << 20
LEAST_BYTES, MOST_BYTES = 256 * MEBIBYTE, 2048 * MEBIBYTE
UNKNOWN_CACHE_BYTES = 128 * MEBIBYTE
CACHES = 4
"""The buffer is so many times as large as the last-level caches."""
FLATTERING = 2
"""Below so many times the caches hold a share of it from round to round."""
FREE_SHARE = 8
BUSY = 0.9
"""Below this share of the time that was asked for, the figures are of a part of the machine."""
SMALLEST_BYTES = 64 * MEBIBYTE
LEAST_ROUNDS, MOST_ROUNDS = 5, 200
CPUS = Path("sys/devices/system/cpu")
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class MemorySpeed:
    """What was measured, in bytes a second of all threads together.

    Attributes:
        read_bytes_per_s: best round of reading.
        read_median_bytes_per_s: of the rounds.
        copy_bytes_per_s: best round of copying, bytes read and bytes written.
        triad_bytes_per_s: best round of the triad, bytes read and written in both passes.
        threads: that worked.
        buffer_bytes: of all threads together.
        cache_bytes: last-level caches; None: the system does not say.
        rounds: of reading.
        busy_share: processor time that the threads got while reading, of what they asked for.
        how: in a line, with what to know about the figures.
    """

    read_bytes_per_s: float
    read_median_bytes_per_s: float
    copy_bytes_per_s: float
    triad_bytes_per_s: float
    threads: int
    buffer_bytes: int
    cache_bytes: int | None
    rounds: int
    busy_share: float
    how: str


def measure_memory_speed(
    root: Path = Path("/"),
    *,
    budget_s: float = 1.0,
    threads: int | None = None,
    buffer_bytes: int | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    busy_ns: Callable[[], int] = time.thread_time_ns,
) -> MemorySpeed:
    """Measure; it takes about twice the budget, and all usable cores meanwhile.

    Args:
        root: below which ``proc`` and ``sys`` lie.
        budget_s: for the rounds of reading; half of it goes to copy and triad, and the buffer has
            to be filled, too. There are at least five rounds of reading, however long they take.
        threads: instead of the usable cores.
        buffer_bytes: instead of what the caches ask for.
        clock_ns: nanoseconds of a clock that nobody sets.
        busy_ns: nanoseconds that the calling thread has had of a processor.

    Raises:
        MissingError: too little memory is free, or the threads cannot be started.
    """
    cache_bytes = last_level_cache_bytes(root)
    workers = threads or usable_cores(root)
    size = buffer_bytes or choose_buffer_bytes(cache_bytes, free_memory_bytes(root))
    with ThreadPoolExecutor(workers, thread_name_prefix="memory-speed") as pool:
        crew = _Crew(pool, workers, size // workers, clock_ns, busy_ns)
        reads = crew.repeat(_read, budget_s, LEAST_ROUNDS)
        copies = crew.repeat(_copy, budget_s / 4, 2)
        triads = crew.repeat(_triad, budget_s / 4, 2)
    rates = [one.bytes_per_s for one in reads]
    busy_share = sum(one.busy_s for one in reads) / sum(workers * one.elapsed_s for one in reads)
    return MemorySpeed(
        read_bytes_per_s=max(rates),
        read_median_bytes_per_s=statistics.median(rates),
        copy_bytes_per_s=max(one.bytes_per_s for one in copies),
        triad_bytes_per_s=max(one.bytes_per_s for one in triads),
        threads=workers,
        buffer_bytes=crew.buffer_bytes,
        cache_bytes=cache_bytes,
        rounds=len(reads),
        busy_share=busy_share,
        how=_how(crew.buffer_bytes, cache_bytes, busy_share),
    )


def choose_buffer_bytes(cache_bytes: int | None, free_bytes: int | None) -> int:
    """Return the size of the buffer by the rule at the top.

    Args:
        cache_bytes: of the last level; None: not known.
        free_bytes: memory that can be had; None: not known.

    Raises:
        MissingError: an eighth of the free memory is too small to get past any cache.
    """
    wanted = CACHES * (UNKNOWN_CACHE_BYTES if cache_bytes is None else cache_bytes)
    size = min(MOST_BYTES, max(LEAST_BYTES, wanted))
    if free_bytes is None:
        return size
    if free_bytes // FREE_SHARE < SMALLEST_BYTES:
        raise MissingError(
            f"memory speed: {free_bytes // MEBIBYTE} MiB are free, and an eighth of it is too "
            f"little to get past the caches; free {FREE_SHARE * SMALLEST_BYTES // MEBIBYTE} MiB"
        )
    return min(size, free_bytes // FREE_SHARE)


def last_level_cache_bytes(root: Path = Path("/")) -> int | None:
    """Return the caches of the highest level, each once; None where the system does not say."""
    found: dict[tuple[int, str], int] = {}
    for index in (root / CPUS).glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size, shared = (
            (read_text(index / name) or "").strip() for name in ("level", "size", "shared_cpu_list")
        )
        if level.isdecimal() and size[:-1].isdecimal():
            found[int(level), shared] = int(size[:-1]) * SUFFIXES.get(size[-1], 0)
    highest = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == highest) or None


@dataclass(frozen=True)
class _Round:
    """What all threads did once: bytes moved, seconds passed, seconds of processors."""

    moved_bytes: int
    elapsed_s: float
    busy_s: float

    @property
    def bytes_per_s(self) -> float:
        return self.moved_bytes / self.elapsed_s


class _Crew:
    """Threads that each hold a part of the buffer and start every round together."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        workers: int,
        part_bytes: int,
        clock_ns: Callable[[], int],
        busy_ns: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._workers = workers
        self._clock_ns = clock_ns
        self._busy_ns = busy_ns
        self._local = threading.local()
        self._start_ns = 0
        # The barrier keeps each thread to one task a round, so each keeps its own part.
        self._barrier = threading.Barrier(workers, action=self._stamp)
        elements = part_bytes // 12 // 64 * 64  # three arrays of whole cache lines
        self.buffer_bytes = workers * 3 * 4 * elements
        self._run(lambda _: self._fill(elements))

    def repeat(self, work: Callable[[Any], int], budget_s: float, least: int) -> list[_Round]:
        """Repeat a work until its time is over, but so many times at least."""
        rounds: list[_Round] = []
        while len(rounds) < least or (
            sum(one.elapsed_s for one in rounds) < budget_s and len(rounds) < MOST_ROUNDS
        ):
            rounds.append(self._run(work))
        return rounds

    def _run(self, work: Callable[[Any], int]) -> _Round:
        """Let every thread work once."""

        def turn(_: int) -> tuple[int, int, int]:
            self._barrier.wait()
            before_ns = self._busy_ns()
            moved = work(self._local)
            return moved, self._clock_ns(), self._busy_ns() - before_ns

        try:
            turns = self._pool.map(turn, range(self._workers))
        except RuntimeError as error:  # a thread too many: the others would wait for it for ever
            self._barrier.abort()
            raise MissingError(
                f"memory speed: {self._workers} threads cannot be started ({error}); allow more "
                "(ulimit -u; a container's limit of pids)"
            ) from error
        moved, ends_ns, busy = zip(*turns, strict=True)
        return _Round(sum(moved), max(1, max(ends_ns) - self._start_ns) / 1e9, sum(busy) / 1e9)

    def _stamp(self) -> None:
        self._start_ns = self._clock_ns()

    def _fill(self, elements: int) -> int:
        import numpy as np

        # Written by the thread that reads it: pages never written are all one page of zeros.
        self._local.buffer = np.ones(3 * elements, np.int32)
        return 0


def _read(local: Any) -> int:
    buffer = local.buffer
    buffer.max()
    return int(buffer.nbytes)


def _copy(local: Any) -> int:
    import numpy as np

    a, b, _ = np.split(local.buffer, 3)
    np.copyto(a, b)
    return int(2 * a.nbytes)


def _triad(local: Any) -> int:
    import numpy as np

    a, b, c = np.split(local.buffer, 3)
    np.multiply(c, 3, out=a)
    np.add(a, b, out=a)
    return int(5 * a.nbytes)


def _how(buffer_bytes: int, cache_bytes: int | None, busy_share: float) -> str:
    size = f"maximum over {buffer_bytes // MEBIBYTE} MiB of 32-bit integers, each thread its part"
    parts = [size]
    if cache_bytes is None:
        parts.append("the size of the caches is not known")
    else:
        parts.append(f"{buffer_bytes / cache_bytes:.1f} times the last-level caches")
        if buffer_bytes < FLATTERING * cache_bytes:
            parts.append("which flatters: little memory is free")
    if busy_share < BUSY:
        parts.append(f"others were at work: {busy_share:.0%} of the cores' time was ours")
    return "; ".join(parts)
