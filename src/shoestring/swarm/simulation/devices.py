"""What nodes have, and what a layer takes there: by the planner's own law of speed.

Seconds a layer are those of :func:`shoestring.plan.speed.rates` with the constants that were fitted
on published rows, for shapes of named models. Cards are those of the catalogue. What power a device
draws while it computes is assumed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

from shoestring.hardware.cards import find_card
from shoestring.hardware.devices import Device
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.speed import rates
from shoestring.plan.speed_constants import load_constants

if TYPE_CHECKING:
    from shoestring.models.outline import Outline

MODELS: Final = ("llama-3.1-8b:q4_k_m", "qwen2.5-14b:q4_k_m", "yi-34b:q4_k_m")
"""Of 32, 48 and 60 layers; the last is of as many as the note's example."""
HOME: Final = 5
"""Index of the kind of device at which users compute what they keep for themselves."""
CONTEXT: Final = 4_096
MICRO_PER_JOULE: Final = 25 * 1_000_000 / 3.6e6
"""A kilowatt-hour costs 25 credits, so that a credit is about a cent: assumed."""
PER_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A kind of device.

    Attributes:
        name: of the card in the catalogue, or of the memory.
        share: of all nodes.
        gives_bytes: of its memory, from the least to the most: about a tenth of a model, as the
            note wants it.
        watts: while it computes: assumed.
        sessions: that it serves at once.
        bandwidth_bytes_per_s: of a processor's memory; None: the card's.
    """

    name: str
    share: float
    gives_bytes: tuple[int, int]
    watts: float
    sessions: int
    bandwidth_bytes_per_s: float | None = None


KINDS: Final = (
    Kind("RTX 4090", 0.05, (3 << 30, 6 << 30), 350, 4),
    Kind("RTX 3060", 0.25, (2 << 30, 4 << 30), 150, 2),
    Kind("GTX 1080 Ti", 0.15, (2 << 30, 4 << 30), 200, 2),
    Kind("T4", 0.10, (2 << 30, 4 << 30), 65, 2),
    Kind("M2", 0.20, (1 << 30, 3 << 30), 20, 1),
    Kind("RAM, 2 channels of DDR5", 0.10, (1 << 30, 3 << 30), 60, 1, 70e9),
    Kind("RAM, 2 channels of DDR4", 0.15, (1 << 30, 3 << 30), 50, 1, 40e9),
)


@dataclass(frozen=True)
class Speed:
    """What one kind of device does with one model.

    Attributes:
        layers: that the model has.
        layer_bytes: of the largest layer's weights.
        layer_s: seconds a layer and token of an answer.
        prompt_layer_s: likewise of a prompt.
        output_s: of the output, a token.
        cost_in: micro-credits of power a million tokens of prompts and layer.
        cost_out: likewise of answers.
    """

    layers: int
    layer_bytes: int
    layer_s: float
    prompt_layer_s: float
    output_s: float
    cost_in: float
    cost_out: float


@functools.cache
def speed(model: int, kind: int) -> Speed:
    """Return what a kind of device does with a model, by their indices."""
    outline, of = _outline(model), KINDS[kind]
    found = rates(outline, _device(of), load_constants(), Settings(context=CONTEXT))
    layer_s, prompt_layer_s = fmean(found.decode_layer_s), fmean(found.prefill_layer_s_per_token)
    layers = outline.shape.layers
    micro = PER_MILLION * of.watts * MICRO_PER_JOULE
    return Speed(
        layers=layers,
        layer_bytes=-(-outline.file_bytes // layers),
        layer_s=layer_s,
        prompt_layer_s=prompt_layer_s,
        output_s=found.decode_output_s,
        cost_in=prompt_layer_s * micro,
        cost_out=layer_s * micro,
    )


@functools.cache
def _outline(model: int) -> Outline:
    return outline_of_shape(MODELS[model])


def _device(of: Kind) -> Device:
    card = find_card(of.name) if of.bandwidth_bytes_per_s is None else None
    flops = None if card is None else card.compute_flops or card.fp32_flops
    return Device(
        name=of.name,
        kind="cpu" if card is None else "gpu",
        title=of.name,
        memory_bytes=of.gives_bytes[1],
        bandwidth_bytes_per_s=of.bandwidth_bytes_per_s if card is None
        else card.bandwidth_bytes_per_s,
        compute_flops=flops,
        generation=None if card is None else card.generation,
        link_latency_s=0.0,
        link_bytes_per_s=None,
        source="the catalogue" if card is not None else "assumed",
    )  # fmt: skip
