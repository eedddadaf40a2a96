"""The listener: lets admitted peers in, guests for one purpose, and strangers to join; ends links.

A connection passes four gates: a place at the door (:mod:`shoestring.swarm.door`), a handshake of
5 s in which OpenSSL knows only the certificates of those who may come, the live list, and a first
word of 10 s. Only then does anybody hear of it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from shoestring.errors import BadValueError
from shoestring.swarm.addresses import listen_at, show_place
from shoestring.swarm.certificates import read_certificate
from shoestring.swarm.door import Attempts, Bounds, Door, neighbourhood
from shoestring.swarm.joining import Inviter
from shoestring.swarm.link import SHUTDOWN_S, Link, LinkError, tls_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.invitations import Invitations
    from shoestring.swarm.peers import Peers

ACCEPT_AGAIN_S: Final = 0.2
"""The system tells nobody when a descriptor is free again; asyncio's own servers wait 1 s."""
MAX_GUESTS: Final = 1_024
SLOW_DOWN: Final = {
    "ok": False,
    "reason": "busy",
    "message": "too many try to join: try again in a minute",
}


@dataclass(frozen=True)
class _Guest:
    certificate: bytes
    until_s: float


class Listener:
    """Listens while its ``async with`` lasts.

    Args:
        identity: ours.
        peers: who may come; changes of its file are noticed.
        on_link: called once for each link, when its first word is here. A link that it has not
            handed over is closed when it returns; one of which it raises is ended.
        host: an address of this machine; ``::`` is every one, IPv4 included.
        port: 0: any free one.
        invitations: lets strangers in to join; None: none is let in.
        bounds: on everybody else.
        say: given one line for each stranger that tried, and for each link of which ``on_link``
            raised.
        now: seconds since 1970.

    Attributes:
        port: the real one.
        refused: connections that got no link, by why.

    Raises:
        MissingError: on entering: nobody can listen there.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Peers,
        *,
        on_link: Callable[[Link], Awaitable[None]],
        host: str = "::",
        port: int = 0,
        invitations: Invitations | None = None,
        bounds: Bounds | None = None,
        say: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.port = port
        self.refused: Counter[str] = Counter()
        self._identity = identity
        self._peers = peers
        self._on_link = on_link
        self._host = host
        self._inviter = (
            None if invitations is None else Inviter(identity, invitations, peers, say, now)
        )
        self._bounds = bounds or Bounds()
        self._say = say
        self._now = now
        self._door = Door(
            in_all=self._bounds.at_the_door, per_address=self._bounds.at_the_door_per_address
        )
        self._attempts = Attempts(
            in_all=self._bounds.joins_per_minute,
            per_address=self._bounds.joins_per_minute_per_address,
            now=time.monotonic,
        )
        self._guests: dict[str, dict[str, _Guest]] = {}
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        self._trusted: frozenset[bytes] = frozenset()

    async def __aenter__(self) -> Self:
        self._socket = listen_at(self._host, self.port)
        self.port = self._socket.getsockname()[1]
        self._accepting = self._start(self._accept())
        self._start(self._recheck_often())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First, for a task that is ended before it has begun would not close its connection.
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        for link in self._links:
            link.abort()
        await asyncio.sleep(0)  # transports close their sockets one turn after they were ended

    def admit_for(self, certificate: bytes, purpose: str, until_s: float) -> str:
        """Let a key in that is no peer's, for one purpose; its links say so and get nothing else.

        A key may be let in for several purposes at once.

        Args:
            certificate: of the fixed form.
            purpose: what :attr:`Link.purposes` will hold.
            until_s: seconds since 1970; its links end then.

        Returns:
            The peer id.

        Raises:
            BadValueError: the certificate is none, or of a peer that was removed, or there are too
                many guests.
        """
        peer_id = read_certificate(certificate)
        if self._peers.has_removed(peer_id):
            raise BadValueError(f"{peer_id} was removed here: admit it anew")
        if len(self._guests) >= MAX_GUESTS and peer_id not in self._guests:
            raise BadValueError(f"{MAX_GUESTS} guests are let in: end some")
        self._guests.setdefault(peer_id, {})[purpose] = _Guest(certificate, until_s)
        return peer_id

    def end_admission(self, peer_id: str, purpose: str) -> None:
        """Take back what :meth:`admit_for` gave; links that are left without a purpose end."""
        self._guests.get(peer_id, {}).pop(purpose, None)
        self.recheck()

    def end_links_of(self, peer_id: str) -> int:
        """End a peer's links at once, whatever protocol has their bytes; return how many."""
        its = [link for link in self._open_links() if link.peer_id == peer_id]
        for link in its:
            link.abort()
        return len(its)

    def recheck(self) -> None:
        """End the links of all who may not come any more."""
        self._peers.reload()
        self._drop_late_guests()
        for link in self._open_links():
            if not self._may_go_on(link):
                link.abort()

    async def _recheck_often(self) -> None:
        while True:
            await asyncio.sleep(self._bounds.recheck_s)
            self.recheck()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError as error:
                self._refuse(f"accept: {errno.errorcode.get(error.errno or 0, 'unknown')}")
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            self._door.enter(
                self._start(self._welcome(connection, address)), neighbourhood(address[0])
            )
            await asyncio.sleep(0)  # the task owns the connection once it has begun

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._door.leave(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            task.get_loop().call_exception_handler(
                {"message": "a task of the listener ended", "exception": error, "task": task}
            )

    async def _welcome(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        """See one connection through, from its acceptance to the end of its link's use."""
        link = Link()
        try:
            if not await self._shakes_hands(link, connection):
                self._refuse("handshake")
            elif not link.speaks_ours:
                self._refuse("another protocol")
            elif link.certificate is None:
                await self._hear_stranger(link, address)
            elif self._recognises(link):
                await self._serve(link)
        except LinkError as error:
            self._refuse(error.reason)
        finally:
            if not link.handed_over:
                link.close()

    async def _shakes_hands(self, link: Link, connection: socket.socket) -> bool:
        try:
            # asyncio does it for its own servers' connections only.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: link,
                connection,
                ssl=self._current_context(),
                ssl_handshake_timeout=self._bounds.handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
            link.keep_watch()
        except OSError:  # TLS's own and the time-out are, too; counted, for anybody can cause them
            return False
        return True

    def _current_context(self) -> ssl.SSLContext:
        """Return the context whose trust anchors are all who may come now."""
        self._peers.reload()
        self._drop_late_guests()
        trusted = frozenset(peer.certificate for peer in self._peers.active()) | {
            guest.certificate for of_one in self._guests.values() for guest in of_one.values()
        }
        if self._context is None or trusted != self._trusted:
            context = tls_context(ssl.PROTOCOL_TLS_SERVER, trusted)
            # Whoever shows no certificate may join, and nothing else.
            context.verify_mode = ssl.CERT_OPTIONAL if self._inviter else ssl.CERT_REQUIRED
            self._identity.show_in(context)
            self._context, self._trusted = context, trusted
        return self._context

    def _recognises(self, link: Link) -> bool:
        """Compare a proven key with the live list, which may have changed since the handshake."""
        try:
            link.peer_id = read_certificate(link.certificate or b"")
        except BadValueError:
            self._refuse("another's certificate")
            return False
        if self._peers.find(link.peer_id) is None:
            link.purposes = frozenset(self._guests.get(link.peer_id, {}))
            if not link.purposes or self._peers.has_removed(link.peer_id):
                self._refuse("not admitted")
                return False
        its = sum(1 for other in self._open_links() if other.peer_id == link.peer_id)
        if its >= self._bounds.links_per_peer:
            self._refuse("too many links")
            return False
        self._leave_door()
        self._links.add(link)
        return True

    async def _serve(self, link: Link) -> None:
        await link.wait_for_word(self._bounds.first_word_s)
        try:
            await self._on_link(link)
        except LinkError:
            link.abort()
            raise
        except Exception as error:  # noqa: BLE001 - one link's trouble is not the others'
            self._say(f"a link of {link.peer_id} ended: {type(error).__name__}: {error}")
            link.abort()

    async def _hear_stranger(self, link: Link, address: tuple[Any, ...]) -> None:
        if self._inviter is None or not self._attempts.allow(neighbourhood(address[0])):
            self._refuse("too many joins")
            await link.say(SLOW_DOWN)
            return
        place = show_place(address[0], address[1])
        if await self._inviter.answer(link, place, self._bounds.first_word_s) is None:
            self._refuse("stranger")

    def _may_go_on(self, link: Link) -> bool:
        if link.purposes:
            if self._peers.has_removed(link.peer_id):
                return False
            return not link.purposes.isdisjoint(self._guests.get(link.peer_id, {}))
        return self._peers.find(link.peer_id) is not None

    def _drop_late_guests(self) -> None:
        now_s = self._now()
        left = {
            peer_id: {purpose: guest for purpose, guest in its.items() if guest.until_s > now_s}
            for peer_id, its in self._guests.items()
        }
        self._guests = {peer_id: its for peer_id, its in left.items() if its}

    def _open_links(self) -> set[Link]:
        """Return the links that have not ended, and forget the others."""
        self._links = {link for link in self._links if not link.is_closed}
        return self._links

    def _leave_door(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._door.leave(task)

    def _refuse(self, why: str) -> None:
        self.refused[why] += 1
