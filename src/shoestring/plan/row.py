"""The devices of a plan in the engine's order, and the problem that the exact split solves.

The host's RAM comes first, then peers, then cards, as llama.cpp orders them. Of every device a
margin stays free, the worst error that a prediction of memory is allowed. What the host needs is
one copy of each weight: where a processor keeps a rearranged copy as well, the mapped one may leave
again, so both count only in what is reserved and what is resident at the peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.plan.speed import rates
from shoestring.plan.split import Place, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.hardware.devices import Device
    from shoestring.models.outline import Outline
    from shoestring.plan.memory import Demand, Settings
    from shoestring.plan.speed import Rates
    from shoestring.plan.speed_constants import SpeedConstants

MARGIN = 0.06
"""Share of each memory that stays free: the worst error that a prediction is allowed."""
NOMINAL_BYTES_PER_S = {"cpu": 20e9, "gpu": 200e9, "peer": 20e9}
"""Only to put devices in an order whose bandwidth nobody knows; never shown."""


@dataclass(frozen=True)
class Stop:
    """One device of the row.

    Attributes:
        device: None: RAM of which nobody said how much there is.
        rates: what it does with the model, from an empty context; None: nothing is known of it.
        filled: the same with the context full.
        known: whether its bandwidth is; else its rates only serve to put it in an order.
    """

    device: Device | None
    rates: Rates | None
    filled: Rates | None
    known: bool


def make_row(
    devices: Sequence[Device],
    outline: Outline,
    settings: Settings,
    constants: SpeedConstants,
    prompt_tokens: int,
) -> list[Stop]:
    """Return the devices in the engine's order, each with what it does with the model."""
    hosts = [device for device in devices if device.kind == "cpu"]
    others = [device for device in devices if device.kind == "peer"]
    others += [device for device in devices if device.kind == "gpu"]

    def stop(device: Device) -> Stop:
        calibrated = device.kind == "cpu" and constants.here is not None
        known = device.bandwidth_bytes_per_s is not None or calibrated
        if not known:
            nominal = NOMINAL_BYTES_PER_S[device.kind]
            timed = replace(device, bandwidth_bytes_per_s=nominal)
        else:
            timed = device
        empty, filled = (
            rates(
                outline, timed, constants, settings, depth_tokens=depth, prompt_tokens=prompt_tokens
            )
            for depth in (0, settings.context)
        )
        return Stop(device, empty, filled, known)

    return [stop(hosts[0]) if hosts else Stop(None, None, None, known=True), *map(stop, others)]


def make_problem(demand: Demand, row: Sequence[Stop]) -> Problem:
    """Return what is to be laid out over a row."""
    return Problem(
        weights_bytes=demand.layer_bytes,
        cache_bytes=demand.cache_bytes,
        places=(_host(demand, row[0]), *(_card(demand, stop) for stop in row[1:])),
        embedding_bytes=demand.embedding_bytes + other_bytes(demand),
        expert_bytes=demand.expert_bytes if any(demand.expert_bytes) else (),
    )


def keep_output(problem: Problem, row: Sequence[Stop]) -> list[Problem]:
    """Return the ways to keep the output from peers: the host computes it, or a card behind them.

    Args:
        problem: of the row.
        row: its devices.

    Raises:
        BadValueError: nobody said how much RAM there is, and there is no card.
    """
    kinds = ["cpu" if stop.device is None else stop.device.kind for stop in row]
    ways = [] if row[0].device is None else [replace(problem, output_stays=True)]
    if "gpu" in kinds:
        places = [
            replace(place, takes_output=kind != "peer")
            for place, kind in zip(problem.places, kinds, strict=True)
        ]
        ways.append(replace(problem, places=tuple(places)))
    if not ways:
        raise BadValueError("RAM: how much is free here is unknown, and the output has to be there")
    return ways


def bound(problem: Problem, gpu_layers: int, *, output_counts: bool) -> Problem:
    """Leave so many layers to the host that the others are ``gpu_layers``.

    Args:
        problem: to be bound.
        gpu_layers: of the others.
        output_counts: the output is one of them, wherever it would be faster.

    Raises:
        BadValueError: the number is negative, or there is nothing but the host.
    """
    if gpu_layers < 0:
        counted = "; the output counts as one" if output_counts else ""
        raise BadValueError(f"--gpu-layers {gpu_layers}: give 0 or more{counted}")
    host, *others = problem.places
    if gpu_layers > 0 and not others:
        raise BadValueError(
            f"--gpu-layers {gpu_layers}: no card or peer was given; add --device, or leave it out"
        )
    layers = problem.layers
    kept = layers if gpu_layers == 0 else max(0, layers + output_counts - gpu_layers)
    host = replace(host, least_layers=kept, most_layers=kept)
    if gpu_layers == 0:
        others = [replace(place, most_layers=0, takes_output=False) for place in others]
    elif output_counts:
        host = replace(host, takes_output=False)
    return replace(problem, places=(host, *others))


def other_bytes(demand: Demand) -> int:
    """Return what the host holds whatever is computed where: the program, lists and logits."""
    return demand.program_bytes + demand.logits_bytes + demand.checkpoint_bytes


def host_output_bytes(demand: Demand) -> int:
    """A tied output is the embedding itself, unless the processor rearranges a copy of it."""
    return demand.repacked_bytes[-1] if demand.tied else demand.output_bytes


def _host(demand: Demand, stop: Stop) -> Place:
    nothing = (0.0,) * len(demand.layer_bytes)
    if stop.device is None or stop.rates is None:
        room = demand.embedding_bytes + other_bytes(demand)
        return Place(name="ram", room_bytes=room, layer_s=nothing, host=True, most_layers=0)
    return Place(
        name=stop.device.name,
        room_bytes=_room(stop.device),
        layer_s=stop.rates.decode_layer_s,
        fixed_bytes=demand.touched_bytes + demand.work_bytes,
        enter_s=stop.rates.token_s,
        host=True,
        output_bytes=host_output_bytes(demand),
        output_s=stop.rates.decode_output_s,
        expert_s=stop.rates.decode_expert_s,
    )


def _card(demand: Demand, stop: Stop) -> Place:
    assert stop.device is not None
    assert stop.rates is not None
    return Place(
        name=stop.device.name,
        room_bytes=_room(stop.device),
        layer_s=stop.rates.decode_layer_s,
        fixed_bytes=demand.compute_bytes,
        enter_s=stop.rates.token_s,
        output_bytes=demand.output_bytes,
        output_s=stop.rates.decode_output_s,
        expert_s=stop.rates.decode_expert_s,
        # What a launch costs beside the link, nobody has published.
        hop_s=stop.rates.token_s,
        stream_bytes=max(demand.expert_bytes, default=0),
    )


def _room(device: Device) -> int:
    return int(device.memory_bytes * (1 - MARGIN))
