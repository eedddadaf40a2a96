"""The timed path: one HTTP exchange, every arrival stamped before anything is parsed.

``http.client`` in the caller's thread, one connection a request (llama-server promises to keep a
connection alive and closes it after a stream; ``connect_s`` says what the connection cost). Below
it lies a reader of our own, which stamps each ``recv`` as it returns: framing, decoding and JSON
come after the stamp. The same reader holds the limits of time at every ``recv``, so that a server
that drips bytes, in its head or in its trailer, cannot outlast them.
Measured against the known-truth server in ``benchmarks/clock.py``.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shoestring.engines.protocol import Failure, FailureReason, Patience, monotonic_ns
from shoestring.errors import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 65_536
BODY_LIMIT_BYTES = 64 * 2**20
DETAIL_LIMIT_BYTES = 4_096
CONNECT_LIMIT_S = 10.0
"""A connection that takes longer than this counts as none; it cannot be cancelled before."""


class Cancellation:
    """Ends exchanges in flight from another thread, by shutting their sockets down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self.requested = False

    def cancel(self) -> None:
        """End every exchange in flight; later ones end as soon as they are connected."""
        with self._lock:
            self.requested = True
            for sock in self._sockets:
                _shut(sock)

    def add(self, sock: socket.socket) -> None:
        """Watch a socket until :meth:`remove`."""
        with self._lock:
            self._sockets.add(sock)
            if self.requested:
                _shut(sock)

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket."""
        with self._lock:
            self._sockets.discard(sock)


@dataclass(frozen=True)
class Address:
    """Where a server listens: the parts of ``http://host:port/prefix``."""

    secure: bool
    host: str
    port: int
    prefix: str

    @property
    def url(self) -> str:
        """The address as it was given, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True)
class Exchange:
    """What one exchange brought: raw arrivals ``(t_ns, bytes)`` and how it ended."""

    sent_ns: int | None
    headers_ns: int | None
    end_ns: int
    connect_s: float | None
    status: int | None
    content_type: str
    arrivals: list[tuple[int, bytes]]
    failure: Failure | None


def parse_base_url(text: str) -> Address:
    """Parse a base URL; ``/v1`` at its end is dropped, since every path here names it.

    Raises:
        BadValueError: it is not an http or https URL with a host.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        # Not repeated: what cannot be parsed may hold a password.
        raise BadValueError(f"the base URL cannot be used: {error}") from error
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadValueError(
            "the base URL holds more than scheme, host, port and path: "
            "give the key in SHOESTRING_API_KEY"
        )
    writable = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not writable:
        raise BadValueError(f"base URL {text!r} cannot be used: give http://HOST:PORT")
    secure = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Address(secure, parts.hostname, port or (443 if secure else 80), prefix)


def exchange(
    address: Address,
    path: str,
    body: bytes,
    headers: dict[str, str],
    patience: Patience,
    *,
    started_ns: int,
    cancellation: Cancellation | None = None,
    on_sent: Callable[[], None] = lambda: None,
    clock: Callable[[], int] = monotonic_ns,
) -> Exchange:
    """POST ``body`` and read the answer to its end, stamping every arrival.

    ``on_sent`` is called once the request has left: from then on it is the server's turn.
    Never raises for what the network or the server does: that is in ``failure``.
    """
    attempt = _Attempt(address, patience, started_ns, clock)
    try:
        attempt.connect()
        assert attempt.sock is not None
        if cancellation is not None:
            cancellation.add(attempt.sock)
        attempt.send(path, body, headers)
        on_sent()
        attempt.read()
    except TimeoutError:
        attempt.fail(*attempt.timeout_reason())
    except http.client.RemoteDisconnected:
        attempt.fail("reset", "the server closed the connection without an answer")
    except http.client.IncompleteRead:
        attempt.fail("reset", "the connection was closed in the middle of the answer")
    except http.client.HTTPException as error:
        attempt.fail("malformed", f"not HTTP: {type(error).__name__} {error}".strip())
    except OSError as error:
        reason: FailureReason = "connect" if attempt.connect_s is None else "reset"
        attempt.fail(reason, f"{address.url}: {error.strerror or error}")
    finally:
        if cancellation is not None and attempt.sock is not None:
            cancellation.remove(attempt.sock)
        attempt.close()
    return attempt.result()


