"""How fast a model will be on the devices that it is laid over, and within what interval.

:func:`rates` says what each layer costs on one device; :func:`predict` adds up what a placement
uses of several, one after the other, as llama.cpp runs them::

    seconds a token = sum over devices in use (fixed cost + its layers) + output
    first token     = prompt tokens * seconds a token of the prompt + the output once

The constants were fitted on published rows (:mod:`shoestring.plan.speed_published`), or on this
machine (:mod:`shoestring.plan.speed_here`); the law is in :mod:`shoestring.plan.speed_terms`, and
what a card does in prompts for layers that lie in RAM in :mod:`shoestring.plan.speed_sent`. An
interval covers four of five devices that the fit had not seen. What has no bandwidth has no
prediction: none is invented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.plan.kv_cache import bytes_of_token, is_local
from shoestring.plan.speed_chips import chip_of, fitted_on
from shoestring.plan.speed_sent import copy_times, send
from shoestring.plan.speed_terms import (
    Block,
    Work,
    add_up,
    decode_terms,
    output_prefix,
    prefill_terms,
    work_of,
    works_by_layer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.hardware.devices import Device
    from shoestring.models.outline import Outline
    from shoestring.models.shapes import Shape
    from shoestring.plan.memory import Settings
    from shoestring.plan.speed_constants import SpeedConstants

FITTED_PROMPT = 512
"""Tokens of the published prompts."""
CACHE_TYPE = "F16"
"""The KV cache is read as weights of this type are."""
ACTIVATION_BYTES = 4
"""Of each element that goes from device to device."""
SCORES = 4
"""Operations of attention for each element of a head and each token that it looks at."""


@dataclass(frozen=True)
class Interval:
    """A prediction, and what four of five true values lie between."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """How fast a placement is.

    Attributes:
        decode_tokens_per_s: of one answer.
        prefill_tokens_per_s: of its prompt.
        ttft_s: from the prompt to the first token, the model loaded and nothing cached.
        fitted_on: what the constants rest on, for readers.
    """

    decode_tokens_per_s: Interval
    prefill_tokens_per_s: Interval
    ttft_s: Interval
    fitted_on: str


@dataclass(frozen=True)
class Rates:
    """What one device does with one model.

    Attributes:
        device: its name.
        decode_layer_s: seconds a token of each layer.
        decode_expert_s: what of them the experts take; all 0 without experts.
        decode_output_s: of the output.
        token_s: once a token, if the device is used: its link. It is also paid for each layer
            whose experts the host computes.
        prefill_layer_s_per_token: of a prompt, each layer.
        prefill_expert_s_per_token: what of them the experts take.
        prefill_output_s: once a prompt.
        prefill_token_s: of the link, a token of the prompt.
        decode_spread: half-width of the interval, as a logarithm.
        prefill_spread: likewise.
        fitted_on: for readers.
        in_ram: whether its weights lie in RAM, from where a card may take them.
        copy_layer_s_per_token: of a prompt, if a layer's weights come here from RAM; empty: none.
        copy_expert_s_per_token: if those of its experts do.
    """

    device: str
    decode_layer_s: tuple[float, ...]
    decode_expert_s: tuple[float, ...]
    decode_output_s: float
    token_s: float
    prefill_layer_s_per_token: tuple[float, ...]
    prefill_expert_s_per_token: tuple[float, ...]
    prefill_output_s: float
    prefill_token_s: float
    decode_spread: float
    prefill_spread: float
    fitted_on: str
    in_ram: bool
    copy_layer_s_per_token: tuple[float, ...]
    copy_expert_s_per_token: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """What a placement gives to one device.

    Attributes:
        rates: of the device.
        first: its first layer.
        end: the one after its last; the same as ``first``: it has none.
        output: whether the output is there.
        host: whether experts that other devices leave out are computed here.
    """

    rates: Rates
    first: int
    end: int
    output: bool = False
    host: bool = False


def rates(
    outline: Outline,
    device: Device,
    constants: SpeedConstants,
    settings: Settings,
    *,
    depth_tokens: int = 0,
    prompt_tokens: int = 512,
) -> Rates:
    """Say what each layer of a model costs on a device.

    Args:
        outline: the model.
        device: with its bandwidth.
        constants: from :func:`shoestring.plan.speed_constants.load_constants`.
        settings: of the engine.
        depth_tokens: how many tokens the context holds when an answer is decoded.
        prompt_tokens: of the prompt. What is fewer than a batch fills no device, and in a long
            prompt each token looks at many before it.

    Raises:
        BadValueError: the bandwidth of the device is unknown.
    """
    chip, fit, guessed = chip_of(device, constants)
    shape, values = outline.shape, fit.values
    batch = min(settings.ubatch, prompt_tokens)

    def decode(work: Work) -> float:
        return add_up(decode_terms(chip, work), values)

    def prefill(work: Work) -> float:
        flash = settings.flash_attention
        return add_up(prefill_terms(chip, work, batch=batch, flash_attention=flash), values)

    layers, experts = works_by_layer(outline)
    seen = [_seen(shape, number, depth_tokens) for number in range(shape.layers)]
    # Constants of prompts were fitted on FITTED_PROMPT tokens: what those look at is in them.
    more = max(0, prompt_tokens - FITTED_PROMPT) // 2
    before = [_seen(shape, number, more) for number in range(shape.layers)]
    output_s = decode(work_of(outline, (output_prefix(outline),), choices=shape.vocabulary))
    activation_bytes = 2 * shape.width * ACTIVATION_BYTES  # there and back
    moved_s = activation_bytes / device.link_bytes_per_s if device.link_bytes_per_s else 0.0
    return Rates(
        device=device.name,
        decode_layer_s=tuple(
            decode(layer) + decode(_cache(shape, settings, tokens))
            for layer, tokens in zip(layers, seen, strict=True)
        ),
        decode_expert_s=tuple(decode(part) for part in experts),
        decode_output_s=output_s,
        token_s=device.link_latency_s + moved_s,
        prefill_layer_s_per_token=tuple(
            prefill(layer) + prefill(_scores(shape, tokens))
            for layer, tokens in zip(layers, before, strict=True)
        ),
        prefill_expert_s_per_token=tuple(prefill(part) for part in experts),
        prefill_output_s=output_s,
        prefill_token_s=device.link_latency_s / batch + moved_s,
        decode_spread=fit.spread(fit.decode_spread, chip.driver, chip.generation),
        prefill_spread=math.hypot(
            fit.spread(fit.prefill_spread, chip.driver, chip.generation), guessed
        ),
        fitted_on=f"{device.name}: {fitted_on(fit, chip)}",
        in_ram=device.kind == "cpu",
        copy_layer_s_per_token=copy_times(layers, device, batch),
        copy_expert_s_per_token=copy_times(experts, device, batch),
    )


def predict(
    parts: Sequence[Part], *, prompt_tokens: int = 512, expert_layers: int = 0
) -> Prediction:
    """Add up what a placement takes.

    Args:
        parts: in the order of the layers, all of which are somewhere, as is the output.
        prompt_tokens: of the prompt whose first token is waited for.
        expert_layers: so many first layers have their experts computed by the host.
    """
    used = [part for part in parts if part.end > part.first or part.output or part.host]
    assert expert_layers == 0 or any(part.host for part in used), "no part computes the experts"
    decode = [_decode_s(part, expert_layers) for part in used]
    at_prompts = send(used)
    prefill = [_prefill_s(part, expert_layers) for part in at_prompts]
    last_s = math.fsum(part.rates.prefill_output_s for part in used if part.output)
    decode_width = _width(decode, [part.rates.decode_spread for part in used])
    prefill_width = _width(prefill, [part.rates.prefill_spread for part in at_prompts])
    return Prediction(
        decode_tokens_per_s=_interval(1 / math.fsum(decode), decode_width),
        prefill_tokens_per_s=_interval(1 / math.fsum(prefill), prefill_width),
        ttft_s=_interval(prompt_tokens * math.fsum(prefill) + last_s, prefill_width),
        fitted_on="; ".join(dict.fromkeys(part.rates.fitted_on for part in used)),
    )


def _decode_s(part: Part, expert_layers: int) -> float:
    of = part.rates
    seconds = _layers_s(of.decode_layer_s, of.decode_expert_s, part, expert_layers)
    if part.output:
        seconds += of.decode_output_s
    visits = (part.end > part.first or part.output) + _left_out(part, expert_layers)
    return seconds + visits * of.token_s


def _prefill_s(part: Part, expert_layers: int) -> float:
    of = part.rates
    seconds = _layers_s(
        of.prefill_layer_s_per_token, of.prefill_expert_s_per_token, part, expert_layers
    )
    visits = (part.end > part.first) + _left_out(part, expert_layers)
    return seconds + visits * of.prefill_token_s


def _left_out(part: Part, expert_layers: int) -> int:
    """Return how many layers of a part wait for the host to compute their experts."""
    some = any(part.rates.decode_expert_s)
    return max(0, min(part.end, expert_layers) - part.first) if some and not part.host else 0


def _layers_s(
    layer_s: Sequence[float], expert_s: Sequence[float], part: Part, expert_layers: int
) -> float:
    """Add up the layers of a part; the host computes the experts of the first ones for all."""
    own_s = math.fsum(layer_s[part.first : part.end])
    if not part.host:
        return own_s - math.fsum(expert_s[part.first : min(part.end, expert_layers)])
    before, after = expert_s[: min(part.first, expert_layers)], expert_s[part.end : expert_layers]
    return own_s + math.fsum(before) + math.fsum(after)


def _seen(shape: Shape, layer: int, tokens: int) -> int:
    """Return how many tokens of the context a layer looks at."""
    window = shape.sliding_window if is_local(shape, layer) else None
    return tokens if window is None else min(tokens, window)


def _cache(shape: Shape, settings: Settings, tokens: int) -> Work:
    """Say what reading the cache of one layer is."""
    read_bytes = float(tokens * bytes_of_token(shape, settings))
    return Work({CACHE_TYPE: Block(read_bytes, 0.0)})


def _scores(shape: Shape, tokens: int) -> Work:
    """Say what attention over so many tokens is, in weights of two operations each."""
    return Work({CACHE_TYPE: Block(0.0, SCORES / 2 * shape.heads * shape.head_dim * tokens)})


def _width(seconds: Sequence[float], spreads: Sequence[float]) -> float:
    """Return the spread of a sum whose parts are all too fast or all too slow together."""
    weighted = [part * spread for part, spread in zip(seconds, spreads, strict=True)]
    return math.fsum(weighted) / math.fsum(seconds)


def _interval(value: float, width: float) -> Interval:
    return Interval(value, value * math.exp(-width), value * math.exp(width))
