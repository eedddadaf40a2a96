"""A whole plan: the model's bytes and seconds laid over the devices, and why not otherwise.

The host's RAM comes first in the row, then peers, then cards, as llama.cpp orders them. Of every
device a margin stays free, the worst error that a prediction of memory is allowed. What the host
needs is one copy of each weight: where a processor keeps a rearranged copy as well, the mapped one
may leave again, so both count only in what is reserved and what is resident at the peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.plan.alternatives import by_shares, list_alternatives
from shoestring.plan.memory import describe_demand
from shoestring.plan.speed import ACTIVATION_BYTES, Part, predict, rates
from shoestring.plan.split import Place, Problem, Split, best_split, score, why_not

if TYPE_CHECKING:
    from shoestring.hardware.devices import Device
    from shoestring.models.outline import Outline
    from shoestring.plan.alternatives import Alternative
    from shoestring.plan.memory import Demand, Settings
    from shoestring.plan.speed import Prediction, Rates
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.plan.split import Run

MARGIN = 0.06
"""Share of each memory that stays free: the worst error that a prediction is allowed."""
NOMINAL_BYTES_PER_S = {"cpu": 20e9, "gpu": 200e9, "peer": 20e9}
"""Only to put devices in an order whose bandwidth nobody knows; never shown."""
BY_HAND = "by hand"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is to be planned.

    Attributes:
        model: its name, for readers.
        outline: what it is.
        settings: of the engine.
        devices: at most one of kind ``cpu``; without one, RAM holds the embedding alone.
        prompt_tokens: of the prompt whose first token is waited for.
        gpu_layers: so many layers have to be on cards and peers, the output counted as one; None:
            as many as is best.
        shares: the user's own shares of them, in the order of the row; None: what is best.
    """

    model: str
    outline: Outline
    settings: Settings
    devices: tuple[Device, ...]
    prompt_tokens: int = 512
    gpu_layers: int | None = None
    shares: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Placed:
    """What one device holds.

    Attributes:
        device: None: RAM of which nobody said how much there is.
        layers: the first and the one after the last.
        output: whether it turns the last layer into tokens.
        weights_bytes: each weight once.
        cache_bytes: KV cache.
        compute_bytes: buffers for the work.
        other_bytes: of the host: the program, its vocabulary, the logits.
        free_bytes: before the model is loaded; None: unknown.
    """

    device: Device | None
    layers: Run
    output: bool
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    other_bytes: int
    free_bytes: int | None

    @property
    def name(self) -> str:
        """Of the device."""
        return "ram" if self.device is None else self.device.name

    @property
    def total_bytes(self) -> int:
        """All parts."""
        return self.weights_bytes + self.cache_bytes + self.compute_bytes + self.other_bytes


