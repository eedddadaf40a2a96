"""Sellers for a board: what nodes quote, what was measured of them, and what the planner expects.

A time is what was measured; else the longer of what the node claims in its quote and of what the
planner predicts of its device, so that nobody is chosen for a claim that its device cannot keep;
else the one of both that is known. Who has none of these is left out with the reason, as is whose
distance nobody knows, and who was found to cheat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

from shoestring.plan.memory import Settings
from shoestring.plan.speed import rates
from shoestring.swarm.market.board import Seller
from shoestring.swarm.market.measured import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from shoestring.hardware.devices import Device
    from shoestring.models.outline import Outline
    from shoestring.plan.speed import Rates
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.market.quotes import Quote

TIMES: Final[tuple[Literal["layer_s", "prompt_layer_s"], ...]] = ("layer_s", "prompt_layer_s")


@dataclass(frozen=True)
class LayerTimes:
    """What an average layer of a model takes on a device.

    Attributes:
        layer_s: seconds a token of an answer.
        prompt_layer_s: likewise of a prompt.
    """

    layer_s: float
    prompt_layer_s: float


@dataclass(frozen=True)
class Home:
    """What this machine takes for its own part.

    Attributes:
        tpot_s: seconds a token.
        ttft_s: of a prompt.
    """

    tpot_s: float
    ttft_s: float


@dataclass(frozen=True)
class Left:
    """A node that is not on the board, and why."""

    node: str
    why: str


def predict_layers(
    outline: Outline, device: Device, constants: SpeedConstants
) -> LayerTimes | None:
    """Return the planner's prediction; None: the device's bandwidth is unknown."""
    found = _rates(outline, device, constants)
    if found is None:
        return None
    return LayerTimes(fmean(found.decode_layer_s), fmean(found.prefill_layer_s_per_token))


def predict_home(
    outline: Outline, device: Device, constants: SpeedConstants, *, layers: int, prompt_tokens: int
) -> Home | None:
    """Return the planner's prediction of the first layers and the output; None: unknown bandwidth.

    Args:
        outline: the model.
        device: this machine's processor.
        constants: of speed.
        layers: so many first ones stay here.
        prompt_tokens: of the prompt.
    """
    found = _rates(outline, device, constants)
    if found is None:
        return None
    prompt_s = prompt_tokens * sum(found.prefill_layer_s_per_token[:layers])
    return Home(
        sum(found.decode_layer_s[:layers]) + found.decode_output_s,
        prompt_s + found.prefill_output_s,
    )


def sellers_of(
    quotes: Iterable[Quote],
    model: str,
    layers: int,
    measured: Mapping[str, Record],
    *,
    now_s: float,
    predicted: Mapping[str, LayerTimes] | None = None,
    free: Mapping[str, int] | None = None,
    why_not: Mapping[str, str] | None = None,
    owners: Mapping[str, str] | None = None,
    excluded: Collection[str] = (),
) -> tuple[list[Seller], list[Left]]:
    """Return who can be on the board of a model, and who not for which reason.

    Args:
        quotes: one of each node and model.
        model: its full name.
        layers: that it has.
        measured: what was seen, by node.
        now_s: seconds since 1970.
        predicted: by node, of devices that the planner knows.
        free: sessions by node, of those that answered; None: nobody was asked.
        why_not: why nodes begin no session, of peers that said so or could not be greeted.
        owners: by node, of those that are linked; what a quote says of it is a claim.
        excluded: nodes that are chosen no more.
    """
    found, left = [], []
    for quote in quotes:
        why = None
        if quote.node in excluded:
            why = "excluded: found to cheat"
        elif quote.node in (why_not or {}):
            why = f"closed: {(why_not or {})[quote.node]}"
        elif free is not None and quote.node not in free:
            why = "silent: it is no peer that serves us"
        if why is not None:
            left.append(Left(quote.node, why))
            continue
        made = _seller(
            quote, model, layers, measured.get(quote.node, Record(quote.node)),
            (predicted or {}).get(quote.node), (owners or {}).get(quote.node), now_s,
        )  # fmt: skip
        if isinstance(made, Seller):
            found.append(made if free is None else replace(made, free=free[quote.node]))
        else:
            left.append(Left(quote.node, made))
    return found, left


def _seller(
    quote: Quote,
    model: str,
    layers: int,
    record: Record,
    predicted: LayerTimes | None,
    owner: str | None,
    now_s: float,
) -> Seller | str:
    if quote.model != model:
        return f"wrong model: it sells {quote.model}"
    if quote.until_s <= now_s:
        return f"expired: its quote ran out {now_s - quote.until_s:.0f} s ago"
    if quote.end > layers:
        return f"wrong model: it quotes {quote.end} layers, and {model} has {layers}"
    rtt_s = record.mean("rtt_s", "", now_s)
    if rtt_s is None:
        return (
            "unknown distance: its round trip was never measured; it has to be a peer that answers"
        )
    times = []
    for what in TIMES:
        claims = (getattr(quote, what), None if predicted is None else getattr(predicted, what))
        said = [one for one in claims if one is not None]
        time_s = record.mean(what, model, now_s)
        if time_s is None and said:
            time_s = max(said)
        if time_s is None:
            return "unknown speed: not measured, not claimed, and its device's bandwidth is unknown"
        times.append(time_s)
    return Seller(
        id=quote.node, first=quote.first, end=quote.end, most_layers=quote.most_layers,
        price_in=quote.price_in, price_out=quote.price_out,
        layer_s=times[0], prompt_layer_s=times[1], rtt_s=rtt_s,
        trust=record.trust(now_s), until_s=float(quote.until_s), owner=owner,
    )  # fmt: skip


def _rates(outline: Outline, device: Device, constants: SpeedConstants) -> Rates | None:
    if device.bandwidth_bytes_per_s is None and (device.kind != "cpu" or constants.here is None):
        return None
    return rates(outline, device, constants, Settings(context=4096))
