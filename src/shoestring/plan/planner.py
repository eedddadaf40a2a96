"""A whole plan: the model's bytes and seconds laid over the devices, and why not otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.plan.alternatives import by_shares, list_alternatives
from shoestring.plan.memory import REPACKED_BY, describe_demand
from shoestring.plan.row import (
    bound,
    host_output_bytes,
    keep_output,
    make_problem,
    make_row,
    other_bytes,
)
from shoestring.plan.speed import Part, predict
from shoestring.plan.split import best_split, score, why_not

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.hardware.devices import Device
    from shoestring.models.outline import Outline
    from shoestring.plan.alternatives import Alternative
    from shoestring.plan.memory import Demand, Settings
    from shoestring.plan.row import Stop
    from shoestring.plan.speed import Interval, Prediction
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.plan.split import Problem, Run, Split

BY_HAND = "by hand"
REARRANGING: Mapping[str, str] = {
    "x86-avx512": "avx512",
    "x86-avx2": "avx2",
    "arm-dot": "neon",
    "arm": "none",
}
"""Generations of processors, and which types llama.cpp rearranges for them."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is to be planned.

    Attributes:
        model: its name, for readers.
        outline: what it is.
        settings: of the engine.
        devices: at most one of kind ``cpu``; without one, RAM holds the embedding alone.
        prompt_tokens: of the prompt whose first token is waited for.
        gpu_layers: so many layers have to be on cards and peers, the output counted as one unless
            it is kept from peers; None: as many as is best.
        shares: the user's own shares of them, in the order of the row; None: what is best.
        keeps_output: no peer gets the output, which is the most to send; not with shares.
    """

    model: str
    outline: Outline
    settings: Settings
    devices: tuple[Device, ...]
    prompt_tokens: int = 512
    gpu_layers: int | None = None
    shares: tuple[float, ...] | None = None
    keeps_output: bool = False


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
        predicted: from an empty context; None where nothing fits, or a device has a part of the
            model whose bandwidth is unknown.
        filled_tokens_per_s: of decoding where the context is full; nobody published how far such
            a prediction is off, and its interval is that of an empty one.
        no_speed: why there is no prediction of speed.
        alternatives: other ways, with the reason why they are no better; empty where nobody asked.
        rejected: a line each: what is no better than the best, and why; where nothing fits, the
            least that would do.
    """

    ask: Ask
    demand: Demand
    problem: Problem
    split: Split | None
    placed: tuple[Placed, ...]
    predicted: Prediction | None
    filled_tokens_per_s: Interval | None
    no_speed: str | None
    alternatives: tuple[Alternative, ...]
    rejected: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether there is a place for everything."""
        return self.split is not None and self.split.fits


def make_plan(ask: Ask, constants: SpeedConstants, *, alternatives: bool = True) -> Plan:
    """Lay a model over devices so that a token takes the least time.

    Args:
        ask: what is to be planned.
        constants: of speed.
        alternatives: whether other ways are scored beside the best.

    Raises:
        BadValueError: no engine takes the settings, the layers or the shares.
    """
    settings = _for_processor(ask)
    demand = describe_demand(ask.outline, settings)
    row = make_row(ask.devices, ask.outline, settings, constants, ask.prompt_tokens)
    problems = _problems(ask, make_problem(demand, row), row)
    problem, best = _best(problems)
    if ask.shares is not None:
        chosen, ways = _by_hand(ask.shares, ask.gpu_layers, problem, best)
    elif best is not None:
        chosen, ways = best, list_alternatives(problem, best) if alternatives else []
    else:
        return Plan(ask, demand, problem, None, (), None, None, None, (), (why_not(*problems),))
    no_speed = _why_no_speed(row, chosen)
    timed = no_speed is None and chosen.fits
    return Plan(
        ask=ask,
        demand=demand,
        problem=problem,
        split=chosen,
        placed=_placed(demand, row, chosen),
        predicted=_predict(ask, row, chosen, filled=False) if timed else None,
        filled_tokens_per_s=_predict(ask, row, chosen, filled=True).decode_tokens_per_s
        if timed
        else None,
        no_speed=no_speed,
        alternatives=tuple(ways),
        rejected=tuple(_reasons(row, ways, best)),
    )


def _problems(ask: Ask, problem: Problem, row: list[Stop]) -> list[Problem]:
    """Return the ways in which the row may be used, any of which will do."""
    if ask.shares is not None and ask.keeps_output:
        raise BadValueError(
            "--tensor-split shares the output out, which is to be kept from peers: give no shares"
        )
    problems = keep_output(problem, row) if ask.keeps_output else [problem]
    if ask.shares is not None or ask.gpu_layers is None:
        return problems
    counts = not ask.keeps_output
    return [bound(one, ask.gpu_layers, output_counts=counts) for one in problems]


def _best(problems: list[Problem]) -> tuple[Problem, Split | None]:
    """Return the fastest split and the problem that it solves; None: nothing fits."""
    solved = [(one, split) for one in problems if (split := best_split(one)) is not None]
    return min(solved, key=lambda pair: pair[1].token_s) if solved else (problems[0], None)


def _for_processor(ask: Ask) -> Settings:
    """Return the settings with the types that the host's processor rearranges."""
    known = next((one.generation for one in ask.devices if one.kind == "cpu"), None)
    kind = REARRANGING.get(known or "")
    return ask.settings if kind is None else replace(ask.settings, repacked=REPACKED_BY[kind])


