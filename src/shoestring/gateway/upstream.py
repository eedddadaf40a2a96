"""One question to an engine and its answer, over HTTP/1.1 on a connection of its own.

A general client costs more than half a millisecond of processor time for a request and holds a
megabyte for an answer that nobody reads; both are what this gateway is measured by. So the
connection is ours and only the parser (httptools, as uvicorn's) is not: no redirects, no cookies,
no proxies, no compression. What is not yet taken is bounded: reading pauses above
:data:`HELD_BYTES`.

Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httptools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

HELD_BYTES = 2**14
READ_BYTES = 2**14
HEAD_BYTES = 2**16
_PORTS = {"http": 80, "https": 443}
_BUFFER = memoryview(bytearray(READ_BYTES))
"""All connections of the event loop read into it in turn: each takes out at once what is its."""


class NoAnswerError(Exception):
    """There was no head of an answer: nobody listens, or it hung up before."""


class CutError(Exception):
    """The answer began and broke off."""


@dataclass(frozen=True)
class Server:
    """Where an engine listens.

    Attributes:
        prefix: of every path, without a slash at its end.
        host_header: as requests name it.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    host_header: str

    @classmethod
    def of(cls, url: str) -> Server:
        """Read an address that the settings have checked."""
        parts = urlsplit(url)
        assert parts.hostname is not None, "the settings have checked it"
        port = parts.port or _PORTS[parts.scheme]
        return cls(parts.hostname, port, parts.scheme == "https", parts.path, parts.netloc)


class Reply(asyncio.BufferedProtocol):
    """A question, sent as soon as there is a connection, and its answer as it comes.

    Args:
        asked: the request.
        idle_s: longest time without a byte.

    Attributes:
        status: of HTTP; 0 before the head is there.
    """

    def __init__(self, asked: bytes, idle_s: float) -> None:
        self.status = 0
        self._asked = asked
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(idle_s, self._look)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._head = False
        self._framed = False
        self._head_bytes = 0
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._error: str | None = None
        self._news: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait for the status.

        Raises:
            NoAnswerError: the engine hung up, sent no HTTP, or nothing in time.
        """
        while not self._head:
            if self._error is not None or self._ended:
                raise NoAnswerError(self._error or "it sent nothing")
            await self._wait()

    async def part(self) -> bytes:
        """Return what has come since; empty: the answer is over.

        Raises:
            CutError: it broke off, or nothing came in time.
        """
        while not self._parts:
            if self._error is not None:
                raise CutError(self._error)
            if self._ended:
                return b""
            await self._wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if self._held_bytes > HELD_BYTES and self._transport is not None:
            self._transport.resume_reading()
            self._heard = self._loop.time()  # until now it was we who did not listen
        self._held_bytes = 0
        return data

    async def whole(self, limit_bytes: int) -> bytes:
        """Return all of the body.

        Raises:
            CutError: it broke off.
            ValueError: it is longer than allowed.
        """
        parts, size_bytes = [], 0
        while part := await self.part():
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise ValueError(f"the engine answered more than {limit_bytes} bytes")
            parts.append(part)
        return b"".join(parts)

    def drop(self) -> None:
        """Close at once: an engine sees that nobody listens any more."""
        self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask."""
        self._transport = transport
        transport.write(self._asked)
        self._asked = b""

    def get_buffer(self, _wanted: int) -> memoryview:
        """Give where to read to."""
        return _BUFFER

    def buffer_updated(self, count: int) -> None:
        """Take what was read."""
        self._heard = self._loop.time()
        if not self._head:
            self._head_bytes += count
        try:
            self._parser.feed_data(_BUFFER[:count])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the engine sent no HTTP: {type(error).__name__}")
        if not self._head and self._head_bytes > HEAD_BYTES:
            self._fail(f"the head of the answer is over {HEAD_BYTES} bytes")
        self._wake()

    def eof_received(self) -> None:
        """Let the connection close; :meth:`connection_lost` judges."""

    def connection_lost(self, error: Exception | None) -> None:
        """See whether the answer was over: without a length its end is the connection's."""
        self._watch.cancel()
        if self._head and not self._framed and error is None:
            self._ended = True
        elif not self._ended:
            self._fail(f"the connection broke: {type(error).__name__}" if error else "it hung up")
        self._wake()

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note whether the body says its own length."""
        if not self._head and name.lower() in {b"content-length", b"transfer-encoding"}:
            self._framed = True

    def on_headers_complete(self) -> None:
        """The head is there, unless it only announces another."""
        if self._head:
            return  # another answer, to nothing that was asked
        status = self._parser.get_status_code()
        if status >= 200:  # noqa: PLR2004 - 1xx: more to come
            self.status, self._head = status, True
        else:
            self._framed = False

    def on_body(self, data: bytes) -> None:
        """Hold a part until it is taken."""
        if self._ended:
            return
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is over."""
        self._ended = self._head

    def _fail(self, why: str) -> None:
        if not self._ended:
            self._error = self._error or why
        self.drop()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _wait(self) -> None:
        self._news = self._loop.create_future()
        await self._news

    def _look(self) -> None:
        """End the answer if nothing came for too long; what waits to be taken is no silence."""
        now = self._loop.time()
        left_s = self._idle_s if self._held_bytes else self._heard + self._idle_s - now
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            self._fail(f"the engine sent nothing for {self._idle_s:g} s")
            self._wake()


@asynccontextmanager
async def exchange(
    server: Server,
    path: str,
    *,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None,
    connect_s: float,
    idle_s: float,
) -> AsyncIterator[Reply]:
    """Ask, and give the answer from its head on; leaving the block closes the connection.

    Args:
        server: whom.
        path: from the server's prefix on.
        headers: more than the usual; checked by the settings.
        body: JSON to post; None: a GET.
        connect_s: longest wait for the connection.
        idle_s: longest time without a byte.

    Raises:
        NoAnswerError: there is no answer.
    """
    loop = asyncio.get_running_loop()
    reply = Reply(_request(server, path, headers, body), idle_s)
    try:
        async with asyncio.timeout(connect_s):
            await loop.create_connection(
                lambda: reply, server.host, server.port, ssl=server.tls or None
            )
    except BaseException as error:
        reply.drop()
        if not isinstance(error, OSError | TimeoutError):
            raise
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    try:
        await reply.head()
        yield reply
    finally:
        reply.drop()


def _request(
    server: Server, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> bytes:
    lines = [
        f"{'GET' if body is None else 'POST'} {server.prefix}{path} HTTP/1.1",
        f"Host: {server.host_header}",
        "User-Agent: shoestring-gateway",
        "Accept-Encoding: identity",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data
