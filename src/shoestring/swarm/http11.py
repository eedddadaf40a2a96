"""HTTP/1.1 on loopback, one exchange a connection: what a front hears, and what it asks.

Bodies are decoded as they come, and one that breaks off is told from one that has ended. No
redirects, no compression, no trailers: both ends are known. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

READ_BYTES: Final = 1 << 16
HEAD_BYTES: Final = 1 << 16
BODY_BYTES: Final = 64 << 20
CONNECT_S: Final = 10.0
HEAD_S: Final = 10.0
"""Longest that a client takes for the head of its request: it has not shown who it is."""
BODILESS: Final = {204, 304}
END: Final = b"0\r\n\r\n"


class BadHttpError(Exception):
    """What came is not what HTTP allows, or is more than is taken."""


class CutError(Exception):
    """The other side is not there, or its answer broke off."""


class TooLongError(Exception):
    """An answer in one piece is more than is taken; whoever gave it is well."""


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
        method: as it was written.
        target: path and query.
        headers: by their names in small letters.
        body: whole.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]


class Body:
    """Decodes one body; its length is told by ``headers``, else its end is the connection's.

    Attributes:
        over: all of it has come.
    """

    def __init__(self, headers: Mapping[str, str], *, of_request: bool = False) -> None:
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0" if of_request else "")
        if not self._chunked and length and not (length.isascii() and length.isdigit()):
            raise BadHttpError(f"Content-Length is no number: {length[:80]!r}")
        self._left: int | None = None if self._chunked or not length else int(length)
        self._rest = b""
        self._in_chunk = 0
        self.over = self._left == 0

    def feed(self, data: bytes) -> bytes:
        """Take what was read, and return what of it belongs to the body.

        Raises:
            BadHttpError: a chunk is none.
        """
        if self._chunked:
            return self._chunks(data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.over = self._left == 0
        return data

    def end(self) -> None:
        """The connection has ended.

        Raises:
            CutError: before the body.
        """
        if self._chunked or self._left is not None:
            raise CutError("the connection ended in the middle of the answer")
        self.over = True

    def _chunks(self, data: bytes) -> bytes:
        self._rest += data
        parts = []
        while not self.over:
            if self._in_chunk:  # what is left of the chunk, and its line's end
                if len(self._rest) < self._in_chunk:
                    break
                parts.append(self._rest[: self._in_chunk - 2])
                self._rest = self._rest[self._in_chunk :]
                self._in_chunk = 0
            line, end, rest = self._rest.partition(b"\r\n")
            if not end:
                break
            size = _chunk_size(line)
            self._rest = rest
            self._in_chunk = size + 2
            self.over = size == 0
        return b"".join(parts)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):  # noqa: PLR2004
        raise BadHttpError(f"a chunk has no size: {line[:20]!r}")
    size = int(digits, 16)
    if size > BODY_BYTES:
        raise BadHttpError(f"a chunk has {size} bytes, at most {BODY_BYTES} are taken")
    return size


class Reply:
    """What was answered, from its head on.

    Args:
        status: of it.
        headers: by their names in small letters.
        rest: what was read beyond the head.
        reader: of what comes.
        bodiless: the request allows no body, whatever length the head tells.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        rest: bytes,
        reader: asyncio.StreamReader,
        *,
        bodiless: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = Body(headers)
        if bodiless or status in BODILESS:
            self._body.over = True
        self._first = b"" if self._body.over else self._body.feed(rest)
        self._reader = reader

    async def part(self) -> bytes:
        """Return what has come since; empty: the body is over. May be cancelled and called again.

        Raises:
            CutError: it broke off.
        """
        if self._first:
            data, self._first = self._first, b""
            return data
        while not self._body.over:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                raise CutError(f"the connection broke: {type(error).__name__}") from error
            if not data:
                self._body.end()
            try:
                decoded = self._body.feed(data)
            except BadHttpError as error:
                raise CutError(str(error)) from error
            if decoded:
                return decoded
        return b""

    async def whole(self) -> bytes:
        """Return all of the body.

        Raises:
            CutError: it broke off.
            TooLongError: it is more than is taken.
        """
        body = bytearray()
        while part := await self.part():
            body += part
            if len(body) > BODY_BYTES:
                raise TooLongError(f"the answer has more than {BODY_BYTES} bytes")
        return bytes(body)


@asynccontextmanager
async def asking(host: str, port: int, request: Request) -> AsyncIterator[Reply]:
    """Ask, and give the answer from its head on; leaving the block hangs up.

    Raises:
        CutError: nobody answers.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    except OSError as error:  # TimeoutError is one
        raise CutError(f"no connection: {type(error).__name__}") from error
    try:
        writer.write(_spelt(f"{host}:{port}", request))
        try:
            await writer.drain()
            first, headers, rest = await _head(reader)
        except (OSError, EOFError, BadHttpError) as error:
            raise CutError(f"no answer: {type(error).__name__}: {error}") from error
        bodiless = request.method == "HEAD"
        yield Reply(_status(first), headers, rest, reader, bodiless=bodiless)
    finally:
        writer.transport.abort()


async def hear(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    check: Callable[[Request], None],
) -> Request:
    """Return what a client asks.

    Args:
        reader: from it.
        writer: to it.
        check: given the request without its body, which is read only if this returns.

    Raises:
        BadHttpError: it is no request, or too long.
        EOFError: it left before it had asked.
        OSError: likewise, or it takes too long for the head.
    """
    async with asyncio.timeout(HEAD_S):
        first, headers, rest = await _head(reader)
    words = first.split(" ")
    is_plain = first.isascii() and first.isprintable()
    if not is_plain or len(words) != 3 or words[2] != "HTTP/1.1":  # noqa: PLR2004 - method, target, version
        raise BadHttpError(f"not a request of HTTP/1.1: {first[:80]!r}")
    check(Request(words[0], words[1], headers, b""))
    body = Body(headers, of_request=True)
    if headers.get("expect", "").lower() == "100-continue" and not body.over:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    data = bytearray(body.feed(rest))
    while not body.over:
        if not (more := await reader.read(READ_BYTES)):
            raise EOFError("the client left")
        data += body.feed(more)
        if len(data) > BODY_BYTES:
            raise BadHttpError(f"the body has more than {BODY_BYTES} bytes")
    return Request(words[0], words[1], headers, bytes(data))


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer, after which the connection ends."""
    phrase = responses.get(status, "Unknown")
    lines = [f"HTTP/1.1 {status} {phrase}", *map(": ".join, headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return a part of a body whose length is not known before."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Return first line, headers, and what was read beyond."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_BYTES:
            raise BadHttpError(f"the head has more than {HEAD_BYTES} bytes")
        if not (more := await reader.read(READ_BYTES)):
            raise EOFError("it hung up")
        data += more
    lines, _, rest = data.partition(b"\r\n\r\n")
    first, *fields = lines.decode("latin-1").split("\r\n")
    if any({"\r", "\n", "\0"} & set(line) for line in fields):
        raise BadHttpError("a line of the head has a control character in it")
    headers = {}
    for line in fields:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return first, headers, rest


def _spelt(place: str, request: Request) -> bytes:
    headers = {
        "Host": place,
        "Connection": "close",
        **request.headers,
        "Content-Length": str(len(request.body)),
    }
    lines = [f"{request.method} {request.target} HTTP/1.1", *map(": ".join, headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


def _status(first: str) -> int:
    words = first.split(" ")
    if not first.startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004
        raise CutError(f"not an answer of HTTP: {first[:80]!r}")
    return int(words[1])
