"""Greets peers before a route is planned: who answers, how far away, what its device should do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.swarm.market.sellers import predict_layers
from shoestring.swarm.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.models.outline import Outline
    from shoestring.plan.speed_constants import SpeedConstants
    from shoestring.swarm.identity import Identity
    from shoestring.swarm.market.measured import Measured
    from shoestring.swarm.market.sellers import LayerTimes
    from shoestring.swarm.peers import Peer


@dataclass(frozen=True)
class Greeted:
    """What peers said.

    Attributes:
        predicted: the planner's times by node, where its device says enough.
        free: sessions that each could begin now, by node; who is not in it did not answer.
    """

    predicted: dict[str, LayerTimes]
    free: dict[str, int]


async def greet_sellers(
    identity: Identity,
    peers: Iterable[Peer],
    measured: Measured,
    outline: Outline,
    constants: SpeedConstants,
) -> Greeted:
    """Greet peers that may serve us, and keep the round trips that were measured.

    Args:
        identity: ours.
        peers: whom we know.
        measured: gets the round trips.
        outline: of the model that is to be routed.
        constants: of speed.

    Raises:
        BadValueError: the file of what was measured cannot be used.
    """
    seen, _ = await survey(identity, peers)
    predicted: dict[str, LayerTimes] = {}
    free: dict[str, int] = {}
    for one in seen:
        node = one.remote.address.id
        free[node] = 0 if one.why_not is not None else one.free
        measured.saw(node, times=[("rtt_s", one.device.link_latency_s)])
        times = predict_layers(outline, one.device, constants)
        if times is not None:
            predicted[node] = times
    return Greeted(predicted, free)
