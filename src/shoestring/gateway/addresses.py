"""Whose address is it: the one on the wire, or one that a trusted proxy passes on?

``X-Forwarded-For: CLIENT, PROXY1, PROXY2`` grows to the right: each proxy adds whom it heard. So
it is read from the right, and only what a trusted proxy added is believed; what stands further
left was written by anybody (RFC 7239, section 8.1, says so of its successor, too).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\](?::[0-9]{1,5})?")
IPV4_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")
MAX_HOPS: Final = 16
LONGEST: Final = 64  # an IPv6 address in brackets with a port has 47 characters
IPV6_CUSTOMER_BITS: Final = 64  # what one customer has at least (RFC 6177): one caller, not 2**64

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request came from, as far as it can be known.

    Args:
        peer: the other end of the connection, as the socket names it.
        forwarded: all lines of ``X-Forwarded-For``, in their order.
        trusted: the proxies that may say for whom they ask.

    Returns:
        The first address from the right that is no trusted proxy's. Where a trusted proxy hands on
        no address, or more than ``MAX_HOPS`` of them stand in a row, the last one that is known. A
        peer that is no address (a Unix socket) as it is.
    """
    current = parse_address(peer)
    if current is None:
        return peer
    hops = _from_the_right(forwarded)
    for _ in range(MAX_HOPS):
        if not any(current in network for network in trusted):
            break
        before = _parse_hop(next(hops, ""))
        if before is None:
            break
        current = before
    return str(current)


@lru_cache(maxsize=4096)
def limit_address(address: str) -> str:
    """Return what limits are counted by: an IPv4 address, the /64 of an IPv6 one.

    What is no address (a Unix socket's peer) is counted as it is.
    """
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_CUSTOMER_BITS), strict=False))
    return address if parsed is None else str(parsed)


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Read an address: IPv4 inside IPv6 becomes IPv4, a zone (``%eth0``) is dropped.

    Returns:
        None where it is no address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _from_the_right(forwarded: Sequence[str]) -> Iterator[str]:
    """Give the hops, the last one first, however many somebody wrote at the left."""
    for line in reversed(forwarded):
        yield from reversed(line.rsplit(",", MAX_HOPS))


def _parse_hop(hop: str) -> Address | None:
    """Read what a proxy wrote: an address, perhaps with a port, IPv6 then in brackets."""
    text = hop.strip(" \t")
    if "%" in text or len(text) > LONGEST:  # a zone means nothing on another machine
        return None
    with_port = BRACKETED.fullmatch(text) or IPV4_PORT.fullmatch(text)
    return parse_address(with_port[1] if with_port else text)
