"""The bounds on strangers: who stands at the door, and who may try an invitation.

Whoever proves a key leaves the door in one round trip; so what has stood there longest is the
least likely to be a peer. Where all places are taken, the oldest of the most crowded address goes:
a thousand connections that say nothing push each other out, and nobody else.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MINUTE_S: Final = 60.0
IPV6_NEIGHBOURS: Final = 64  # bits: what one customer is given


def neighbourhood(host: str) -> str:
    """Return what is counted as one address: an IPv4 address, or the /64 of an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), IPV6_NEIGHBOURS), strict=False))
    return str(address)


@dataclass(frozen=True)
class Bounds:
    """How much is borne of those who have proved nothing, and how long.

    Attributes:
        handshake_s: from the connection to the proven key.
        first_word_s: from there to the first word, whole; of a stranger: for each of its words.
        at_the_door: connections that have proved no key.
        at_the_door_per_address: of one IPv4 address or IPv6 /64.
        links_per_peer: open at the same time.
        joins_per_minute: strangers that may try an invitation.
        joins_per_minute_per_address: of one IPv4 address or IPv6 /64.
        recheck_s: how late a change in the file of peers is noticed.
    """

    handshake_s: float = 5.0
    first_word_s: float = 10.0
    at_the_door: int = 256
    at_the_door_per_address: int = 32
    links_per_peer: int = 64
    joins_per_minute: int = 60
    joins_per_minute_per_address: int = 6
    recheck_s: float = 1.0


class Door:
    """Connections that have not proven a key, the oldest first.

    Args:
        in_all: places.
        per_address: of one neighbourhood.
    """

    def __init__(self, *, in_all: int, per_address: int) -> None:
        self._in_all = in_all
        self._per_address = per_address
        self._inside: dict[asyncio.Task[None], str] = {}

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, task: asyncio.Task[None], address: str) -> None:
        """Give a connection's task a place; where there is none left, another one is cancelled."""
        crowds = Counter(self._inside.values())
        if crowds[address] >= self._per_address:
            self._push_out(address)
        elif len(self._inside) >= self._in_all:
            self._push_out(crowds.most_common(1)[0][0])
        self._inside[task] = address

    def leave(self, task: asyncio.Task[None]) -> None:
        """Free a place; one that was pushed out has none any more."""
        self._inside.pop(task, None)

    def _push_out(self, address: str) -> None:
        oldest = next(task for task, its in self._inside.items() if its == address)
        del self._inside[oldest]
        oldest.cancel()


class Attempts:
    """How often strangers try in a minute; what was refused here does not count.

    Args:
        in_all: in any 60 s.
        per_address: of one neighbourhood.
        now: seconds, of a clock that only goes on.
    """

    def __init__(self, *, in_all: int, per_address: int, now: Callable[[], float]) -> None:
        self._in_all = in_all
        self._per_address = per_address
        self._now = now
        self._made: deque[tuple[float, str]] = deque()

    def allow(self, address: str) -> bool:
        """Tell whether one more may try, and count it if so."""
        now_s = self._now()
        while self._made and self._made[0][0] <= now_s - MINUTE_S:
            self._made.popleft()
        of_this = sum(1 for _, made_by in self._made if made_by == address)
        if len(self._made) >= self._in_all or of_this >= self._per_address:
            return False
        self._made.append((now_s, address))
        return True