def _why_no_speed(row: list[Stop], split: Split) -> str | None:
    """Say which device that has a part of the model has no bandwidth; None: each has one."""
    unknown = [
        f"{stop.device.name}: {stop.device.source}"
        for index, stop in enumerate(row)
        if stop.device is not None and not stop.known and _is_used(split, index)
    ]
    return "; ".join(unknown) or None


def _is_used(split: Split, index: int) -> bool:
    first, end = split.runs[index]
    return end > first or index == split.output or (index == 0 and split.expert_layers > 0)


def _reasons(row: list[Stop], ways: list[Alternative], best: Split | None) -> list[str]:
    """Say of each other way why it is no better; of times only where all are known."""
    timed = all(stop.known for stop in row)
    lines = []
    for way in ways:
        same = best is not None and (way.split.runs, way.split.output) == (best.runs, best.output)
        if way.split.fits and (same or not timed):
            continue
        reason = way.reason if timed else way.reason.partition(";")[0]
        lines.append(f"{way.name}: {reason}")
    return lines


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
    layers = problem.layers + 1 if gpu_layers is None else gpu_layers
    way = by_shares(problem, against, BY_HAND, shares, gpu_layers=layers)
    return way.split, [way]


def _all_on_host(problem: Problem) -> list[Run]:
    layers = problem.layers
    return [(0, layers), *((layers, layers) for _ in problem.places[1:])]


def _predict(ask: Ask, row: list[Stop], split: Split, *, filled: bool) -> Prediction:
    parts = [
        Part(
            timed,
            first,
            end,
            output=index == split.output,
            host=index == 0 and split.expert_layers > 0,
        )
        for index, (stop, (first, end)) in enumerate(zip(row, split.runs, strict=True))
        if (timed := stop.filled if filled else stop.rates) is not None
    ]
    return predict(parts, prompt_tokens=ask.prompt_tokens, expert_layers=split.expert_layers)


def _placed(demand: Demand, row: list[Stop], split: Split) -> tuple[Placed, ...]:
    placed = []
    for index, (stop, (first, end)) in enumerate(zip(row, split.runs, strict=True)):
        output = index == split.output
        weights = sum(demand.layer_bytes[first:end])
        moved = min(end, split.expert_layers)
        if index == 0:
            weights += demand.embedding_bytes + (host_output_bytes(demand) if output else 0)
            weights += sum(demand.expert_bytes[end : max(end, split.expert_layers)])
            compute = demand.touched_bytes + demand.work_bytes
        else:
            weights += demand.output_bytes if output else 0
            weights -= sum(demand.expert_bytes[first:moved]) if moved > first else 0
            compute = demand.compute_bytes
            compute += max(demand.expert_bytes, default=0) if moved > first else 0
        placed.append(
            Placed(
                device=stop.device,
                layers=(first, end),
                output=output,
                weights_bytes=weights,
                cache_bytes=sum(demand.cache_bytes[first:end]),
                compute_bytes=compute if _is_used(split, index) else 0,
                other_bytes=other_bytes(demand) if index == 0 else 0,
                free_bytes=None if stop.device is None else stop.device.memory_bytes,
            )
        )
    return tuple(placed)
