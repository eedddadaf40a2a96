"""A link: one TLS 1.3 connection between two keys that know each other, and the words it begins by.

Python's ssl asks no callback of ours about a certificate. So the certificates that a side expects
are its only trust anchors: OpenSSL ends any other handshake by itself. What it let through is
compared once more with the live list, by its key, before a byte is read. Each side shows one
certificate only, which says nothing but its key (:mod:`shoestring.swarm.certificates`).

There is nothing to resume: no tickets are sent and none is kept, so a removed peer has to shake
hands again, and there is no early data. TLS 1.3 itself has no renegotiation and no compression.

Nagle's algorithm is off (asyncio and uvloop see to it, the listener for what it accepts). Keepalive
is on: who lost power is missed within half a minute. That work goes on is the session's to see.

After :meth:`Link.hand_over` the bytes go between the transport and the protocol it was given to;
nothing of ours is in between.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.certificates import read_certificate
from shoestring.swarm.words import (
    LENGTH_BYTES,
    WORD_BYTES,
    WordError,
    pack_word,
    read_word,
    word_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoestring.swarm.addresses import PeerAddress
    from shoestring.swarm.identity import Identity

ALPN: Final = "shoestring-swarm/1"
CONNECT_S: Final = 10.0
SAY_S: Final = 10.0
SHUTDOWN_S: Final = 2.0
KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
HELD_BYTES: Final = LENGTH_BYTES + WORD_BYTES
"""More than this is not read before somebody hears it."""

Reason = Literal["unreachable", "timeout", "key", "refused", "closed", "word"]


class LinkError(ShoestringError):
    """A link did not come about, or ended.

    Attributes:
        reason: ``unreachable``, ``timeout``, ``key`` (the other is not who it should be),
            ``refused`` (it does not want us), ``closed``, ``word`` (it said what is no word).
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Link(asyncio.Protocol):
    """One connection after its handshake; made by :func:`connect` and the listener.

    Attributes:
        peer_id: of the key that the other side proved. Empty: a stranger's, who may only join;
            the listener gives none such to anybody.
        purposes: empty for an admitted peer; else what this key was let in for when it came.
        handed_over: its bytes are another protocol's.
    """

    def __init__(self) -> None:
        self.peer_id = ""
        self.purposes: frozenset[str] = frozenset()
        self.handed_over = False
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._end: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it has ended or is about to, whoever has its bytes."""
        return self._transport is None or self._transport.is_closing()

    @property
    def certificate(self) -> bytes | None:
        """What the other side showed, in DER; None: nothing."""
        shown: bytes | None = self._tls().getpeercert(binary_form=True)
        return shown

    @property
    def host(self) -> str:
        """The other side's address, as the connection has it.

        Raises:
            LinkError: it has ended.
        """
        return str(self._open().get_extra_info("peername")[0])

    @property
    def speaks_ours(self) -> bool:
        """Whether both sides named the same application protocol."""
        return self._tls().selected_alpn_protocol() == ALPN

    async def say(self, word: Mapping[str, Any]) -> None:
        """Send a word.

        Raises:
            LinkError: the link has ended, or the other side does not read.
            WordError: it is no word.
        """
        packed = pack_word(word)
        self._open().write(packed)
        try:
            async with asyncio.timeout(SAY_S):
                await self._writable.wait()
        except TimeoutError as error:
            self.abort()
            raise LinkError("timeout", f"nothing was read for {SAY_S} s: link ended") from error
        self._open()

    async def refuse(self, reason: str, message: str) -> None:
        """Say no to what a word asked for.

        Raises:
            LinkError: as :meth:`say`.
        """
        await self.say({"ok": False, "reason": reason, "message": message})

    async def hear(self, timeout_s: float) -> dict[str, Any]:
        """Return the next word.

        Raises:
            LinkError: none came whole in this time, the link has ended, or what came is no word,
                which ends it.
        """
        await self.wait_for_word(timeout_s)
        size = LENGTH_BYTES + int.from_bytes(self._held[:LENGTH_BYTES], "little")
        text = bytes(self._held[LENGTH_BYTES:size])
        del self._held[:size]
        try:
            word = read_word(text)
        except WordError as error:
            self.abort()
            raise LinkError("word", f"the other side said {error}: link ended") from error
        if len(self._held) < HELD_BYTES and not self.is_closed:
            self._open().resume_reading()
        return word

    async def until_closed(self) -> None:
        """Return when the link has ended; for who waits and hears nothing meanwhile."""
        while self._end is None:
            self._news.clear()
            await self._news.wait()

    async def closed_by(self, until_s: float) -> None:
        """Return when the other side has gone, and at a time of the loop's clock at the latest."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self.until_closed()

    async def wait_for_word(self, timeout_s: float) -> None:
        """Return when a whole word is here, for :meth:`hear`.

        Raises:
            LinkError: as there.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._has_word():
                    self._open()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            self.abort()
            raise LinkError("timeout", f"no word in {timeout_s} s: link ended") from error
        except WordError as error:
            self.abort()
            raise LinkError("word", f"the other side sends {error}: link ended") from error

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Give all bytes to come to a protocol, after those that came already.

        Raises:
            LinkError: the link has ended.
        """
        transport = self._open()
        self.handed_over = True
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        held, self._held = bytes(self._held), bytearray()
        if held:
            protocol.data_received(held)
        if not transport.is_closing():
            transport.resume_reading()
        return transport

    def keep_watch(self) -> None:
        """Have the system ask whether the other machine is still there."""
        connection = self._open().get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def close(self) -> None:
        """End the link when what was said is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the link now, whoever has its bytes."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: the handshake is done."""
        self._transport = transport  # type: ignore[assignment]  # of asyncio, of uvloop: no base

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._held += data
        if len(self._held) >= HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def pause_writing(self) -> None:
        """Of asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Of asyncio."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._end = "" if exc is None else f" ({_cause(exc)})"
        self._writable.set()
        self._news.set()

    def _has_word(self) -> bool:
        size = word_size(self._held)
        return size is not None and len(self._held) >= LENGTH_BYTES + size

    def _open(self) -> asyncio.Transport:
        transport = self._transport
        if transport is None or self._end is not None or transport.is_closing():
            raise LinkError("closed", f"the link has ended{self._end or ''}")
        return transport

    def _tls(self) -> ssl.SSLObject:
        assert self._transport is not None
        tls: ssl.SSLObject = self._transport.get_extra_info("ssl_object")
        return tls


async def connect(
    identity: Identity, peer: PeerAddress, *, certificate: bytes, timeout_s: float = CONNECT_S
) -> Link:
    """Open a link to a peer; our certificate is shown only to the key that is meant.

    TLS 1.3 tells a client last whether the server wants it: a server that does not lets this
    return, and the first :meth:`Link.hear` raises.

    Args:
        identity: ours.
        peer: whom, and where.
        certificate: the peer's, as the file of peers or a word has it.
        timeout_s: until the handshake is done.

    Raises:
        LinkError: nobody is there, it is too slow, or it is another.
        BadValueError: the certificate is none.
    """
    if read_certificate(certificate) != peer.id:
        raise BadValueError(f"the certificate that was given is not {peer}'s")
    context = tls_context(ssl.PROTOCOL_TLS_CLIENT, [certificate])
    context.verify_mode = ssl.CERT_REQUIRED
    identity.show_in(context)
    return await open_link(context, peer, timeout_s)


async def open_link(context: ssl.SSLContext, peer: PeerAddress, timeout_s: float) -> Link:
    """Open a connection and end it unless its other side is this key and speaks as we do.

    Raises:
        LinkError: as :func:`connect`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, link = await loop.create_connection(
                Link,
                peer.host,
                peer.port,
                ssl=context,
                server_hostname="",  # names are not sent: the key says who it is
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
    except TimeoutError as error:
        raise LinkError("timeout", f"{peer.place} did not answer in {timeout_s} s") from error
    except ssl.SSLCertVerificationError as error:
        raise _other_key(peer) from error
    except ssl.SSLError as error:
        raise LinkError("refused", f"{peer.place} shakes no hands: {_cause(error)}") from error
    except (OSError, UnicodeError) as error:  # of a name that no resolver takes
        raise LinkError("unreachable", f"{peer.place}: {_cause(error)}") from error
    link.keep_watch()
    if not link.speaks_ours:
        link.abort()
        raise LinkError("refused", f"{peer.place} does not speak {ALPN}")
    try:
        link.peer_id = read_certificate(link.certificate or b"")
    except BadValueError as error:
        link.abort()
        raise _other_key(peer) from error
    if link.peer_id != peer.id:
        link.abort()
        raise _other_key(peer)
    return link


def set_reading(transport: asyncio.Transport | None, *, on: bool) -> None:
    """Hear a connection, or let it wait; nothing where there is none any more."""
    if transport is None or transport.is_closing() or transport.is_reading() is on:
        return
    if on:
        transport.resume_reading()
    else:
        transport.pause_reading()


def tls_context(side: ssl._SSLMethod, trusted: Iterable[bytes]) -> ssl.SSLContext:
    """Return a context of TLS 1.3 alone that trusts these certificates and no other.

    Nothing is asked of the other side yet: ``verify_mode`` is the caller's.
    """
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an anchor is the certificate itself
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.set_alpn_protocols([ALPN])
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    anchors = b"".join(trusted)
    if anchors:
        context.load_verify_locations(cadata=anchors)
    return context


def _other_key(peer: PeerAddress) -> LinkError:
    return LinkError("key", f"{peer.place} is not {peer.id}: nothing was said to it")


def _cause(error: Exception) -> str:
    """Say in a few words of ours what went wrong on a wire."""
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
