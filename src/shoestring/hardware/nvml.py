"""What NVIDIA's GPUs do, as the driver's management library (NVML) says.

Opened once a session. Without a driver the first call fails, the reason stands under ``gpus``, and
nothing is asked again. What one GPU does not support is None for that GPU, is not asked again, and
the reason stands under ``gpus.INDEX.FIELD``; any other failure is asked again at the next reading.

- ``vram_used_bytes``: of the whole GPU, whoever uses it;
- ``utilisation_percent``: the share of the driver's last period (1 s to 1/6 s) in which any kernel
  ran; not how full the GPU was;
- ``power_w``: of the board; GPUs since Ampere (but GA100) tell the mean of the last second;
- ``throttle``: why the clocks are lower than they could be; a setting or idleness is no throttling;
- energy: a counter since the driver was loaded, on Volta and newer.

Only the GPUs are read that CUDA would show to a process with our environment
(:mod:`shoestring.hardware.visible`). Calls may come from any thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from shoestring.hardware.visible import visible_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

THROTTLE = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}
# Idle, application clocks, display clocks: the user's choice or nothing to do.
NOT_THROTTLING = 0x001 | 0x002 | 0x100
SLOW_FIELDS = ("temperature_c", "sm_clock_hz", "memory_clock_hz", "throttle")


class GpuReader:
    """Reads the visible GPUs.

    Args:
        nvml: the module ``pynvml``, or what answers like it.
        environ: environment variables, of which ``CUDA_VISIBLE_DEVICES`` counts.

    Attributes:
        unavailable: why a field is or was None, by the field's name.
    """

    def __init__(self, nvml: Any = None, *, environ: Mapping[str, str] = os.environ) -> None:
        if nvml is None:
            import pynvml

            nvml = pynvml
        self.unavailable: dict[str, str] = {}
        self._nvml = nvml
        self._handles: dict[int, Any] = {}
        self._slow: dict[int, dict[str, Any]] = {}
        self._unsupported: set[tuple[int, str]] = set()
        self._is_open = False
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.unavailable["gpus"] = f"NVML: {error}"
            return
        self._is_open = True
        try:
            self._find(environ)
        except nvml.NVMLError as error:
            self.unavailable["gpus"] = f"NVML: {error}"
        if not self._handles:
            self.close()

    def close(self) -> None:
        """Let the library go; no GPU is read any more. More calls do nothing."""
        self._handles = {}
        if self._is_open:
            self._is_open = False
            self._nvml.nvmlShutdown()

    @property
    def indices(self) -> tuple[int, ...]:
        """The GPUs that are read, by NVML's numbers."""
        return tuple(self._handles)

    def read(self, *, slow: bool) -> list[dict[str, Any]] | None:
        """Read all GPUs once.

        Args:
            slow: read temperature, clocks and throttling anew, too; else their last values stand.

        Returns:
            One a GPU, as a telemetry sample keeps it; None where there is none to read.
        """
        gpus = []
        for index, handle in self._handles.items():
            if slow or index not in self._slow:
                self._slow[index] = self._read_slow(index, handle)
            gpus.append(
                {"index": index, **self._read_fast(index, handle), **self._slow[index]},
            )
        return gpus or None

    def used_bytes(self) -> dict[int, int | None]:
        """Return each GPU's memory in use, whoever uses it."""
        return {
            index: self._ask(index, "vram_used_bytes", self._used_bytes, handle)
            for index, handle in self._handles.items()
        }

    def limit_bytes(self) -> int | None:
        """Return the memory of all GPUs together; None where one does not say or none is here."""
        sizes = [
            self._ask(index, "vram_limit_bytes", self._total_bytes, handle)
            for index, handle in self._handles.items()
        ]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None

    def power_w(self) -> dict[int, float | None]:
        """Return each GPU's power."""
        return {
            index: self._ask(index, "power_w", self._power_w, handle)
            for index, handle in self._handles.items()
        }

    def energy_j(self) -> dict[int, float | None]:
        """Return each GPU's energy counter, which counts since the driver was loaded."""
        return {
            index: self._ask(index, "energy_counter", self._energy_j, handle)
            for index, handle in self._handles.items()
        }

    def process_bytes(
        self, pids: Collection[int], *, sees_all: bool
    ) -> tuple[int | None, str | None]:
        """Return the memory that processes hold on all GPUs together.

        Args:
            pids: of the processes.
            sees_all: the driver's numbers are ours, so that who is not listed holds nothing.

        Returns:
            Bytes, and None; or None, and why: a container may hide the processes or their use.
        """
        held: list[int | None] = []
        for index, handle in self._handles.items():
            processes = self._ask(index, "processes", self._processes, handle)
            if processes is None:
                reason = self.unavailable[f"gpus.{index}.processes"]
                return None, f"GPU {index} does not list its processes: {reason}"
            held += [one.usedGpuMemory for one in processes if one.pid in pids]
        if not held and not (sees_all and self._none_draws(pids)):
            return None, "the driver lists no process of the engine"
        known = [size for size in held if size is not None]
        if len(known) < len(held):
            return None, "the driver does not say what the engine's processes hold"
        return sum(known), None

    def _find(self, environ: Mapping[str, str]) -> None:
        """Take a handle of each visible GPU; one that is broken does not hide the others."""
        nvml = self._nvml
        handles: dict[int, Any] = {}
        uuids: list[str | None] = []
        names: list[str | None] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = self._ask(index, "handle", nvml.nvmlDeviceGetHandleByIndex, index)
            if handle is not None:
                handles[index] = handle
            known = handle is not None
            uuids.append(
                self._ask(index, "uuid", nvml.nvmlDeviceGetUUID, handle) if known else None
            )
            names.append(
                self._ask(index, "name", nvml.nvmlDeviceGetName, handle) if known else None
            )
        chosen, reason = visible_gpus(environ, uuids, names)
        self._handles = {index: handles[index] for index in chosen if index in handles}
        if not self._handles:
            lost = "; ".join(self.unavailable.values())
            self.unavailable["gpus"] = reason or lost or "NVML: the driver has no GPU"

    def _ask(self, index: int, field: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Ask one GPU for one thing; note why it cannot be told, and return None."""
        if (index, field) in self._unsupported:
            return None
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            self.unavailable[f"gpus.{index}.{field}"] = f"NVML: {error}"
            never = (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            if error.value in never:
                self._unsupported.add((index, field))
            return None

    def _read_fast(self, index: int, handle: Any) -> dict[str, Any]:
        return {
            "vram_used_bytes": self._ask(index, "vram_used_bytes", self._used_bytes, handle),
            "utilisation_percent": self._ask(
                index, "utilisation_percent", self._utilisation_percent, handle
            ),
            "power_w": self._ask(index, "power_w", self._power_w, handle),
        }

    def _read_slow(self, index: int, handle: Any) -> dict[str, Any]:
        calls = (self._temperature_c, self._sm_clock_hz, self._memory_clock_hz, self._throttle)
        return {
            field: self._ask(index, field, call, handle)
            for field, call in zip(SLOW_FIELDS, calls, strict=True)
        }

    def _used_bytes(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)

    def _total_bytes(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)

    def _utilisation_percent(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    def _power_w(self, handle: Any) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1000

    def _energy_j(self, handle: Any) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    def _temperature_c(self, handle: Any) -> float:
        nvml = self._nvml
        return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))

    def _sm_clock_hz(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetClockInfo(handle, self._nvml.NVML_CLOCK_SM)) * 1_000_000

    def _memory_clock_hz(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetClockInfo(handle, self._nvml.NVML_CLOCK_MEM)) * 1_000_000

    def _throttle(self, handle: Any) -> list[str]:
        nvml = self._nvml
        try:
            bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except nvml.NVMLError_FunctionNotFound:  # drivers before 535 call it by its old name
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return throttle_names(int(bits))

    def _processes(self, handle: Any) -> Any:
        nvml = self._nvml
        try:
            return nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
        except nvml.NVMLError_FunctionNotFound:  # drivers before 510
            return nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)

    def _none_draws(self, pids: Collection[int]) -> bool:
        """Whether none is listed among those that draw either, where Vulkan's may stand."""
        for index, handle in self._handles.items():
            drawing = self._ask(
                index, "drawing", self._nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle
            )
            if drawing is None or any(one.pid in pids for one in drawing):
                return False
        return True


def throttle_names(bits: int) -> list[str]:
    """Name the reasons of a mask; a bit that is not known yet is shown as its number."""
    left = bits & ~NOT_THROTTLING
    single = [1 << place for place in range(left.bit_length()) if left >> place & 1]
    return [THROTTLE.get(bit, f"reason {bit:#x}") for bit in single]
