"""The GPU memory that the engine holds, and its peak over the samples.

The driver's list of processes is asked first; outside containers an engine that it does not name
holds nothing. In them the list is often empty or has the numbers of the host, and some drivers hide
the use of each process: then the memory of the GPUs above what was in use before the engine started
counts, which holds whatever other programs took since. Once the list has told of memory, a session
keeps to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.hardware.engine_tree import NO_ENGINE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from shoestring.hardware.nvml import GpuReader

FIELD = "engine_vram_bytes"


class EngineVram:
    """Follows the engine's memory on all visible GPUs together.

    Args:
        gpus: are asked.
        unavailable: takes the reasons for ``engine_vram_bytes`` and ``vram_peak_bytes``.
        sees_all: as for :meth:`shoestring.hardware.nvml.GpuReader.process_bytes`.
    """

    def __init__(self, gpus: GpuReader, unavailable: dict[str, str], *, sees_all: bool) -> None:
        self._gpus = gpus
        self._unavailable = unavailable
        self._sees_all = sees_all
        self._limit_bytes = gpus.limit_bytes()
        self._baseline: Mapping[int, int | None] = {}
        self._own_peak_bytes: int | None = None
        self._grown_peak_bytes: int | None = None

    def mark_baseline(self) -> None:
        """Note what is in use without the engine."""
        self._baseline = self._gpus.used_bytes()

    def read(self, pids: Collection[int], gpus: Sequence[Mapping[str, Any]] | None) -> int | None:
        """Return what the engine holds now.

        Args:
            pids: of its processes.
            gpus: of the same sample.
        """
        if not gpus:
            self._unavailable[FIELD] = self._gpus.unavailable.get("gpus", "no GPU is read")
            return None
        if not pids:
            self._unavailable[FIELD] = NO_ENGINE
            return None
        own_bytes, reason = self._gpus.process_bytes(pids, sees_all=self._sees_all)
        if own_bytes is not None:
            self._own_peak_bytes = max(self._own_peak_bytes or 0, own_bytes)
            return own_bytes
        if self._own_peak_bytes:
            self._unavailable[FIELD] = f"for a while {reason}"
            return None
        grown_bytes, why = self._grown(gpus)
        if grown_bytes is None:
            self._unavailable[FIELD] = f"{reason}, and {why}"
            return None
        self._grown_peak_bytes = max(self._grown_peak_bytes or 0, grown_bytes)
        return grown_bytes

    def peak(self) -> dict[str, Any]:
        """Return ``vram_peak_bytes``, ``vram_limit_bytes`` and ``vram_source``."""
        if self._grown_peak_bytes is not None and not self._own_peak_bytes:
            peak_bytes, source = self._grown_peak_bytes, "device minus baseline"
        elif self._own_peak_bytes is not None:
            peak_bytes, source = self._own_peak_bytes, "per process"
        else:
            peak_bytes, source = None, None
            self._unavailable["vram_peak_bytes"] = self._unavailable.get(FIELD, "no sample")
        return {
            "vram_peak_bytes": peak_bytes,
            "vram_limit_bytes": self._limit_bytes,
            "vram_source": source,
        }

    def _grown(self, gpus: Sequence[Mapping[str, Any]]) -> tuple[int | None, str]:
        """Return the memory in use above the baseline; None, and why, where that is not known."""
        if not self._baseline:
            return None, "no baseline was taken before the engine started"
        grown = 0
        for gpu in gpus:
            before, now = self._baseline.get(gpu["index"]), gpu["vram_used_bytes"]
            if before is None or now is None:
                return None, f"GPU {gpu['index']} does not say how much is in use"
            grown += now - before
        if grown < 0:
            return None, "other programs gave memory back since the baseline"
        return grown, ""