@dataclass(frozen=True)
class Plan:
    """What fits where, and how fast.

    Attributes:
        ask: what was asked.
        demand: what the model needs.
        problem: the row of places.
        split: the chosen one; None: nothing fits.
        placed: a device each, in the engine's order; empty: nothing fits.
        predicted: None where nothing fits, or a device's bandwidth is unknown.
        no_speed: why there is no prediction of speed.
        alternatives: other ways, with the reason why they are no better.
        rejected: a line each: what is no better than the best, and why; where nothing fits, the
            least that would do.
    """

    ask: Ask
    demand: Demand
    problem: Problem
    split: Split | None
    placed: tuple[Placed, ...]
    predicted: Prediction | None
    no_speed: str | None
    alternatives: tuple[Alternative, ...]
    rejected: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether there is a place for everything."""
        return self.split is not None and self.split.fits


def make_plan(ask: Ask, constants: SpeedConstants) -> Plan:
    """Lay a model over devices so that a token takes the least time.

    Raises:
        BadValueError: no engine takes the settings or the shares.
    """
    demand = describe_demand(ask.outline, ask.settings)
    row, no_speed = _row(ask, constants)
    problem = _problem(demand, row, ask.outline.shape.width)
    if ask.shares is None and ask.gpu_layers is not None:
        problem = _bounded(problem, ask.gpu_layers)
    best = best_split(problem)
    if ask.shares is None:
        if best is None:
            return Plan(ask, demand, problem, None, (), None, None, (), (why_not(problem),))
        chosen, ways = best, list_alternatives(problem, best)
    else:
        chosen, ways = _by_hand(ask.shares, ask.gpu_layers, problem, best)
    parts = _parts(row, chosen)
    return Plan(
        ask=ask,
        demand=demand,
        problem=problem,
        split=chosen,
        placed=_placed(demand, row, chosen),
        predicted=_predict(ask, parts, chosen) if no_speed is None and chosen.fits else None,
        no_speed=no_speed,
        alternatives=tuple(ways),
        rejected=tuple(
            f"{way.name}: {way.reason}"
            for way in ways
            if best is None or way.split.runs != best.runs
        ),
    )


@dataclass(frozen=True)
class _Stop:
    """One device of the row, with what it does with the model."""

    device: Device | None
    rates: Rates | None


def _row(ask: Ask, constants: SpeedConstants) -> tuple[list[_Stop], str | None]:
    """Return the devices in the engine's order, and why speeds are unknown if they are."""
    hosts = [device for device in ask.devices if device.kind == "cpu"]
    others = [device for device in ask.devices if device.kind == "peer"]
    others += [device for device in ask.devices if device.kind == "gpu"]
    unknown = [
        device
        for device in ask.devices
        if device.bandwidth_bytes_per_s is None
        and not (device.kind == "cpu" and constants.here is not None)
    ]

    def stop(device: Device) -> _Stop:
        known = device
        if device in unknown:
            known = replace(device, bandwidth_bytes_per_s=NOMINAL_BYTES_PER_S[device.kind])
        return _Stop(device, rates(ask.outline, known, constants, ask.settings))

    row = [stop(hosts[0]) if hosts else _Stop(None, None), *map(stop, others)]
    no_speed = "; ".join(f"{device.name}: {device.source}" for device in unknown)
    return row, no_speed or None


def _problem(demand: Demand, row: list[_Stop], width: int) -> Problem:
    return Problem(
        weights_bytes=demand.layer_bytes,
        cache_bytes=demand.cache_bytes,
        places=(_host(demand, row[0]), *(_card(demand, stop, width) for stop in row[1:])),
        embedding_bytes=demand.embedding_bytes + _other(demand),
        expert_bytes=demand.expert_bytes if any(demand.expert_bytes) else (),
    )


def _host(demand: Demand, stop: _Stop) -> Place:
    nothing = (0.0,) * len(demand.layer_bytes)
    if stop.device is None or stop.rates is None:
        room = demand.embedding_bytes + _other(demand)
        return Place(name="ram", room_bytes=room, layer_s=nothing, host=True, most_layers=0)
    return Place(
        name=stop.device.name,
        room_bytes=_room(stop.device),
        layer_s=stop.rates.decode_layer_s,
        fixed_bytes=demand.touched_bytes + demand.work_bytes,
        enter_s=stop.rates.token_s,
        host=True,
        output_bytes=_host_output(demand),
        output_s=stop.rates.decode_output_s,
        expert_s=stop.rates.decode_expert_s,
    )


def _card(demand: Demand, stop: _Stop, width: int) -> Place:
    assert stop.device is not None
    assert stop.rates is not None
    link = stop.device.link_bytes_per_s
    return Place(
        name=stop.device.name,
        room_bytes=_room(stop.device),
        layer_s=stop.rates.decode_layer_s,
        fixed_bytes=demand.compute_bytes,
        enter_s=stop.rates.token_s,
        output_bytes=demand.output_bytes,
        output_s=stop.rates.decode_output_s,
        expert_s=stop.rates.decode_expert_s,
        # There and back; what a launch costs beside it, nobody has published.
        hop_s=2 * width * ACTIVATION_BYTES / link if link else 0.0,
        stream_bytes=max(demand.expert_bytes, default=0),
    )


