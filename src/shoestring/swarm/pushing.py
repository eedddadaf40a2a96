"""Activations from node to node, past the client that asked for them.

A client that knows where a stage's output goes says GET_PUSH to the one node and SET_PUSHED to the
other, both with one ticket. The first sends the data to the second on a link of their own, and to
the client as the answer; the second waits for them as if they had come with the frame. A link that
was let in for pushing to a session carries this and nothing else::

    u64 ticket | u64 size | data

Tickets of a session rise. What was not asked for yet is held, up to a bound; what comes a second
time (a client may send what the other node does not deliver) is passed over. Who may push no more
leaves nothing behind: what it pushed ahead would pass for another's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoestring.swarm.link import set_reading
from shoestring.swarm.wire import TWO_U64, BadFrameError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 32 << 20
"""Of one ticket's data: 1,024 tokens of a model that is 8,192 numbers wide."""
HELD_BYTES = 64 << 20
"""Of data that nobody asked for yet; a link that brings more is not read."""
NOTE_BYTES = 256
"""What it takes to hold a ticket, however short its data are."""
MOST_LINKS = 2
"""Of one key that push to one session; each may hold one ticket that has not come whole."""
HIGH_BYTES = 1 << 20


class Inbox:
    """What was pushed to one session."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[str, bytes]] = {}
        """With the peer id of who pushed it."""
        self._held_bytes = 0
        self._last = -1
        """The highest ticket that was asked for."""
        self._wanted: tuple[int, Callable[[bytes], None]] | None = None
        """Of the last ticket, until it is here: how long its data are, and who is told them."""
        self._links: dict[Incoming, None] = {}
        """The oldest first."""
        self._over = False

    def want(self, ticket: int, size: int, came: Callable[[bytes], None]) -> None:
        """Have ``came`` called with a ticket's data: now, or when they are here.

        Raises:
            BadFrameError: the ticket is not higher than the last, or that one is not here yet.
        """
        if ticket <= self._last or self._wanted is not None:
            raise BadFrameError("ticket", f"ticket {ticket} after {self._last}")
        self._last, self._wanted = ticket, (size, came)
        for number in sorted(number for number in self._held if number <= ticket):
            self.put(number, *self._drop(number))
        self._set_reading()

    @property
    def wanted(self) -> int | None:
        """The ticket for which the session waits; None: for none."""
        return None if self._wanted is None else self._last

    def put(self, ticket: int, by: str, data: bytes) -> None:
        """Take what a key pushed; what has another size than was asked for is passed over.

        Whoever pushes is not the session's owner, who can still send what is right.
        """
        if ticket == self._last and self._wanted is not None:
            size, came = self._wanted
            if len(data) == size:
                self._wanted = None
                came(data)
                self._set_reading()
        elif ticket > self._last and ticket not in self._held and self._held_bytes <= HELD_BYTES:
            self._held[ticket] = by, data
            self._held_bytes += len(data) + NOTE_BYTES
            self._set_reading()

    def open(self, link: Incoming) -> None:
        """Note a link that brings data; that of a session that is over ends.

        One too many of a key ends its oldest: a new one is what its other end uses now.
        """
        if self._over:
            link.abort()
            return
        for old in self._links_of(link.by)[: 1 - MOST_LINKS]:
            old.abort()
        self._links[link] = None
        self._set_reading()

    def close(self, link: Incoming) -> None:
        """Forget it."""
        self._links.pop(link, None)

    def forget(self, by: str) -> None:
        """End the links of a key that may push no more, and forget what it pushed ahead."""
        for link in self._links_of(by):
            link.abort()
        for ticket in [ticket for ticket, (pusher, _) in self._held.items() if pusher == by]:
            self._drop(ticket)
        self._set_reading()

    def end(self) -> None:
        """End all links, and those that come after: the session is over."""
        self._over = True
        for link in tuple(self._links):
            link.abort()

    def _links_of(self, by: str) -> list[Incoming]:
        return [link for link in self._links if link.by == by]

    def _drop(self, ticket: int) -> tuple[str, bytes]:
        by, data = self._held.pop(ticket)
        self._held_bytes -= len(data) + NOTE_BYTES
        return by, data

    def _set_reading(self) -> None:
        for link in self._links:
            # What is waited for may come on any of them, behind what is too much.
            link.set_reading(on=self._wanted is not None or self._held_bytes <= HELD_BYTES)


class Incoming(asyncio.Protocol):
    """A link that pushes to a session; one that says what cannot be ends, and the session goes on.

    Args:
        inbox: of the session.
        by: peer id of who pushes.

    Attributes:
        by: as given.
    """

    def __init__(self, inbox: Inbox, by: str) -> None:
        self.by = by
        self._inbox = inbox
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, by the link that is handed over."""
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base
        self._inbox.open(self)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._transport is None or self._transport.is_closing():
            return  # it was ended
        self._held += data
        while len(self._held) >= TWO_U64.size:
            ticket, size = TWO_U64.unpack_from(self._held)
            if size > MOST_BYTES:
                self.abort()
                return
            end = TWO_U64.size + size
            if len(self._held) < end:
                return
            pushed = bytes(self._held[TWO_U64.size : end])
            del self._held[:end]
            self._inbox.put(ticket, self.by, pushed)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Of asyncio."""
        self._inbox.close(self)

    def set_reading(self, *, on: bool) -> None:
        """Hear it, or let it wait."""
        set_reading(self._transport, on=on)

    def abort(self) -> None:
        """End it now."""
        self._inbox.close(self)
        if self._transport is not None:
            self._transport.abort()


class Outgoing(asyncio.Protocol):
    """The other end: what pushes.

    A link that does not take what it is given is ended: the client has the data too.

    Attributes:
        is_open: it takes data.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, by the link that is handed over."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Of asyncio."""
        self.is_open = False

    def begin(self, ticket: int, size: int) -> None:
        """Announce a ticket's data; they follow by :meth:`add`."""
        self.add(TWO_U64.pack(ticket, size))

    def add(self, data: bytes) -> None:
        """Send more of what was announced."""
        transport = self._transport
        if not self.is_open or transport is None:
            return
        if transport.get_write_buffer_size() > HELD_BYTES:
            self.abort()
            return
        transport.write(data)

    def abort(self) -> None:
        """End it now."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
