"""The known-truth server: sockets, clock and log around the plan in ``answers``.

It writes to the non-blocking socket itself, with nothing buffered in between, so that the stamp is
read one join and one ``send`` before the kernel has the bytes. Each send ends where it began: only
what the kernel did not take is awaited. The event loop waits with ``select``, whose time-outs keep
microseconds; asyncio's default, epoll, rounds up to the next millisecond.
One connection carries one request.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError
from shoestring.truth.answers import Halt, format_error, format_object, plan_answer
from shoestring.truth.asks import (
    MAX_HEAD_BYTES,
    Ask,
    Head,
    RefusedError,
    parse_ask,
    parse_head,
    parse_object,
)
from shoestring.truth.schedule import EXAMPLE
from shoestring.truth.words import Vocabulary

if TYPE_CHECKING:
    from typing import TextIO

# select() takes file descriptors below 1024.
MAX_CONNECTIONS = 512
REQUEST_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 2.0
NS_PER_S = 1_000_000_000
_ANSWER_PATHS = {"/v1/chat/completions": True, "/v1/completions": False}


def make_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers keep microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        BadValueError: the address cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listener.close()
        raise BadValueError(
            f"cannot listen on {host}:{port} ({error}): give another --host or --port"
        ) from error
    listener.setblocking(False)
    return listener


@dataclass
class TruthServer:
    """Serve every connection of a listener until it is cancelled.

    Attributes:
        listener: from :func:`open_listener`; closed by the caller.
        log: gets one JSON line at the end of each answer.
    """

    listener: socket.socket
    log: TextIO | None = None
    _vocabulary: Vocabulary = field(default_factory=Vocabulary)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self) -> None:
        """Accept connections; when cancelled, end those that are open."""
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(MAX_CONNECTIONS)
        try:
            while True:
                await free.acquire()
                connection, _ = await loop.sock_accept(self.listener)
                task = loop.create_task(self._serve_connection(connection))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
                task.add_done_callback(lambda _: free.release())
        finally:
            open_now = list(self._connections)
            for task in open_now:
                task.cancel()
            await asyncio.gather(*open_now, return_exceptions=True)

    async def _serve_connection(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A client may leave, time out or break the connection at any moment: none of it is ours.
        with connection, suppress(ConnectionError, TimeoutError):
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    head, body, received_ns = await _read_request(connection)
                await self._respond(connection, head, body, received_ns)
            except RefusedError as error:
                await _send(connection, format_error(error.status, str(error)))
                await _drain(connection)

    async def _respond(
        self, connection: socket.socket, head: Head, body: bytes, received_ns: int
    ) -> None:
        if head.path in _ANSWER_PATHS:
            _require(head, "POST")
            chat = _ANSWER_PATHS[head.path]
            ask = parse_ask(body, chat=chat, received_ns=received_ns, created_s=int(time.time()))
            await self._answer(connection, ask)
        else:
            await _send(connection, format_object(self._tell(head, body)))

    def _tell(self, head: Head, body: bytes) -> dict[str, Any]:
        """Return what an endpoint other than those for answers says."""
        match head.path:
            case "/health":
                _require(head, "GET")
                return {"status": "ok"}
            case "/v1/models":
                _require(head, "GET")
                model = {"id": EXAMPLE, "object": "model", "created": 0, "owned_by": "shoestring"}
                return {"object": "list", "data": [model]}
            case "/tokenize":
                _require(head, "POST")
                return {"tokens": self._vocabulary.encode(parse_object(body).get("content"))}
            case "/detokenize":
                _require(head, "POST")
                return {"content": self._vocabulary.decode(parse_object(body).get("tokens"))}
        raise RefusedError(404, f"no such path: {head.path[:80]}")

    async def _answer(self, connection: socket.socket, ask: Ask) -> None:
        """Write an answer as planned, and log what was sent when."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        loop.add_reader(connection, _cancel_when_gone, loop, connection, task)
        token_sent_ns: list[int] = []
        finished = False
        try:
            for step in plan_answer(ask):
                await asyncio.sleep((step.due_ns - time.monotonic_ns()) / NS_PER_S)
                if isinstance(step, Halt):
                    await _halt(connection, step)
                    return
                sent_ns = time.monotonic_ns()
                await _send(connection, step.fill(sent_ns))
                token_sent_ns += [sent_ns] * step.tokens
                finished = finished or step.final
        finally:
            loop.remove_reader(connection)
            self._write_log(ask, token_sent_ns, finished=finished)

    def _write_log(self, ask: Ask, token_sent_ns: list[int], *, finished: bool) -> None:
        if self.log is None:
            return
        line = {
            "model": ask.model,
            "received_ns": ask.received_ns,
            "first_token_sent_ns": token_sent_ns[0] if token_sent_ns else None,
            "token_sent_ns": token_sent_ns,
            "finished": finished,
        }
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()


async def _read_request(connection: socket.socket) -> tuple[Head, bytes, int]:
    """Return head, body and the moment at which the last byte of them had been read."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\r\n\r\n" not in data and len(data) <= MAX_HEAD_BYTES:
        data += await _receive(loop, connection)
    raw_head, _, rest = data.partition(b"\r\n\r\n")
    if len(raw_head) > MAX_HEAD_BYTES:
        raise RefusedError(431, f"the head has more than {MAX_HEAD_BYTES} bytes")
    head = parse_head(raw_head)
    body = bytearray(rest)
    if head.expects_continue:
        await _send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < head.body_bytes:
        body += await _receive(loop, connection)
    received_ns = time.monotonic_ns()
    return head, bytes(body[: head.body_bytes]), received_ns


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    data = await loop.sock_recv(connection, 65536)
    if not data:
        raise ConnectionResetError("the client left before its request was whole")
    return data


async def _send(connection: socket.socket, data: bytes) -> None:
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await asyncio.get_running_loop().sock_sendall(connection, data[sent:])


async def _halt(connection: socket.socket, halt: Halt) -> None:
    if halt.reset:
        # Lingering for 0 s makes the close a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        await asyncio.get_running_loop().create_future()


async def _drain(connection: socket.socket) -> None:
    """Read what a refused client still sends: closing on it would reset, and lose our answer."""
    loop = asyncio.get_running_loop()
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the client has left already: nothing of ours can be lost
    async with asyncio.timeout(DRAIN_TIMEOUT_S):
        while await loop.sock_recv(connection, 65536):
            pass


def _cancel_when_gone(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, task: asyncio.Task[None]
) -> None:
    """End an answer whose client has closed its side; further bytes of it are ignored."""
    try:
        gone = not connection.recv(65536)
    except BlockingIOError:
        return
    except OSError:
        gone = True
    if gone:
        loop.remove_reader(connection)
        task.cancel()


def _require(head: Head, method: str) -> None:
    if head.method != method:
        raise RefusedError(405, f"{head.path} takes {method}, not {head.method[:20]}")
