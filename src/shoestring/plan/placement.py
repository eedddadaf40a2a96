"""Where the parts of a model go, and whether they go there at all.

llama.cpp puts the output and the last layers on GPUs, as many as fit, each with its part of the KV
cache; the embedding and the other layers stay in RAM. Every device that computes needs a buffer
for it. In RAM the file is mapped, and what is repacked lies there twice: the first copy is read
once and may leave again, so it counts in what is reserved, not in what has to stay.

The same demand and the same machine give the same answer; nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.plan.machines import Machine
    from shoestring.plan.memory import Demand

Verdict: TypeAlias = Literal["runs", "runs with offload", "does not run"]
MARGIN = 0.03
"""Nearer than this share of a memory to its limit, a prediction does not decide."""


@dataclass(frozen=True)
class Placement:
    """What a model takes on a machine, predicted.

    Attributes:
        verdict: None where the prediction is too close to a limit to say.
        gpu_layers: layers on GPUs, without the output.
        weights_bytes: all weights, wherever they lie; twice what is both mapped and copied.
        cache_bytes: the KV cache, on all devices.
        compute_bytes: buffers for the work, on all devices.
        gpu_bytes: taken on all GPUs.
        host_bytes: reserved in RAM: an upper bound, since only pages that are touched count.
        resident_bytes: of it, what has to stay there.
    """

    verdict: Verdict | None
    gpu_layers: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    gpu_bytes: int
    host_bytes: int
    resident_bytes: int

    @property
    def total_bytes(self) -> int:
        """On GPUs and in RAM together."""
        return self.gpu_bytes + self.host_bytes


def place(demand: Demand, machine: Machine) -> Placement:
    """Say what goes where, and whether it fits.

    ``runs`` means: whole on GPUs where the machine has any, else whole in RAM.
    """
    placement = _place(demand, machine, 1.0)
    near = {_place(demand, machine, share).verdict for share in (1 - MARGIN, 1 + MARGIN)}
    return placement if len(near) == 1 else replace(placement, verdict=None)


def _place(demand: Demand, machine: Machine, share: float) -> Placement:
    """Place on a machine whose memories are larger or smaller by a factor."""
    if not machine.gpu_bytes:
        return _in_ram(demand, share * machine.memory_bytes)
    return _on_gpus(
        demand, [share * size for size in machine.gpu_bytes], share * machine.memory_bytes
    )


def _in_ram(demand: Demand, limit_bytes: float) -> Placement:
    cache, repacked = sum(demand.cache_bytes), sum(demand.repacked_bytes)
    resident = demand.file_bytes + cache + demand.compute_bytes
    return Placement(
        verdict="runs" if resident <= limit_bytes else "does not run",
        gpu_layers=0,
        weights_bytes=demand.file_bytes + repacked,
        cache_bytes=cache,
        compute_bytes=demand.compute_bytes,
        gpu_bytes=0,
        host_bytes=resident + repacked,
        resident_bytes=resident,
    )


def _on_gpus(demand: Demand, limits: Iterable[float], ram_bytes: float) -> Placement:
    """Fill the GPUs from the last with the output and the last layers."""
    weights = (*demand.layer_bytes, demand.output_bytes)
    caches = (*demand.cache_bytes, 0)
    first, used = len(weights), 0
    for limit in reversed([*limits]):
        room, before = limit - demand.compute_bytes, first
        while first > 0 and weights[first - 1] + caches[first - 1] <= room:
            first -= 1
            room -= weights[first] + caches[first]
        used += first < before
    host_weights = demand.embedding_bytes + sum(weights[:first])
    if used == 0 and demand.tied:
        host_weights -= demand.embedding_bytes  # only a GPU needs a copy of it
    host_compute = demand.compute_bytes if first > 0 else 0
    host = host_weights + sum(caches[:first]) + host_compute
    fits: Verdict = "runs" if first == 0 else "runs with offload"
    return Placement(
        verdict=fits if host <= ram_bytes else "does not run",
        gpu_layers=max(0, len(demand.layer_bytes) - first),
        weights_bytes=host_weights + sum(weights[first:]),
        cache_bytes=sum(caches),
        compute_bytes=used * demand.compute_bytes + host_compute,
        gpu_bytes=sum(weights[first:]) + sum(caches[first:]) + used * demand.compute_bytes,
        host_bytes=host,
        resident_bytes=host,
    )
