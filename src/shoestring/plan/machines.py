"""The machines that a model may have to fit on: those that are lent for nothing, and any other.

What is free is not what is there: a driver keeps some memory, a CUDA context takes some, and the
system and the harness want theirs. Each figure says where it is from; what nobody has read at first
hand says so. All sizes are in bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.hardware.devices import GPU_TAKEN_BYTES, SYSTEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

MEBIBYTE = 1 << 20
KAGGLE_MEMORY_BYTES = 32_110 * MEBIBYTE  # 31.36 GiB
COLAB_MEMORY_BYTES = 12_700_000_000
NEAR_BYTES = 2048 * MEBIBYTE
"""Within which two sizes of RAM are those of one kind of machine."""
NEAR = 0.05
"""Share of its memory within which a GPU is one of that name; a slice of one is not."""
GPU_NAMES = {"t4": "T4", "2xt4": "T4", "p100": "P100"}


@dataclass(frozen=True)
class Machine:
    """A machine, as far as it decides what fits.

    Attributes:
        name: in tables and JSON; unique.
        title: for readers.
        gpu_bytes: free memory of each GPU before a model is loaded; empty: none is used.
        memory_bytes: RAM that a model may take.
        source: where the figures are from.
    """

    name: str
    title: str
    gpu_bytes: tuple[int, ...]
    memory_bytes: int
    source: str


T4_FREE_BYTES = 15_360 * MEBIBYTE - GPU_TAKEN_BYTES
P100_FREE_BYTES = 16_280 * MEBIBYTE - GPU_TAKEN_BYTES
_T4_SOURCE = "15,360 MiB, 14,992 free as llama.cpp said on one (ggml-org/llama.cpp#13298)"

CATALOGUE: tuple[Machine, ...] = (
    Machine(
        "t4",
        "T4",
        (T4_FREE_BYTES,),
        COLAB_MEMORY_BYTES - SYSTEM_BYTES,
        f"Colab: {_T4_SOURCE}; 12.7 GB of RAM, not verified at first hand",
    ),
    Machine(
        "2xt4",
        "2 x T4",
        (T4_FREE_BYTES, T4_FREE_BYTES),
        KAGGLE_MEMORY_BYTES - SYSTEM_BYTES,
        f"Kaggle: each {_T4_SOURCE}; 31.36 GiB of RAM by metadata of Kaggle runs",
    ),
    Machine(
        "p100",
        "P100",
        (P100_FREE_BYTES,),
        KAGGLE_MEMORY_BYTES - SYSTEM_BYTES,
        "Kaggle: 16,280 MiB, not verified at first hand, less what a T4's driver takes; "
        "31.36 GiB of RAM",
    ),
    Machine(
        "kaggle-cpu",
        "Kaggle CPU",
        (),
        KAGGLE_MEMORY_BYTES - SYSTEM_BYTES,
        "Kaggle without a GPU: 31.36 GiB of RAM by metadata of Kaggle runs",
    ),
)


def machine_of(described: Mapping[str, Any]) -> Machine | None:
    """Return the machine that a description of one is of; None where its memory is not known.

    It is one of the catalogue only if it is that hardware; any other is named after its parts.

    Args:
        described: by :func:`shoestring.hardware.machine.describe_machine`, of now or of a run.
    """
    gpus = described.get("gpus") or []
    memory_bytes = described.get("memory_bytes")
    if memory_bytes is None or any(gpu.get("vram_bytes") is None for gpu in gpus):
        return None
    for machine in CATALOGUE:
        near = abs(memory_bytes - SYSTEM_BYTES - machine.memory_bytes) <= NEAR_BYTES
        if near and _has_gpus(machine, gpus) and (gpus or described.get("platform") == "kaggle"):
            return machine
    return _unlisted(described, gpus, memory_bytes)


def _has_gpus(machine: Machine, gpus: list[dict[str, Any]]) -> bool:
    """Whether these are a machine's, by number, name and memory: half a T4 bears its name, too."""
    model = re.compile(rf"\b{GPU_NAMES.get(machine.name)}\b")
    return len(gpus) == len(machine.gpu_bytes) and all(
        model.search(str(gpu.get("name")))
        and abs(gpu["vram_bytes"] - GPU_TAKEN_BYTES - free_bytes)
        <= NEAR * (GPU_TAKEN_BYTES + free_bytes)
        for gpu, free_bytes in zip(gpus, machine.gpu_bytes, strict=True)
    )


def _unlisted(
    described: Mapping[str, Any], gpus: list[dict[str, Any]], memory_bytes: int
) -> Machine:
    cpu = described.get("cpu") or {}
    # Marks and clocks of a processor's name tell nobody what fits.
    model = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*", "", cpu.get("model") or "CPU")
    cores = cpu.get("cores_usable") or cpu.get("cores_logical")
    parts = [
        *(f"{gpu.get('name')} {gpu['vram_bytes'] / 2**30:.0f} GiB" for gpu in gpus),
        " ".join(model.split()),
        *([] if cores is None else [f"{cores:g} cores"]),
        f"{memory_bytes / 2**30:.0f} GiB RAM",
    ]
    title = ", ".join(parts)
    return Machine(
        re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"),
        title,
        tuple(max(0, gpu["vram_bytes"] - GPU_TAKEN_BYTES) for gpu in gpus),
        max(0, memory_bytes - SYSTEM_BYTES),
        "as the machine described itself",
    )
