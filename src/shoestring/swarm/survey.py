"""Which peers answer, what they offer, and how far away they are.

The round trip is measured by words over the link itself, so it holds what TLS and the other
side's agent take, as each token will: the median of :data:`PINGS`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError, ShoestringError
from shoestring.hardware.devices import Device
from shoestring.swarm.addresses import PeerAddress, parse_place
from shoestring.swarm.link import LinkError, connect
from shoestring.swarm.stage import RefusedError, Remote, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.peers import Peer

PINGS: Final = 21
HEAR_S: Final = 10.0


@dataclass(frozen=True)
class Seen:
    """A peer that answered.

    Attributes:
        remote: how to reach it.
        device: what it offers, as the planner takes it: kind ``peer``, with the round trip.
        engine_sha256: of its worker's program.
        free: sessions that it could begin now.
    """

    remote: Remote
    device: Device
    engine_sha256: str
    free: int


async def survey(
    identity: Identity, peers: Iterable[Peer]
) -> tuple[list[Seen], dict[str, ShoestringError]]:
    """Greet all peers that may serve us at once; return who answered, and why others did not."""
    asked = [peer for peer in peers if "serve" in peer.rights]
    found = await asyncio.gather(*(_greet_any(identity, peer) for peer in asked))
    seen = [one for one in found if isinstance(one, Seen)]
    failed = {
        peer.name: one
        for peer, one in zip(asked, found, strict=True)
        if isinstance(one, ShoestringError)
    }
    return sorted(seen, key=lambda one: one.device.link_latency_s), failed


async def _greet_any(identity: Identity, peer: Peer) -> Seen | ShoestringError:
    """Greet a peer at the first of its addresses that answers."""
    last: ShoestringError = BadValueError(f"{peer.name} has no address: invite it anew with one")
    for place in peer.addresses:
        host, port = parse_place(place)
        remote = Remote(peer.name, PeerAddress(peer.id, host, port), peer.certificate)
        try:
            return await greet(identity, remote)
        except LinkError as error:
            last = error
    return last


async def greet(identity: Identity, remote: Remote) -> Seen:
    """Ask one node what it offers, and measure the way to it.

    Raises:
        LinkError: it cannot be reached, or refuses, or says what cannot be.
    """
    link = await connect(identity, remote.address, certificate=remote.certificate)
    try:
        await link.say({"do": "hello"})
        told = await link.hear(HEAR_S)
        if told.get("ok") is not True:
            raise RefusedError(printable(told.get("reason")), printable(told.get("message")))
        times_s = []
        for number in range(PINGS):
            sent_s = time.perf_counter()
            await link.say({"ping": number})
            await link.hear(HEAR_S)
            times_s.append(time.perf_counter() - sent_s)
    finally:
        link.abort()
    return Seen(
        remote=remote,
        device=_device(remote.name, told, median(times_s)),
        engine_sha256=printable(told.get("engine_sha256")),
        free=told["free"] if isinstance(told.get("free"), int) else 0,
    )


def _device(name: str, told: dict[str, Any], rtt_s: float) -> Device:
    memory = told.get("memory_bytes")
    if not isinstance(memory, int) or memory < 0:
        raise LinkError("word", f"{name} does not say how much memory it offers")
    return Device(
        name=f"peer:{name}",
        kind="peer",
        title=printable(told.get("title")),
        memory_bytes=memory,
        bandwidth_bytes_per_s=_positive(told.get("bandwidth_bytes_per_s")),
        compute_flops=_positive(told.get("compute_flops")),
        generation=printable(told.get("generation")) if told.get("generation") else None,
        link_latency_s=rtt_s,
        link_bytes_per_s=None,
        source=f"told by {name}; round trip measured",
        total_bytes=None,
    )


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e18 else None  # noqa: PLR2004
