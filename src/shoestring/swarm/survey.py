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
from shoestring.swarm.proof.agreeing import FREE, Price
from shoestring.swarm.proof.receipts import VERSION as RECEIPT_VERSION
from shoestring.swarm.remote import RefusedError, Remote
from shoestring.swarm.wire import VERSION
from shoestring.swarm.words import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.link import Link
    from shoestring.swarm.peers import Peer

    Look = Callable[[Collection[str]], Awaitable[Mapping[str, Sequence[str]]]]

PINGS: Final = 21
HEAR_S: Final = 10.0
GREET_S: Final = 15.0
COMMON_PROCESSOR: Final = "x86-avx2"
MOST_BYTES: Final = 1 << 50
MOST_SESSIONS: Final = 1_024
SOON_S: Final = 1.0
"""Who has not answered by then is looked for elsewhere, too."""


@dataclass(frozen=True)
class Seen:
    """A peer that answered.

    Attributes:
        remote: how to reach it.
        device: what it offers, as the planner takes it: kind ``peer``, with the round trip.
        engine_sha256: of its worker's program.
        free: sessions that it could begin now.
        why_not: why it begins none, as its owner pausing; None: nothing is in the way.
        share: of a model, the most that it holds; None: whatever its memory holds.
        on_cpu: it says that it computes on processors.
        price: that it says it takes.
    """

    remote: Remote
    device: Device
    engine_sha256: str
    free: int
    why_not: str | None = None
    share: float | None = None
    on_cpu: bool = False
    price: Price = FREE

    @property
    def numerics(self) -> str:
        """Program and kind of device, as it says itself: peers of one give the same bytes."""
        return f"{self.engine_sha256} {self.device.generation}"


async def survey(
    identity: Identity,
    peers: Iterable[Peer],
    *,
    look: Look | None = None,
    greet_s: float = GREET_S,
    soon_s: float = SOON_S,
) -> tuple[list[Seen], dict[Peer, ShoestringError]]:
    """Greet all peers that may serve us at once; return who answered, and why others did not.

    Args:
        identity: ours.
        peers: whom we know.
        look: returns places where peers of these ids may be, beside those that are known; asked
            once, for who has not answered soon. A wrong place costs time alone: keys are pinned.
        greet_s: for one peer's whole greeting, at all of its places.
        soon_s: before ``look`` is asked.
    """
    asked = {peer: _greeting(identity, peer, peer.addresses, greet_s) for peer in peers
             if "serve" in peer.rights}  # fmt: skip
    tries = {peer: [first] for peer, first in asked.items()}
    try:
        if look is not None and asked:
            await asyncio.wait(asked.values(), timeout=soon_s)
            late = {peer.id: peer for peer, first in asked.items() if not _answered(first)}
            elsewhere = await look(tuple(late)) if late else {}
            for peer_id, peer in late.items():
                places = [one for one in elsewhere.get(peer_id, ()) if one not in peer.addresses]
                if places:
                    tries[peer].append(_greeting(identity, peer, places, greet_s))
        found = {peer: await _first_seen(of_one) for peer, of_one in tries.items()}
    finally:
        begun = [one for of_one in tries.values() for one in of_one]
        for one in begun:
            one.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
    seen = [one for one in found.values() if isinstance(one, Seen)]
    failed = {peer: one for peer, one in found.items() if isinstance(one, ShoestringError)}
    return sorted(seen, key=lambda one: one.device.link_latency_s), failed


def _greeting(
    identity: Identity, peer: Peer, places: Sequence[str], greet_s: float
) -> asyncio.Task[Seen | ShoestringError]:
    return asyncio.create_task(_greet_any(identity, peer, places, greet_s))


def _answered(greeting: asyncio.Task[Seen | ShoestringError]) -> bool:
    return greeting.done() and isinstance(greeting.result(), Seen)


async def _first_seen(greetings: Sequence[asyncio.Task[Seen | ShoestringError]]) -> Any:
    """Return the first answer; where none came, why not at the places that were known."""
    for coming in asyncio.as_completed(greetings):
        found = await coming
        if isinstance(found, Seen):
            return found
    return greetings[0].result()


async def _greet_any(
    identity: Identity, peer: Peer, places: Sequence[str], greet_s: float
) -> Seen | ShoestringError:
    """Greet a peer at the first of some places that answers."""
    last: ShoestringError = BadValueError(f"{peer.name} has no address: invite it anew with one")
    try:
        async with asyncio.timeout(greet_s):
            for place in places:
                host, port = parse_place(place)
                remote = Remote(peer.name, PeerAddress(peer.id, host, port), peer.certificate)
                try:
                    return await greet(identity, remote)
                except LinkError as error:
                    last = error
    except TimeoutError:
        last = LinkError("timeout", f"{peer.name} is too slow: no whole greeting in {greet_s:g} s")
    return last


async def greet(identity: Identity, remote: Remote) -> Seen:
    """Ask one node what it offers, and measure the way to it.

    Raises:
        LinkError: it cannot be reached, or refuses, or says what cannot be.
    """
    link = await connect(identity, remote.address, certificate=remote.certificate)
    try:
        told = await _hello(link, remote.name)
        if told.get("ok") is not True:
            raise RefusedError(printable(told.get("reason")), printable(told.get("message")))
        if told.get("rpc") != list(VERSION):
            raise LinkError("word", f"{remote.name} speaks another RPC: install the same engines")
        if told.get("receipts") != RECEIPT_VERSION:
            why = f"{remote.name} signs receipts of another version than {RECEIPT_VERSION}"
            raise LinkError("word", f"{why}: have the older of both updated")
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
        free=_count(told.get("free")),
        why_not=None if told.get("why_not") is None else printable(told["why_not"]),
        share=_possible(told.get("share"), 1e-6, 1.0),
        on_cpu=told.get("kind") == "cpu",
        price=_price(remote.name, told),
    )


async def _hello(link: Link, name: str) -> dict[str, Any]:
    """Return a node's greeting; TLS tells who is not admitted nothing but the link's end."""
    try:
        await link.say({"do": "hello"})
        return await link.hear(HEAR_S)
    except LinkError as error:
        if error.reason != "closed":
            raise
        raise LinkError(
            "refused",
            f"{name} ends the link without a word: its owner may have removed this node, "
            "ask for a new invitation",
        ) from error


def _count(value: Any) -> int:
    """Return how many sessions a peer says that it could begin; what cannot be is none."""
    return value if type(value) is int and 0 < value <= MOST_SESSIONS else 0


def _price(name: str, told: dict[str, Any]) -> Price:
    """Return what a node takes; one that says nothing of it takes nothing."""
    try:
        return Price(told.get("price_in", 0), told.get("price_out", 0))
    except BadValueError as error:
        raise LinkError("word", f"{name} names a price that cannot be: {error}") from error


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
