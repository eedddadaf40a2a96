"""The HTTP server: uvicorn's, with bounds on how slow and how large a request's head may be.

uvicorn waits for ever for the rest of a head and keeps all of it (trailers and queued requests
too), and closes a connection only when its reader has taken what was written. Here a head has a
time and a size, few requests may queue, connections are counted as they come, and one whose client
does not read is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shoestring.gateway.client import LINE, Line

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


MOST_QUEUED = 8
"""Requests that a client may send before the first is answered."""
STALL_MARGIN_S = 5.0
"""An answer's own watch comes first, and says so in the log."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; the bounds are set by :func:`bounded_protocol`."""

    head_timeout_s: ClassVar[float]
    max_head_bytes: ClassVar[int]
    stall_s: ClassVar[float]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._line = Line(transport.abort)
        self._running: RequestResponseCycle | None = None
        self._patience = self.loop.call_later(self.head_timeout_s, self._too_slow)
        self._unread: asyncio.TimerHandle | None = None
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and tell the requests."""
        self._patience.cancel()
        if self._unread is not None:
            self._unread.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells the newest of queued requests only
        super().connection_lost(exc)
        self._line.lose()

    def data_received(self, data: bytes) -> None:
        """Count what is no body: heads, the lines of chunks, trailers."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.max_head_bytes:
            self._drop()

    def on_body(self, body: bytes) -> None:
        """Leave the body out of that count."""
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is there: read on, for who leaves is seen only by reading."""
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, which nobody reads, are let go."""
        if self._in_head:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A head begins: by now it has a time to end."""
        if len(self.pipeline) >= MOST_QUEUED:
            raise httptools.HttpParserError("too many requests at once")
        super().on_message_begin()
        self.scope[LINE] = self._line  # type: ignore[literal-required]
        if not self._in_head:
            self._in_head, self._head_bytes = True, 0
            self._patience.cancel()
            self._patience = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._patience.cancel()
        if sum(len(name) + len(value) for name, value in self.headers) > self.max_head_bytes:
            self._drop()
            return
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client does not read: it has a time to begin again."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.stall_s + STALL_MARGIN_S, self._drop)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that still has unread bytes is dropped."""
        if self.transport.get_write_buffer_size():
            self._drop()
        else:
            super().timeout_keep_alive_handler()

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._drop()

    def _drop(self) -> None:
        self.transport.abort()


def bounded_protocol(
    head_timeout_s: float, max_head_bytes: int, stall_s: float
) -> type[BoundedProtocol]:
    """Return the protocol with its bounds."""
    bounds = {
        "head_timeout_s": head_timeout_s,
        "max_head_bytes": max_head_bytes,
        "stall_s": stall_s,
    }
    return type("BoundedProtocol", (BoundedProtocol,), bounds)


def server_options(protocol: type[HttpToolsProtocol], connections: int) -> dict[str, Any]:
    """Return uvicorn's settings: no header that names it, no log of its own, no websockets."""
    return {
        "http": protocol,
        "ws": "none",
        "loop": "uvloop",
        "limit_concurrency": connections,
        "timeout_keep_alive": 15,
        "backlog": 2048,
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "off",
    }
