"""Which peers answer, what they offer, and how far away they are.

The round trip is measured by words over the link itself, so it holds what TLS and the other
side's agent take, as each token will: the median of :data:`PINGS`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from shoestring.errors import BadValueError, ShoestringError
from shoestring.hardware.devices import Device
from shoestring.swarm.addresses import PeerAddress, parse_place
from shoestring.swarm.link import LinkError, connect
from shoestring.swarm.stage import RefusedError, Remote, printable
from shoestring.swarm.wire import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.peers import Peer

PINGS: Final = 21
HEAR_S: Final = 10.0
GREET_S: Final = 15.0
COMMON_PROCESSOR: Final = "x86-avx2"
MOST_BYTES: Final = 1 << 50


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
            async with asyncio.timeout(GREET_S):
                return await greet(identity, remote)
        except LinkError as error:
            last = error
        except TimeoutError:
            last = LinkError(
                "timeout", f"{peer.name} is too slow: no whole greeting in {GREET_S} s"
            )
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
        if told.get("rpc") != list(VERSION):
            raise LinkError("word", f"{remote.name} speaks another RPC: install the same engines")
        times_s = []
        for _ in range(PINGS):
            number = secrets.randbits(48)  # nobody answers it before it was sent
            sent_s = time.perf_counter()
            await link.say({"ping": number})
            back = await link.hear(HEAR_S)
            times_s.append(time.perf_counter() - sent_s)
            if back.get("ping") != number:
                raise LinkError("word", f"{remote.name} answers what it was not asked")
    finally:
        link.abort()
    return Seen(
        remote=remote,
        device=_device(remote, told, median(times_s)),
        engine_sha256=printable(told.get("engine_sha256")),
        free=told["free"] if isinstance(told.get("free"), int) else 0,
    )


def _device(remote: Remote, told: dict[str, Any], rtt_s: float) -> Device:
    name = remote.name
    memory = told.get("memory_bytes")
    if type(memory) is not int or not 0 < memory < MOST_BYTES:
        raise LinkError("word", f"{name} does not say how much memory it offers")
    return Device(
        name=f"peer:{name}@{remote.address.id[:8]}",  # two may have the same name
        kind="peer",
        title=printable(told.get("title")),
        memory_bytes=memory,
        bandwidth_bytes_per_s=_possible(told.get("bandwidth_bytes_per_s"), 1e6, 1e15),
        compute_flops=_possible(told.get("compute_flops"), 1e8, 1e18),
        generation=_generation(told),
        link_latency_s=rtt_s,
        link_bytes_per_s=None,
        source=f"told by {name}; round trip measured",
        total_bytes=None,
    )


def _possible(value: Any, least: float, most: float) -> float | None:
    """Return what a peer says of itself, or None: it says nothing that can be."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and least <= value <= most else None


def _generation(told: dict[str, Any]) -> str | None:
    """Return the peer's; a processor that names none is taken for a common one, not for a GPU."""
    said = told.get("generation")
    if isinstance(said, str):
        return printable(said)
    return COMMON_PROCESSOR if told.get("kind") == "cpu" else None
