"""Load from one process: many connections that stay open, every arrival stamped at once.

The harness's own client (``engines/transport.py``) takes a thread and a new connection a request.
Clients of a gateway keep theirs open, and some loads have thousands, so this one is asyncio. What
it brings is the harness's :class:`Exchange`, read by the same code and the same formulas.
The clock of a request starts when it is written to a connection that is open already.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from shoestring.engines.events import read_stream
from shoestring.engines.http_engine import HttpRecording
from shoestring.engines.protocol import Failure, monotonic_ns
from shoestring.engines.transport import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from shoestring.engines.protocol import Generation

T = TypeVar("T")
CHAT = "/v1/chat/completions"
CONNECT_LIMIT_S = 10.0
ANSWER_LIMIT_S = 60.0


CLOSES = b"Connection: close\r\n"


@dataclass(frozen=True)
class Site:
    """A server, and the key that it is asked with."""

    base_url: str
    key: str | None = field(default=None, repr=False)

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        parts = urlsplit(self.base_url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def post(self, path: str, body: dict[str, Any] | bytes, *, last: bool = False) -> bytes:
        """Return a request as it goes over the wire; ``last``: of its connection."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = self._head("POST", path, len(payload))
        return (head[:-2] + CLOSES + b"\r\n" if last else head) + payload

    def get(self, path: str) -> bytes:
        """Return a request without a body."""
        return self._head("GET", path, 0)

    def _head(self, method: str, path: str, body_bytes: int) -> bytes:
        host, port = self.address
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{key}"
            f"Content-Type: application/json\r\nContent-Length: {body_bytes}\r\n\r\n"
        ).encode()


@dataclass(frozen=True)
class Answer:
    """What came of a request: the exchange, and the head's fields by their lower-case names."""

    exchange: Exchange
    headers: dict[str, str]

    @property
    def status(self) -> int | None:
        """Of HTTP; None where there was no answer."""
        return self.exchange.status

    @property
    def body(self) -> bytes:
        """All of it that arrived."""
        return b"".join(data for _, data in self.exchange.arrivals)

    def parsed(self) -> Any:
        """Return the body as JSON, or None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def read(self) -> Generation:
        """Read a stream as the harness does."""
        sent_ns = self.exchange.sent_ns
        started_ns = self.exchange.end_ns if sent_ns is None else sent_ns
        return HttpRecording(self.exchange, started_ns, read_stream, "text/event-stream").read()


class Line:
    """One connection; it is opened again where the server closed it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._wire: _Wire | None = None

    async def open(self) -> _Wire:
        """Connect, unless it is connected.

        Raises:
            OSError: nobody listens there, or not in time.
        """
        if self._wire is None or self._wire.closed:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, self._wire = await loop.create_connection(_Wire, *self._site.address)
        return self._wire

    async def ask(
        self,
        request: bytes,
        *,
        limit_s: float = ANSWER_LIMIT_S,
        leave_after: int | None = None,
    ) -> Answer:
        """Send a request and take the answer down; never raises for what the server does.

        Args:
            request: from :meth:`Site.post` or :meth:`Site.get`.
            limit_s: longest time for the whole answer.
            leave_after: hang up after so many pieces of the body.
        """
        try:
            wire = await self.open()
        except OSError as error:
            said = f"{self._site.base_url}: {error.strerror or error}"
            return Answer(_Taken().exchange(Failure("connect", said)), {})
        try:
            async with asyncio.timeout(limit_s):
                await wire.ask(request, leave_after)
        except TimeoutError:
            self.close()
            failure = Failure("deadline", f"not finished within {limit_s:g} s")
            return Answer(wire.taken.exchange(failure), wire.taken.headers)
        except ConnectionError as error:
            failure = Failure("reset", str(error))
            return Answer(wire.taken.exchange(failure), wire.taken.headers)
        if CLOSES in request:
            self.close()
        return Answer(wire.taken.exchange(None), wire.taken.headers)

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


@dataclass
class _Taken:
    """What has arrived of one answer."""

    sent_ns: int | None = None
    headers_ns: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    arrivals: list[tuple[int, bytes]] = field(default_factory=list)

    def exchange(self, failure: Failure | None) -> Exchange:
        if failure is None and self.status != 200:
            said = b"".join(data for _, data in self.arrivals)[:200].decode(errors="replace")
            failure = Failure("http_error", f"HTTP {self.status}: {said}")
        return Exchange(
            sent_ns=self.sent_ns,
            headers_ns=self.headers_ns,
            end_ns=monotonic_ns(),
            connect_s=None,
            status=self.status,
            content_type=self.headers.get("content-type", ""),
            arrivals=self.arrivals,
            failure=failure,
        )


class _Wire(asyncio.Protocol):
    """One connection from its opening to its end."""

    def __init__(self) -> None:
        self.taken = _Taken()
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._leave_after: int | None = None
        self._arrived_ns = 0

    async def ask(self, request: bytes, leave_after: int | None) -> None:
        assert self._transport is not None
        self.taken, self._leave_after = _Taken(), leave_after
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self.taken.sent_ns = monotonic_ns()
        self._transport.write(request)
        await self._done

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._arrived_ns = monotonic_ns()
        if self._done is None or self._done.done():
            return  # nobody asked, or nobody listens any more
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionError(f"not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        where = "in the middle of" if self.taken.status else "without"
        self._end(ConnectionError(f"the connection was closed {where} an answer ({exc or 'EOF'})"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.taken.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.taken.headers_ns = self._arrived_ns
        self.taken.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.taken.arrivals.append((self._arrived_ns, data))
        if len(self.taken.arrivals) == self._leave_after:
            self._end(None)
            self.close()

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        self._end(None)

    def _end(self, error: ConnectionError | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
            self.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work on the loop that gateways run on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def closed_loop(
    site: Site,
    request_of: Callable[[int], bytes],
    numbers: Iterable[int],
    concurrency: int,
    *,
    limit_s: float = ANSWER_LIMIT_S,
) -> list[Answer]:
    """Ask for each number, so many at a time, each over a connection of its own.

    All connections are open before the first request leaves; the next request leaves when the
    last of its connection has ended, so nothing ever waits in the client.
    """
    lines = [Line(site) for _ in range(concurrency)]
    turns, answers = iter(numbers), list[Answer]()

    async def work(line: Line) -> None:
        for number in turns:
            answers.append(await line.ask(request_of(number), limit_s=limit_s))
            with suppress(OSError):  # the next ask says so
                await line.open()

    for line in lines:
        await line.open()
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(work(line))
    for line in lines:
        line.close()
    return answers


def until(seconds: float) -> Iterator[int]:
    """Count until the time is over."""
    end_s, number = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        yield number
        number += 1
