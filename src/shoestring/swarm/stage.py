"""A stage of a chain at the client: an endpoint on loopback that llama-server takes for a worker.

llama.cpp's client opens one connection to an endpoint, asks on it for all it wants, and ends when
it breaks. Each connection that comes gets a session at the stage's node.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from shoestring.swarm.link import Link, LinkError, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from shoestring.swarm.addresses import PeerAddress
    from shoestring.swarm.identity import Identity

HIGH_BYTES = 1 << 20
QUEUE_S = 120.0
"""How long a node may let us wait for its worker."""
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Remote:
    """A node that serves a stage.

    Attributes:
        name: what we call it.
        address: of its key.
        certificate: its own, in DER.
    """

    name: str
    address: PeerAddress
    certificate: bytes


class RefusedError(LinkError):
    """A node does not give what was asked for; ``reason`` is its own word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__("refused", message)
        self.word = reason


async def open_session(identity: Identity, remote: Remote) -> Link:
    """Return a link on which a node's worker now listens.

    Raises:
        LinkError: the node cannot be reached, or ended the link.
        RefusedError: it gives no session.
    """
    link = await connect(identity, remote.address, certificate=remote.certificate)
    try:
        await link.say({"do": "session"})
        answer = await link.hear(QUEUE_S)
    except BaseException:
        link.abort()
        raise
    if answer.get("ok") is not True:
        link.abort()
        message = f"{remote.name}: {printable(answer.get('message'))}"
        raise RefusedError(printable(answer.get("reason")), message)
    return link


class Stage:
    """Listens for llama-server while its ``async with`` lasts.

    Args:
        identity: ours.
        remote: whose worker it is.
        say: given a line when a session begins, ends or cannot begin.

    Attributes:
        port: on loopback.
    """

    def __init__(self, identity: Identity, remote: Remote, *, say: Callable[[str], None]) -> None:
        self.port = 0
        self._identity = identity
        self._remote = remote
        self._say = say
        self._ways: set[Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Way(self._open).near, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for way in tuple(self._ways):
            way.drop()

    def _open(self, way: Way) -> None:
        task = asyncio.create_task(self._carry(way))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, way: Way) -> None:
        try:
            link = await open_session(self._identity, self._remote)
            link.hand_over(way.far)
        except BaseException as error:
            way.drop()
            if not isinstance(error, LinkError):
                raise
            self._say(f"{self._remote.name}: no session: {error}")
            return
        self._ways.add(way)
        way.on_end = self._ended
        way.begin()

    def _ended(self, way: Way) -> None:
        self._ways.discard(way)
        self._say(f"{self._remote.name}: session ended")


class Way:
    """A connection of llama-server, joined to a link: bytes go both ways as they come.

    Args:
        opened: called when llama-server has connected.

    Attributes:
        near: the side of llama-server.
        far: the link's.
        on_end: called once when it is over.
    """

    def __init__(self, opened: Callable[[Way], None]) -> None:
        self.near, self.far = Near(self, opened), End(self)
        self.near.other, self.far.other = self.far, self.near
        self.on_end: Callable[[Way], None] | None = None

    def begin(self) -> None:
        """Let the bytes flow."""
        near = self.near.transport
        if near is not None and not near.is_closing():
            near.resume_reading()
        else:
            self.drop()

    def drop(self) -> None:
        """End both sides now."""
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.abort()
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)


class End(asyncio.Protocol):
    """One side of a :class:`Way`: what it sends the other gets, and who does not read is not sent.

    Attributes:
        transport: None until there is a connection.
        other: the other side.
    """

    other: End

    def __init__(self, way: Way) -> None:
        self.transport: asyncio.Transport | None = None
        self._way = way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, and of the link that is handed over."""
        transport.set_write_buffer_limits(high=HIGH_BYTES)  # type: ignore[attr-defined]
        self.transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Of asyncio."""
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Of asyncio."""
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Of asyncio."""
        self._way.drop()


class Near(End):
    """The side of llama-server, which waits until the node is there."""

    def __init__(self, way: Way, opened: Callable[[Way], None]) -> None:
        super().__init__(way)
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio, which has switched Nagle's algorithm off."""
        super().connection_made(transport)
        transport.pause_reading()  # type: ignore[attr-defined]
        self._opened(self._way)


def printable(said: Any) -> str:
    """Return another side's own words, made fit for a line."""
    return "".join(filter(str.isprintable, said))[:200] if isinstance(said, str) else "not told"
