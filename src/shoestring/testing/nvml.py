"""NVIDIA's management library without a GPU: scripted devices behind the names of ``pynvml``.

A :class:`FakeNvml` stands where the module ``pynvml`` would. It has the functions that the project
uses and no others; errors and constants are the real ones. Each value of a :class:`FakeGpu` is
constant, or a :class:`Script` of one value a call, and a value that is an exception is raised::

    lost = nvml_error(pynvml.NVML_ERROR_GPU_IS_LOST)
    nvml = FakeNvml([tesla_t4(power_mw=Script(30_000, 70_000, lost))])
    GpuReader(nvml).read(slow=True)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GIB = 2**30


def nvml_error(code: int) -> Exception:
    """Return the error of a code, ``pynvml.NVML_ERROR_...``, of its own class."""
    error: Exception = pynvml.NVMLError(code)
    return error


class Script:
    """Values that a device gives one a call; the last one stands."""

    def __init__(self, *values: Any) -> None:
        self._values = list(values)

    def next(self) -> Any:
        """Return the next value."""
        return self._values.pop(0) if len(self._values) > 1 else self._values[0]


@dataclass
class FakeGpu:
    """One device, in NVML's own units.

    Attributes:
        processes: pid and bytes (None: the driver does not say) of each that computes.
        drawing: the same of each that draws.
        handle: an error, where the device cannot even be had.
        unsupported: functions that this device answers with Not Supported.
    """

    name: str = "Tesla T4"
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    capability: tuple[int, int] = (7, 5)
    total_bytes: int = 15 * GIB
    used_bytes: Any = 0
    utilisation: Any = 0
    power_mw: Any = 27_000
    power_limit_mw: Any = 70_000
    temperature: Any = 40
    sm_mhz: Any = 585
    memory_mhz: Any = 5000
    reasons: Any = 0
    energy_mj: Any = 0
    pcie_generation: Any = 3
    pcie_width: Any = 16
    processes: Any = ()
    drawing: Any = ()
    handle: Any = None
    unsupported: frozenset[str] = field(default_factory=frozenset)


def tesla_t4(**values: Any) -> FakeGpu:
    """Return a T4 as Kaggle and Colab lend it: Turing, with an energy counter."""
    return replace(FakeGpu(), **values)


def tesla_p100(**values: Any) -> FakeGpu:
    """Return a P100: Pascal, without an energy counter."""
    gpu = FakeGpu(
        name="Tesla P100-PCIE-16GB",
        capability=(6, 0),
        total_bytes=16 * GIB,
        power_limit_mw=250_000,
        memory_mhz=715,
        unsupported=frozenset({"nvmlDeviceGetTotalEnergyConsumption"}),
    )
    return replace(gpu, **values)


class FakeNvml:
    """Stands for the module ``pynvml``.

    Args:
        gpus: the devices, in the order of their slots.
        init_error: what ``nvmlInit`` raises.
        missing: functions that the driver is too old to have.

    Attributes:
        calls: the functions that were called, in order.
        opened: ``nvmlInit`` calls that have no ``nvmlShutdown`` yet.
    """

    def __init__(
        self,
        gpus: Sequence[FakeGpu] = (),
        *,
        init_error: Exception | None = None,
        missing: Sequence[str] = (),
    ) -> None:
        self.gpus = list(gpus)
        self.calls: list[str] = []
        self.opened = 0
        self.init_error = init_error
        self._missing = frozenset(missing)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("NVML"):
            return getattr(pynvml, name)
        if name not in _LIBRARY and name not in _DEVICE:
            raise AttributeError(f"the fake NVML has no {name}")

        def call(*arguments: Any) -> Any:
            return self._call(name, arguments)

        return call

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        self.calls.append(name)
        if name in self._missing:
            raise nvml_error(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        if self.opened == 0 and name != "nvmlInit":
            raise nvml_error(pynvml.NVML_ERROR_UNINITIALIZED)
        if name in _LIBRARY:
            return _LIBRARY[name](self, *arguments)
        gpu, *more = arguments
        if name in gpu.unsupported:
            raise nvml_error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return _DEVICE[name](gpu, *more)


def _init(nvml: FakeNvml) -> None:
    _value(nvml.init_error)
    nvml.opened += 1


def _shut_down(nvml: FakeNvml) -> None:
    nvml.opened -= 1


def _handle(nvml: FakeNvml, index: int) -> FakeGpu:
    gpu = nvml.gpus[index]
    _value(gpu.handle)
    return gpu


def _value(value: Any) -> Any:
    """Return a constant, or the next value of a script; raise it where it is an error."""
    now = value.next() if isinstance(value, Script) else value
    if isinstance(now, Exception):
        raise now
    return now


def _memory(gpu: FakeGpu) -> Any:
    used = _value(gpu.used_bytes)
    return SimpleNamespace(total=gpu.total_bytes, used=used, free=gpu.total_bytes - used)


def _clock(gpu: FakeGpu, kind: int) -> Any:
    clocks = {pynvml.NVML_CLOCK_SM: gpu.sm_mhz, pynvml.NVML_CLOCK_MEM: gpu.memory_mhz}
    return _value(clocks[kind])


def _processes(listed: Any) -> list[Any]:
    return [SimpleNamespace(pid=p, usedGpuMemory=used) for p, used in _value(listed)]


_LIBRARY: dict[str, Callable[..., Any]] = {
    "nvmlInit": _init,
    "nvmlShutdown": _shut_down,
    "nvmlSystemGetDriverVersion": lambda _: "580.95.05",
    "nvmlDeviceGetCount": lambda nvml: len(nvml.gpus),
    "nvmlDeviceGetHandleByIndex": _handle,
}
_DEVICE: dict[str, Callable[..., Any]] = {
    "nvmlDeviceGetName": lambda gpu: gpu.name,
    "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(
        gpu=_value(gpu.utilisation), memory=0
    ),
    "nvmlDeviceGetPowerUsage": lambda gpu: _value(gpu.power_mw),
    "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: _value(gpu.power_limit_mw),
    "nvmlDeviceGetTemperature": lambda gpu, _sensor: _value(gpu.temperature),
    "nvmlDeviceGetClockInfo": _clock,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: _value(gpu.reasons),
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: _value(gpu.reasons),
    "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: _value(gpu.energy_mj),
    "nvmlDeviceGetCudaComputeCapability": lambda gpu: gpu.capability,
    "nvmlDeviceGetMaxPcieLinkGeneration": lambda gpu: _value(gpu.pcie_generation),
    "nvmlDeviceGetCurrPcieLinkWidth": lambda gpu: _value(gpu.pcie_width),
    "nvmlDeviceGetComputeRunningProcesses_v3": lambda gpu: _processes(gpu.processes),
    "nvmlDeviceGetComputeRunningProcesses_v2": lambda gpu: _processes(gpu.processes),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": lambda gpu: _processes(gpu.drawing),
}
