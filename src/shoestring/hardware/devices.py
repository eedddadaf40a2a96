"""What can hold and compute parts of a model: given by hand, or found here.

By hand: :mod:`shoestring.hardware.device_words`. Found: :func:`detect_devices`.
What is free for a model is not what a maker prints::

    total = printed size * 15/16      where error correction lives in the GDDR memory itself
    free  = total - 368 MiB           GPU: driver and CUDA context
    free  = total * 2/3; * 3/4 from 36 GiB on      Apple: what Metal lends
    free  = total - 1 GiB             RAM, and graphics that compute in it: an estimate of what
                                      system and ourselves take

Sources: a T4 of 16 GiB has 15,360 MiB, of which llama.cpp found 14,992 free
(ggml-org/llama.cpp#13298); L4 23,034 and A10 23,028 of 24,576 MiB, L40S 46,068 of 49,152
(modal-labs/modal-client#2797), and the CUDA Best Practices Guide on GDDR memory with ECC;
recommendedMaxWorkingSetSize is 10,922.67 MB of 16 GB, 21,845.34 of 32, 49,152 of 64
(abetlen/llama-cpp-python#687, ollama/ollama#434, ggml-org/llama.cpp#1870).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shoestring.errors import BadValueError
from shoestring.hardware.cards import find_card
from shoestring.hardware.free_memory import free_memory_bytes
from shoestring.hardware.gpus import list_gpus
from shoestring.hardware.machine import describe_machine
from shoestring.hardware.nvml import GpuReader
from shoestring.hardware.platforms import read_text
from shoestring.hardware.quantities import spell_size
from shoestring.hardware.visible import ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoestring.hardware.cards import Card

Kind: TypeAlias = Literal["gpu", "cpu", "peer"]
MEBIBYTE, GIBIBYTE = 1 << 20, 1 << 30
GPU_TAKEN_BYTES = 368 * MEBIBYTE
"""What driver and CUDA context take of a GPU that nobody else uses."""
DRIVER_BYTES = 256 * MEBIBYTE
"""Of it the driver's part, which NVML counts as in use already (so on a T4,
NVIDIA/open-gpu-kernel-modules#357)."""
SYSTEM_BYTES = GIBIBYTE
"""What is left of RAM to the system and to ourselves, where the machine is not here to be asked."""
IN_RAM = frozenset({"cpu", "igpu"})
"""Kinds of cards whose memory is the machine's RAM, all of it."""
APPLE_LARGE_BYTES = 36 * GIBIBYTE
"""From here on Metal lends three quarters of the memory, below two thirds."""
ECC_CARDS = frozenset(
    {"A2", "A10", "A10G", "A16", "A40", "L4", "L40", "L40S",
     "Tesla M40", "Tesla P4", "Tesla P40", "Tesla T4"}
)  # fmt: skip
"""Cards for servers with GDDR memory: a sixteenth of it holds the error correction."""
NEAR = 0.12
"""Share of its memory within which a GPU is the card of its name; a slice of one is not."""
LANE_BYTES_PER_S = {1: 250e6, 2: 500e6, 3: 984.6e6, 4: 1969.2e6, 5: 3938.5e6, 6: 7562.5e6}
"""Line rate of a PCIe lane, one way, by generation: 2.5 to 64 GT/s less the coding (8b/10b,
128b/130b, 242/256 of a flit); packets take some of it, too."""


GENERATIONS: Mapping[str, str] = {"avx512f": "x86-avx512", "avx2": "x86-avx2", "neon": "arm-dot"}
"""Of processors that the catalogue does not have, by the best that they can do."""


@dataclass(frozen=True)
class Device:
    """One place where layers of a model can lie and be computed.

    Attributes:
        name: unique among the devices of a plan.
        kind: ``peer`` is behind a network.
        title: for readers.
        memory_bytes: what is free for a model and its buffers before that is loaded.
        bandwidth_bytes_per_s: at which its memory is read; None where nobody has told, with the
            reason in ``source``.
        compute_flops: dense 16-bit multiply-adds, two operations each; None: unknown.
        generation: key of the speed constants; None: unknown.
        link_latency_s: of the network, there and back as ``ping`` shows it; 0 for local ones.
        link_bytes_per_s: of the PCIe slot (line rate, one way) or the network; None: unknown.
        source: where the figures are from.
        total_bytes: the whole memory; None: nobody said.
    """

    name: str
    kind: Kind
    title: str
    memory_bytes: int
    bandwidth_bytes_per_s: float | None
    compute_flops: float | None
    generation: str | None
    link_latency_s: float
    link_bytes_per_s: float | None
    source: str
    total_bytes: int | None = None