class _Attempt:
    """The state of one exchange, so that a failure keeps what was reached before it."""

    def __init__(
        self, address: Address, patience: Patience, started_ns: int, clock: Callable[[], int]
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._deadline_ns = started_ns + int(patience.request_s * 1e9)
        kind = _SecureConnection if address.secure else _PlainConnection
        self._connection = kind(address.host, address.port)
        self._connection.response_class = self._make_response  # type: ignore[assignment]
        self._prefix = address.prefix
        self.sock: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._status: int | None = None
        self._sent_ns: int | None = None
        self._headers_ns: int | None = None
        self._arrived_ns = 0
        self.connect_s: float | None = None
        self._arrivals: list[tuple[int, bytes]] = []
        self._failure: Failure | None = None

    def connect(self) -> None:
        before_ns = self._clock()
        self._connection.timeout = min(self._wait_s(), CONNECT_LIMIT_S)
        self._connection.connect()
        self.sock = self._connection.sock
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connect_s = (self._clock() - before_ns) / 1e9

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._connection.request("POST", self._prefix + path, body, headers)
        self._connection.flush()
        self._sent_ns = self._clock()

    def read(self) -> None:
        response = self._response = self._connection.getresponse()
        self._headers_ns = self._arrived_ns
        self._status = response.status
        if response.status != http.HTTPStatus.OK:
            self._read_refusal(response)
            return
        size = 0
        while data := response.read1(READ_BYTES):
            self._arrivals.append((self._arrived_ns, data))
            size += len(data)
            if size > BODY_LIMIT_BYTES:
                self.fail("malformed", f"the answer is longer than {BODY_LIMIT_BYTES} bytes")
                return
        if response.length:  # of a Content-Length; read1 does not complain of a cut body
            self.fail("reset", f"the connection was closed {response.length} bytes too early")

    def _read_refusal(self, response: http.client.HTTPResponse) -> None:
        """Note the status first: the text that explains it may never come."""
        reason: FailureReason = "http_error"
        self.fail(reason, f"HTTP {response.status} {response.reason}")
        said = response.read(DETAIL_LIMIT_BYTES).decode("utf-8", "replace")
        self._failure = Failure(
            reason, f"HTTP {response.status} {response.reason}: {' '.join(said.split())[:500]}"
        )

    def receive(self, file: socket.SocketIO, buffer: Any) -> int | None:
        """Receive what is there, within the limits, and stamp it."""
        assert self.sock is not None
        self.sock.settimeout(self._wait_s())
        count = file.readinto(buffer)
        self._arrived_ns = self._clock()
        return count

    def _make_response(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Wire(self, sock), **options)  # type: ignore[arg-type]

    def _wait_s(self) -> float:
        """Return how long the next wait may be: the stall limit, or what is left of the whole."""
        left_s = (self._deadline_ns - self._clock()) / 1e9
        return max(min(left_s, self._patience.stall_s), 0.001)

    def timeout_reason(self) -> tuple[FailureReason, str]:
        if self.connect_s is None:
            return "connect", f"no connection within {self._connection.timeout:g} s"
        if self._clock() >= self._deadline_ns:
            return "deadline", f"not finished within {self._patience.request_s:g} s"
        if self._headers_ns is None:
            return "headers_timeout", f"no answer within {self._patience.stall_s:g} s"
        return "stall", f"no byte for {self._patience.stall_s:g} s"

    def fail(self, reason: FailureReason, detail: str) -> None:
        """Note why the exchange failed; the first reason is the one that counts."""
        self._failure = self._failure or Failure(reason, detail)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def result(self) -> Exchange:
        response = self._response
        return Exchange(
            sent_ns=self._sent_ns,
            headers_ns=self._headers_ns,
            end_ns=self._clock(),
            connect_s=self.connect_s,
            status=self._status,
            content_type=(response.getheader("Content-Type") or "") if response is not None else "",
            arrivals=self._arrivals,
            failure=self._failure,
        )


class _OneSend:
    """Gathers the head and the body of a request, which then leave by one call of ``send``.

    ``http.client`` sends them one by one: two packets, for which the server wakes up twice.
    """

    sock: socket.socket

    def send(self, data: Any) -> None:
        """Keep a part; ``http.client`` calls this with bytes."""
        self.__dict__.setdefault("parts", []).append(data)

    def flush(self) -> None:
        """Send all parts."""
        self.sock.sendall(b"".join(self.__dict__.pop("parts")))


class _PlainConnection(_OneSend, http.client.HTTPConnection):
    pass


class _SecureConnection(_OneSend, http.client.HTTPSConnection):
    pass


class _Wire(io.RawIOBase):
    """What ``http.client`` takes for its socket: every read goes through ``receive``."""

    def __init__(self, attempt: _Attempt, sock: socket.socket) -> None:
        super().__init__()
        self._attempt = attempt
        # Holds the socket open: ``http.client`` closes its own end as soon as it has the head.
        self._file = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the buffered file that the response reads from."""
        return io.BufferedReader(self, READ_BYTES)

    def readable(self) -> bool:
        """Return True: that is all it is for."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Fill the buffer with what has arrived."""
        return self._attempt.receive(self._file, buffer)

    def close(self) -> None:
        """Let the socket go."""
        self._file.close()
        super().close()


def _shut(sock: socket.socket) -> None:
    try:
        # The plain socket's: that of TLS would take its state away under the reading thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        # The peer was faster: the socket is down already, which is what was wanted.
        return
