"""What the engine's processes use: processor, memory, paging; and the peak of its memory.

Paging tells a model that does not fit: a major fault is a page that had to come from a disk
(weights that are mapped from a file are read again and again where memory is short), swapped
bytes are memory that the kernel has put away. Both are Linux's own counters, read at 1 Hz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.hardware.processes import ProcessTree, peak_resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.hardware.probes import Probes

USE = ("engine_cpu_percent", "engine_rss_bytes", "engine_processes")
PAGING = ("engine_major_faults_per_s", "engine_swap_bytes")
NO_ENGINE = "no process of the engine on this machine"


class EngineTree:
    """Follows the engine's process tree; the engine may end and come back as another process.

    Args:
        engine_pid: the engine's process, or what returns it (None: no such process now), or None
            where the engine runs on another machine.
        probes: keeps why something is None.
    """

    def __init__(self, engine_pid: Callable[[], int | None] | int | None, probes: Probes) -> None:
        self._engine_pid = engine_pid
        self._probes = probes
        self._tree: ProcessTree | None = None
        self._read_s = 0.0
        self._paging: dict[str, Any] = dict.fromkeys(PAGING)
        self._paging_read_s: float | None = None
        self._sampled_peak_bytes: int | None = None
        self._kernel_peak_bytes: int | None = None
        self._was_tree = False

    @property
    def pids(self) -> frozenset[int]:
        """The processes that lived at the last reading."""
        return self._tree.pids if self._tree is not None else frozenset()

    def read(self, now_s: float) -> dict[str, Any]:
        """Return what is read in each sample, with the paging of the last slow reading."""
        use = self._probes.read(lambda: self._use(now_s), *USE)
        return {**(use if use is not None else dict.fromkeys(USE)), **self._paging}

    def read_slow(self, now_s: float) -> None:
        """Look for new processes, ask for the kernel's peak, and read the paging."""
        self._probes.read(self._look_for_processes, "engine_processes")
        paging = self._probes.read(lambda: self._page(now_s), *PAGING)
        self._paging = paging if paging is not None else dict.fromkeys(PAGING)

    def ram_peak_bytes(self, rate_hz: float) -> tuple[int | None, str | None]:
        """Return the peak of the memory, and where the figure comes from."""
        tree = self._tree  # the sampler's thread may drop it between two looks
        if tree is not None:
            self._note_kernel_peak(tree)
        sampled, kernel = self._sampled_peak_bytes, self._kernel_peak_bytes
        if kernel is not None and not self._was_tree:
            return kernel, "VmHWM"
        if sampled is None:
            return None, None
        return sampled, f"largest sample of the process tree at {rate_hz:g} Hz"

    def _use(self, now_s: float) -> dict[str, Any]:
        """Read the processes; look for the root anew where its pid has changed."""
        pid = self._engine_pid() if callable(self._engine_pid) else self._engine_pid
        if pid is None:
            self._tree = None
            return self._without_engine(NO_ENGINE)
        tree = self._tree if self._tree is not None and self._tree.pid == pid else None
        fresh = tree is None
        if fresh:
            self._forget_paging("no reading of the new process yet")
        self._tree = tree = tree or ProcessTree(pid)
        use = tree.read()
        if use is None:
            return self._without_engine(f"the engine's process {pid} had ended")
        self._sampled_peak_bytes = max(self._sampled_peak_bytes or 0, use.resident_bytes)
        self._was_tree = self._was_tree or use.processes > 1
        elapsed_s, self._read_s = now_s - self._read_s, now_s
        percent = None if fresh or elapsed_s <= 0 else round(100 * use.cpu_s / elapsed_s, 1)
        if percent is None:
            self._probes.missing("first reading of a new process", "engine_cpu_percent")
        return dict(zip(USE, (percent, use.resident_bytes, use.processes), strict=True))

    def _without_engine(self, reason: str) -> dict[str, Any]:
        self._probes.missing(reason, *USE)
        self._forget_paging(reason)
        return dict.fromkeys(USE)

    def _forget_paging(self, reason: str) -> None:
        self._paging, self._paging_read_s = dict.fromkeys(PAGING), None
        self._probes.missing(reason, *PAGING)

    def _look_for_processes(self) -> None:
        if self._tree is not None:
            self._tree.rescan()
            self._note_kernel_peak(self._tree)

    def _page(self, now_s: float) -> dict[str, Any]:
        if self._tree is None or not self._tree.pids:
            return dict.fromkeys(PAGING)  # why has been said
        paging = self._tree.paging()
        before_s, self._paging_read_s = self._paging_read_s, now_s
        per_s = None
        if before_s is None or now_s <= before_s:
            self._probes.missing("first reading of a new process", "engine_major_faults_per_s")
        else:
            per_s = round(paging.major_faults / (now_s - before_s), 1)
        if paging.swap_bytes is None:
            self._probes.missing("the kernel does not say", "engine_swap_bytes")
        return dict(zip(PAGING, (per_s, paging.swap_bytes), strict=True))

    def _note_kernel_peak(self, tree: ProcessTree) -> None:
        peak = peak_resident_bytes(tree.pid)
        if peak is not None:
            self._kernel_peak_bytes = max(self._kernel_peak_bytes or 0, peak)