def _room(device: Device) -> int:
    return int(device.memory_bytes * (1 - MARGIN))


def _other(demand: Demand) -> int:
    return demand.program_bytes + demand.logits_bytes + demand.checkpoint_bytes


def _host_output(demand: Demand) -> int:
    """A tied output is the embedding itself, unless the processor rearranges a copy of it."""
    return demand.repacked_bytes[-1] if demand.tied else demand.output_bytes


def _bounded(problem: Problem, gpu_layers: int) -> Problem:
    """Leave so many layers to the host that the others, with the output, are ``gpu_layers``."""
    if gpu_layers < 0:
        raise BadValueError(f"--gpu-layers {gpu_layers}: give 0 or more; the output counts as one")
    layers = problem.layers
    kept = layers if gpu_layers == 0 else max(0, layers + 1 - gpu_layers)
    host, *others = problem.places
    if gpu_layers == 0:  # nor the output
        others = [replace(place, room_bytes=0) for place in others]
    return replace(problem, places=(replace(host, least_layers=kept, most_layers=kept), *others))


def _by_hand(
    shares: tuple[float, ...], gpu_layers: int | None, problem: Problem, best: Split | None
) -> tuple[Split, list[Alternative]]:
    """Score what the user wants, with the best beside it."""
    cards = len(problem.places) - 1
    if len(shares) != cards:
        raise BadValueError(
            f"--tensor-split has {len(shares)} shares for {cards} devices beside RAM: "
            "give a share for each"
        )
    against = best or score(problem, _all_on_host(problem), output=0)
    way = by_shares(problem, against, BY_HAND, shares, gpu_layers=gpu_layers)
    return way.split, [way]


def _all_on_host(problem: Problem) -> list[Run]:
    layers = problem.layers
    return [(0, layers), *((layers, layers) for _ in problem.places[1:])]


def _parts(row: list[_Stop], split: Split) -> list[Part]:
    return [
        Part(
            stop.rates,
            first,
            end,
            output=index == split.output,
            host=index == 0 and split.expert_layers > 0,
        )
        for index, (stop, (first, end)) in enumerate(zip(row, split.runs, strict=True))
        if stop.rates is not None
    ]


def _predict(ask: Ask, parts: list[Part], split: Split) -> Prediction:
    return predict(parts, prompt_tokens=ask.prompt_tokens, expert_layers=split.expert_layers)


def _placed(demand: Demand, row: list[_Stop], split: Split) -> tuple[Placed, ...]:
    placed = []
    for index, (stop, (first, end)) in enumerate(zip(row, split.runs, strict=True)):
        output = index == split.output
        weights = sum(demand.layer_bytes[first:end])
        moved = min(end, split.expert_layers)
        if index == 0:
            weights += demand.embedding_bytes + (_host_output(demand) if output else 0)
            weights += sum(demand.expert_bytes[end : max(end, split.expert_layers)])
            compute = demand.touched_bytes + demand.work_bytes
        else:
            weights += demand.output_bytes if output else 0
            weights -= sum(demand.expert_bytes[first:moved]) if moved > first else 0
            compute = demand.compute_bytes
            compute += max(demand.expert_bytes, default=0) if moved > first else 0
        used = end > first or output or (index == 0 and split.expert_layers > 0)
        placed.append(
            Placed(
                device=stop.device,
                layers=(first, end),
                output=output,
                weights_bytes=weights,
                cache_bytes=sum(demand.cache_bytes[first:end]),
                compute_bytes=compute if used else 0,
                other_bytes=_other(demand) if index == 0 else 0,
                free_bytes=None if stop.device is None else stop.device.memory_bytes,
            )
        )
    return tuple(placed)