def whole_bytes(card: Card) -> int | None:
    """Return the memory of a card that a program can see; None where it is not one size."""
    if card.memory_bytes is None or card.name not in ECC_CARDS:
        return card.memory_bytes
    return card.memory_bytes * 15 // 16


def usable_bytes(kind: str, total_bytes: int) -> int:
    """Return what of a whole memory a model may take, by the kind of the card.

    Raises:
        BadValueError: all of it is taken.
    """
    if kind == "apple":
        return total_bytes * 3 // 4 if total_bytes >= APPLE_LARGE_BYTES else total_bytes * 2 // 3
    taken = SYSTEM_BYTES if kind in IN_RAM else GPU_TAKEN_BYTES
    if total_bytes <= taken:
        who = "the system" if kind in IN_RAM else "the driver"
        raise BadValueError(
            f"{spell_size(total_bytes)} leaves nothing: {who} takes {spell_size(taken)} of it; "
            "give the size of the whole memory"
        )
    return total_bytes - taken


def detect_devices(
    root: Path = Path("/"),
    *,
    say: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
    nvml: Any = None,
    ram_bytes_per_s: float | None = None,
) -> tuple[Device, ...]:
    """Find what this machine has free now: its GPUs as CUDA would show them to us, then its RAM.

    Args:
        root: below which ``proc`` and ``sys`` lie.
        say: is told in a line what is left out and why.
        environ: environment variables, of which ``CUDA_VISIBLE_DEVICES`` counts.
        nvml: the module ``pynvml``, or what answers like it.
        ram_bytes_per_s: as measured here (:mod:`shoestring.hardware.memory_speed`).

    Returns:
        The GPUs in NVML's order, or that of ``CUDA_VISIBLE_DEVICES``; last the processor with its
        RAM, ``cpu``, unless nobody says how much of that there is.
    """
    listed = list_gpus(nvml)
    machine = describe_machine(root, environ=environ, gpus=lambda: listed)
    reader = GpuReader(nvml, environ=environ)
    try:
        used = reader.used_bytes()
    finally:
        reader.close()
    for reason in dict.fromkeys([listed.unavailable, *reader.unavailable.values()]):
        if reason is not None:
            say(f"GPUs: {reason}")
    if not listed.gpus:
        say(
            "GPUs: those of other makers than NVIDIA are not looked for; "
            "give them by hand, as --device 'm4 max:64GiB'"
        )
    by_index = {gpu["index"]: gpu for gpu in listed.gpus}
    here = [
        (by_index[index], used_bytes)
        for index, used_bytes in used.items()
        if index in by_index and not _is_in_ram(by_index[index]["name"], say)
    ]
    if len({gpu["name"] for gpu, _ in here}) > 1 and environ.get(ORDER) != "PCI_BUS_ID":
        say(f"GPUs: they are unlike, and CUDA may count the fastest first; set {ORDER}=PCI_BUS_ID")
    devices = [_gpu(gpu, used_bytes, f"gpu{n}") for n, (gpu, used_bytes) in enumerate(here)]
    ram = _ram(root, machine, ram_bytes_per_s)
    if ram is None:
        say("RAM: the system does not say how much is free; give it as ram:32GiB")
        return tuple(devices)
    return (*devices, ram)


def _is_in_ram(name: str, say: Callable[[str], None]) -> bool:
    """Tell whether a GPU computes in the machine's RAM, which would count twice; then say so."""
    card = find_card(name)
    if card is None or card.kind not in IN_RAM:
        return False
    say(
        f"GPUs: {name} computes in the machine's own RAM; give it alone: --device {card.name}:32GiB"
    )
    return True


