"""Nodes of the same local network, by multicast DNS (RFC 6762, 6763): announced and looked for.

What is announced is the peer id, the places and the version of the link, and no name of a machine
or a person; whoever is on the network can read it. What is heard is believed of nobody: a place is
tried, and the key that a known peer must show there is pinned. A liar can hide a node, no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import psutil

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import parse_place, show_place
from shoestring.swarm.certificates import public_key_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

    from shoestring.swarm.bootstrap import Lists

SERVICE: Final = "_shoestring._tcp.local."
VERSION: Final = "1"
"""Of the link (``shoestring-swarm/1``)."""
LOOK_S: Final = 2.0
FOLLOW_S: Final = 30.0
MAX_FOUND: Final = 256
MAX_PLACES: Final = 4
SHOWN: Final = 8
EVERYWHERE: Final = ("::", "0.0.0.0")  # noqa: S104 - compared with, not bound to  # nosec B104


async def look(
    seconds: float = LOOK_S,
    *,
    ids: Collection[str] | None = None,
    at: Sequence[str] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return the places (``HOST:PORT``) of the nodes that are announced here, by their peer ids.

    Args:
        seconds: how long to listen.
        ids: end as soon as all of these are found; None: listen all the time.
        at: addresses of this machine's interfaces; None: all.

    Raises:
        OSError: this machine has no multicast, or not these addresses.
    """
    from zeroconf import DNSQuestionType, Error
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

    # An answer to us alone may go to another program of this machine's that answers such
    # questions: the port is shared (RFC 6762, 15.1).
    to_all = DNSQuestionType.QM
    found: dict[str, tuple[str, ...]] = {}
    asked: dict[str, asyncio.Task[None]] = {}
    enough = asyncio.Event()

    async def ask(name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, name)
            answered = await info.async_request(net.zeroconf, seconds * 1e3, to_all)
        except Error:  # a name that can be none: whoever announces it is no node
            return
        peer_id = read_id(info) if answered else None
        if peer_id is not None:
            found[peer_id] = read_places(info)
        if ids is not None and found.keys() >= set(ids):
            enough.set()

    def hear(name: str, **_: Any) -> None:
        if name not in asked and len(asked) < MAX_FOUND:
            asked[name] = asyncio.create_task(ask(name))

    async with _net(at) as net:
        browser = AsyncServiceBrowser(net.zeroconf, SERVICE, handlers=[hear], question_type=to_all)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await enough.wait()
        await browser.async_cancel()
        for task in asked.values():
            task.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)
    return found


def read_id(info: ServiceInfo) -> str | None:
    """Return the peer id of what was announced; None: it has none, or not twice the same."""
    said = info.decoded_properties.get("id") or ""
    try:
        public_key_of(said)
    except BadValueError:
        return None
    return said if info.name == f"{said}.{SERVICE}" else None


def read_places(info: ServiceInfo) -> tuple[str, ...]:
    """Return where an announced node listens, IPv4 first, a few at most."""
    places = []
    for address in sorted(info.parsed_scoped_addresses(), key=lambda one: ":" in one):
        with suppress(BadValueError):  # port 0, or an interface with a strange name
            place = show_place(address, info.port or 0)
            parse_place(place)
            places.append(place)
    return tuple(places[:MAX_PLACES])


async def find_again(
    ids: Collection[str], lists: Lists, *, at: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return where peers may be now that do not answer where they were.

    Args:
        ids: theirs.
        lists: signed lists of nodes that are in use.
        at: addresses of this machine's interfaces; None: all.

    Raises:
        BadValueError: the file of lists cannot be used.
    """
    listed = lists.places(ids)
    try:
        near = await look(ids=ids, at=at)
    except OSError:  # no multicast here: the lists are all there is
        near = {}
    return {
        peer_id: tuple(dict.fromkeys((*near.get(peer_id, ()), *listed.get(peer_id, ()))))
        for peer_id in ids
    }


async def announce(
    peer_id: str,
    host: str,
    port: int,
    *,
    say: Callable[[str], None],
    follow_s: float = FOLLOW_S,
    own: Callable[[str], list[str]] | None = None,
) -> None:
    """Announce a node until cancelled; where that cannot be done it is said, and no error.

    Args:
        peer_id: the node's.
        host: where it listens.
        port: likewise.
        say: given a line.
        follow_s: how often this machine's addresses are looked at: a new network gives new ones.
        own: returns the addresses at which ``host`` is reached; None: :func:`own_addresses`.
    """
    from zeroconf import Error

    own = own or own_addresses
    try:
        told = own(host)
        async with _net(None if host in EVERYWHERE else told) as net:
            await (await net.async_register_service(_info(peer_id, told, port)))
            say(f"announced on the local network as {peer_id[:SHOWN]}...: --no-announce ends that")
            while True:
                await asyncio.sleep(follow_s)
                now = own(host)
                if now != told:
                    told = now
                    await net.async_update_interfaces()
                    await (await net.async_update_service(_info(peer_id, told, port)))
    except (OSError, RuntimeError, Error) as error:
        # No multicast here, an interface that is gone, or somebody else has taken our name.
        why = str(error) or type(error).__name__
        say(f"not announced on the local network any more ({why}): tell peers the address")


def own_addresses(host: str) -> list[str]:
    """Return the addresses at which other machines may reach who listens on a host.

    Raises:
        OSError: the host has none.
    """
    if host not in EVERYWHERE:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    here = [
        ipaddress.ip_address(one.address.partition("%")[0])
        for name, of_one in psutil.net_if_addrs().items()
        if name in up
        for one in of_one
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]
    versions = (4, 6) if host == EVERYWHERE[0] else (4,)
    return sorted(
        str(one)
        for one in here
        if one.version in versions and not one.is_loopback and not one.is_link_local
    )


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches who listens on a host.

    Raises:
        OSError: the host has no address.
    """
    return host not in EVERYWHERE and all(
        ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in own_addresses(host)
    )


@asynccontextmanager
async def _net(at: Sequence[str] | None) -> AsyncIterator[AsyncZeroconf]:
    from zeroconf import InterfaceChoice
    from zeroconf.asyncio import AsyncZeroconf

    interfaces = InterfaceChoice.All if at is None else list(at)
    try:
        _check(at or ())
        made = AsyncZeroconf(interfaces=interfaces)
    except (RuntimeError, ValueError) as error:  # no address; no interface is up
        raise OSError(str(error)) from error
    async with made as net:
        yield net


def _check(addresses: Sequence[str]) -> None:
    """See that these can be interfaces of ours; the library would lose a socket over it.

    Raises:
        OSError: one of IPv6 is not.
        ValueError: one is no address.
    """
    here = {one.address.partition("%")[0]
            for of_one in psutil.net_if_addrs().values() for one in of_one}  # fmt: skip
    for address in addresses:
        bare = ipaddress.ip_address(address.partition("%")[0])
        if bare.version == 6 and str(bare) not in here:  # noqa: PLR2004 - of the protocol
            raise OSError(f"{address} is no address of this machine")


def _info(peer_id: str, addresses: list[str], port: int) -> ServiceInfo:
    from zeroconf import ServiceInfo

    return ServiceInfo(
        SERVICE,
        f"{peer_id}.{SERVICE}",
        port=port,
        properties={"id": peer_id, "v": VERSION},
        server=f"{peer_id}.local.",  # not the machine's name
        parsed_addresses=addresses,
    )
