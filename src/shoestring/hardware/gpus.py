"""Which NVIDIA GPUs are here, as the driver's management library (NVML) says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a machine.

    Attributes:
        gpus: of each ``index``, ``name``, ``vram_bytes``, ``driver``, ``cuda_capability`` ("7.5"),
            ``pcie_generation`` (the highest that GPU and slot agree on; it falls in idleness),
            ``pcie_width`` (lanes now), ``power_limit_w`` (that holds now). The last four are None
            where the driver does not say.
        unavailable: why there are none, or fewer than the driver counts; else None.
    """

    gpus: tuple[Mapping[str, Any], ...]
    unavailable: str | None


def list_gpus(nvml: Any = None) -> Gpus:
    """List the NVIDIA GPUs. Without a driver there are none, and the reason is given.

    Args:
        nvml: the module ``pynvml``, or what answers like it.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Gpus((), f"NVML: {error}")
    try:
        return _list(nvml)
    except nvml.NVMLError as error:
        return Gpus((), f"NVML: {error}")
    finally:
        nvml.nvmlShutdown()


def _list(nvml: Any) -> Gpus:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    found, broken = [], []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            found.append(_describe(nvml, index, driver))
        except nvml.NVMLError as error:  # one that has fallen off the bus hides no other
            broken.append(f"NVML: GPU {index}: {error}")
    return Gpus(tuple(found), "; ".join(broken) or None)


def _describe(nvml: Any, index: int, driver: str) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(call: Callable[[Any], Any]) -> Any:
        try:
            return call(handle)
        except nvml.NVMLError:  # no such thing on this GPU
            return None

    capability = told(nvml.nvmlDeviceGetCudaComputeCapability)
    limit_mw = told(nvml.nvmlDeviceGetEnforcedPowerLimit)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "vram_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "driver": driver,
        "cuda_capability": None if capability is None else "{}.{}".format(*capability),
        "pcie_generation": told(nvml.nvmlDeviceGetMaxPcieLinkGeneration),
        "pcie_width": told(nvml.nvmlDeviceGetCurrPcieLinkWidth),
        "power_limit_w": None if limit_mw is None else limit_mw / 1000,
    }


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
