"""Activations from node to node, past the client that asked for them.

A client that knows where a stage's output goes says GET_PUSH to the one node and SET_PUSHED to the
other, both with one ticket. The first sends the data to the second on a link of their own, and to
the client as the answer; the second waits for them as if they had come with the frame. A link that
was let in for pushing to a session carries this and nothing else::

    u64 ticket | u64 size | data

Tickets of a session rise. What was not asked for yet is held, up to a bound; what comes a second
time (a client may send what the other node does not deliver) is passed over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoestring.swarm.wire import TWO_U64, BadFrameError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 32 << 20
"""Of one ticket's data: 1,024 tokens of a model that is 8,192 numbers wide."""
HELD_BYTES = 64 << 20
"""Of data that nobody asked for yet; a link that brings more is not read."""
HIGH_BYTES = 1 << 20


class Inbox:
    """What was pushed to one session.

    Attributes:
        pushed_bytes: of data that were asked for.
    """

    def __init__(self) -> None:
        self.pushed_bytes = 0
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._last = -1
        """The highest ticket that was asked for."""
        self._wanted: Callable[[bytes], None] | None = None
        self._links: set[Incoming] = set()

    def want(self, ticket: int, size: int, came: Callable[[bytes], None]) -> None:
        """Have ``came`` called with a ticket's data: now, or when they are here.

        Raises:
            BadFrameError: the ticket is not higher than the last, or its data have another size.
        """
        if ticket <= self._last or self._wanted is not None:
            raise BadFrameError("ticket", f"ticket {ticket} after {self._last}")
        self._last = ticket

        def check(data: bytes) -> None:
            if len(data) != size:
                raise BadFrameError("ticket", f"{len(data)} bytes were pushed instead of {size}")
            self.pushed_bytes += size
            came(data)

        for old in [number for number in self._held if number < ticket]:
            self._held_bytes -= len(self._held.pop(old))
        held = self._held.pop(ticket, None)
        if held is None:
            self._wanted = check
        else:
            self._held_bytes -= len(held)
            check(held)
        self._set_reading()

    def put(self, ticket: int, data: bytes) -> None:
        """Take what came on a link.

        Raises:
            BadFrameError: it is not what was asked for.
        """
        if ticket == self._last and self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted(data)
        elif ticket > self._last and ticket not in self._held:
            self._held[ticket] = data
            self._held_bytes += len(data)
            self._set_reading()

    def open(self, link: Incoming) -> None:
        """Note a link that brings data."""
        self._links.add(link)
        self._set_reading()

    def close(self, link: Incoming) -> None:
        """Forget it."""
        self._links.discard(link)

    def end(self) -> None:
        """End all links: the session is over."""
        for link in tuple(self._links):
            link.abort()

    def _set_reading(self) -> None:
        for link in self._links:
            link.set_reading(on=self._held_bytes <= HELD_BYTES)


class Incoming(asyncio.Protocol):
    """A link that pushes to a session.

    Args:
        inbox: of the session.
        refused: called with what it said that cannot be; it is ended then.
    """

    def __init__(self, inbox: Inbox, refused: Callable[[BadFrameError], None]) -> None:
        self._inbox = inbox
        self._refused = refused
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, by the link that is handed over."""
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base
        self._inbox.open(self)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._held += data
        try:
            self._take()
        except BadFrameError as error:
            self._refused(error)
            self.abort()

    def _take(self) -> None:
        while len(self._held) >= TWO_U64.size:
            ticket, size = TWO_U64.unpack_from(self._held)
            if size > MOST_BYTES:
                raise BadFrameError("ticket", f"{size} bytes are pushed at once")
            end = TWO_U64.size + size
            if len(self._held) < end:
                return
            pushed = bytes(self._held[TWO_U64.size : end])
            del self._held[:end]
            self._inbox.put(ticket, pushed)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Of asyncio."""
        self._inbox.close(self)

    def set_reading(self, *, on: bool) -> None:
        """Hear it, or let it wait."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.is_reading() is on:
            return
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def abort(self) -> None:
        """End it now."""
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
