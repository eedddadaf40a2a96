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
        free: sessions that each could begin now, by node; who is not in it was not greeted.
        why_not: why nodes begin none: an owner pauses, one is not reached, or speaks otherwise.
    """

    predicted: dict[str, LayerTimes]
    free: dict[str, int]
    why_not: dict[str, str]


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
    seen, failed = await survey(identity, peers)
    by_node = {one.remote.address.id: one for one in seen}
    measured.saw_ways({node: one.device.link_latency_s for node, one in by_node.items()})
    times = {
        node: predict_layers(outline, one.device, constants) for node, one in by_node.items()
    }  # fmt: skip
    return Greeted(
        predicted={node: one for node, one in times.items() if one is not None},
        free={node: one.free for node, one in by_node.items()},
        why_not={
            **{peer.id: str(error) for peer, error in failed.items()},
            **{node: one.why_not for node, one in by_node.items() if one.why_not is not None},
        },
    )
