"""Where a peer is found: ``HOST:PORT``, and ``ID@HOST:PORT`` with the key that must answer."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.certificates import public_key_of

NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # an interface, of link-local addresses
PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
LAST_PORT: Final = 65_535
LONGEST_SHOWN: Final = 80
BACKLOG: Final = 256


@dataclass(frozen=True)
class PeerAddress:
    """A peer at one place, written ``ID@HOST:PORT``; an IPv6 host stands in brackets.

    Attributes:
        id: the peer id, which is the key that must answer.
        host: a name or an address, without brackets.
        port: 1 to 65,535.

    Raises:
        BadValueError: one of them is none.
    """

    id: str
    host: str
    port: int

    def __post_init__(self) -> None:
        public_key_of(self.id)
        if parse_place(self.place) != (self.host, self.port):
            raise BadValueError(f"{self.host[:LONGEST_SHOWN]!a}: give the host without brackets")

    def __str__(self) -> str:
        return f"{self.id}@{self.place}"

    @property
    def place(self) -> str:
        """``HOST:PORT``."""
        return show_place(self.host, self.port)

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Read ``ID@HOST:PORT``.

        Raises:
            BadValueError: it is not written so.
        """
        peer_id, at, place = text.partition("@")
        if not at:
            raise BadValueError(f"{text[:LONGEST_SHOWN]!a} names no place: give it as ID@HOST:PORT")
        return cls(peer_id, *parse_place(place))


def show_place(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_place(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``.

    Raises:
        BadValueError: it is not written so.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_host = _is_ipv6(bare) if bare != host else NAME.fullmatch(bare) is not None
    if not is_host or not PORT.fullmatch(port) or int(port) > LAST_PORT:
        raise BadValueError(
            f"{text[:LONGEST_SHOWN]!a} is no place: give it as HOST:PORT, "
            "e.g. 192.168.1.20:7000 or [fe80::1%eth0]:7000"
        )
    return bare, int(port)


def is_nearer(host: str, than: str) -> bool:
    """Tell whether an address means a place that only neighbours of another one can reach.

    Whoever is farther away must not have somebody connect there for it: services of a machine for
    itself (127.0.0.1), devices on its wire (169.254.1.1).

    Args:
        host: an address, with a zone or without.
        than: of who names it, as its connection tells.
    """
    return _reach(host) < _reach(than)


def listen_at(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        MissingError: none can, there.
    """
    dual = host == "::" and socket.has_dualstack_ipv6()
    if host == "::" and not dual:
        host = "0.0.0.0"  # noqa: S104 - no IPv6 here  # nosec B104
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise MissingError(
            f"cannot listen on {show_place(host, port)}: {error.strerror}; "
            "give an address of this machine, or another port"
        ) from error
    listening.setblocking(False)
    return listening


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or ZONE.fullmatch(zone) is not None


def _reach(host: str) -> int:
    """Return 0 for this machine itself, 1 for its wire, 2 for all that can be routed to."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if found.is_loopback or found.is_unspecified:  # which connects to this machine, too
        return 0
    return 1 if found.is_link_local or found.is_multicast else 2
