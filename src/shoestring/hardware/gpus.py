"""Which NVIDIA GPUs are here, as the driver's management library (NVML) says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a machine.

    Attributes:
        gpus: ``index``, ``name``, ``vram_bytes`` and ``driver`` of each.
        unavailable: why they could not be listed; None where they could.
    """

    gpus: tuple[Mapping[str, Any], ...]
    unavailable: str | None


def list_gpus() -> Gpus:
    """List the NVIDIA GPUs. Without a driver there are none, and the reason is given."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus((), f"NVML: {error}")
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        count = pynvml.nvmlDeviceGetCount()
        return Gpus(tuple(_describe(pynvml, index, driver) for index in range(count)), None)
    except pynvml.NVMLError as error:
        return Gpus((), f"NVML: {error}")
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any, index: int, driver: str) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "vram_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "driver": driver,
    }


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