def _gpu(gpu: Mapping[str, Any], used_bytes: int | None, name: str) -> Device:
    """Describe a GPU by what the driver says now, and the catalogue of its kind."""
    total_bytes = gpu["vram_bytes"]
    free_bytes = total_bytes - GPU_TAKEN_BYTES
    if used_bytes is not None:
        free_bytes = min(free_bytes, total_bytes - used_bytes - (GPU_TAKEN_BYTES - DRIVER_BYTES))
    card, source = _card(gpu["name"], total_bytes)
    lane = LANE_BYTES_PER_S.get(gpu["pcie_generation"])
    width = gpu["pcie_width"]
    return Device(
        name=name,
        kind="gpu",
        title=gpu["name"],
        memory_bytes=max(0, free_bytes),
        bandwidth_bytes_per_s=None if card is None else card.bandwidth_bytes_per_s,
        compute_flops=None if card is None else card.compute_flops or card.fp32_flops,
        generation=None if card is None else card.generation,
        link_latency_s=0.0,
        link_bytes_per_s=None if lane is None or width is None else lane * width,
        source=f"NVML; {source}",
        total_bytes=total_bytes,
    )


def _card(name: str, total_bytes: int) -> tuple[Card | None, str]:
    """Return the card of NVML's name and memory, and its source; or None and why.

    A card that is sold with several sizes of memory bears one name in all of them.
    """
    named = find_card(name)
    for card in (find_card(f"{name} {round(total_bytes / GIBIBYTE)}GB"), named):
        if card is not None and _is_whole(card, total_bytes):
            return card, card.source
    if named is None:
        return None, "not in the catalogue: give its bandwidth"
    return None, f"{spell_size(total_bytes)} are not the memory of a {named.name}: a part of one?"


def _is_whole(card: Card, total_bytes: int) -> bool:
    whole = whole_bytes(card)
    return whole is not None and abs(total_bytes - whole) <= NEAR * whole


def _generation(flags: Sequence[str]) -> str | None:
    """Return the generation of a processor by what it can do, as the catalogue calls it."""
    for flag, generation in GENERATIONS.items():
        if flag in flags:
            return generation
    return None


def _ram(root: Path, machine: Mapping[str, Any], measured: float | None) -> Device | None:
    """Describe the processor with what is free of its RAM, within the limits of our group."""
    free_bytes = free_memory_bytes(root)
    if free_bytes is None:
        return None
    cpu = machine["cpu"]
    model = _processor(root, cpu["model"])
    card = find_card(model) if model else None
    if card is not None and card.kind != "cpu":
        card = None  # a chip's graphics reach what its processor may not
    rate, source = _bandwidth(card, cpu, measured)
    cores = cpu["cores_usable"]
    return Device(
        name="cpu",
        kind="cpu",
        title=", ".join([model or "processor", *([] if cores is None else [f"{cores:g} cores"])]),
        memory_bytes=free_bytes,
        bandwidth_bytes_per_s=rate,
        compute_flops=None if card is None else card.compute_flops or card.fp32_flops,
        generation=_generation(cpu["flags"]) if card is None else card.generation,
        link_latency_s=0.0,
        link_bytes_per_s=None,
        source=f"free now; {source}",
        total_bytes=machine["memory_bytes"],
    )


def _bandwidth(
    card: Card | None, cpu: Mapping[str, Any], measured: float | None
) -> tuple[float | None, str]:
    """Return the rate at which RAM is read, and where that is from or why it is None."""
    if measured is not None:
        return measured, "bandwidth measured here"
    if card is None:
        return None, "bandwidth not measured, and the processor is not in the catalogue: calibrate"
    cores = cpu["cores_usable"]
    if card.cores is not None and cores is not None and cores < card.cores:
        return None, (
            f"bandwidth not measured, and only {cores:g} of a {card.name}'s {card.cores} cores "
            "are lent: calibrate"
        )
    return card.bandwidth_bytes_per_s, card.source


def _processor(root: Path, model: str | None) -> str | None:
    """Name the processor without marks and clocks; a board (Raspberry Pi) by its own name."""
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board.strip("\0\n ").partition(" Model ")[0]
    return None if model is None else re.sub(r"\((R|TM)\)|@.*", "", model).strip()
