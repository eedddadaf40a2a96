"""A real server for the whole room, and a client that sees every byte and every chunk."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shoestring.truth.process import RunningServer, running_server


@dataclass(frozen=True)
class Reply:
    """What came over the wire.

    Attributes:
        head: status line and fields.
        body: everything behind the head, still framed.
        reset: whether the connection ended by a reset.
    """

    head: bytes
    body: bytes
    reset: bool

    @property
    def status(self) -> int:
        """The status of the head."""
        return int(self.head.split(b" ")[1])

    @property
    def chunks(self) -> list[bytes]:
        """The HTTP chunks; the terminating one is an empty one."""
        found, rest = [], self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            end = int(size, 16)
            assert rest[end : end + 2] == b"\r\n"
            found.append(rest[:end])
            rest = rest[end + 2 :]
        return found


@dataclass(frozen=True)
class Truth:
    """The server of this test session, and how to ask it."""

    server: RunningServer
    log: Path

    def connect(self) -> socket.socket:
        """Return a new connection."""
        address = urlsplit(self.server.base_url)
        return socket.create_connection((address.hostname, address.port), timeout=30)

    def send(self, method: str, path: str, body: bytes = b"") -> socket.socket:
        """Send a whole request and return its connection."""
        connection = self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection

    def call(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send a request and read until the server closes."""
        with self.send(method, path, body) as connection:
            return read_reply(connection)

    def ask(self, model: str, *, chat: bool = True, stream: bool = True, **more: object) -> Reply:
        """Ask for an answer."""
        path, body = format_ask(model, chat=chat, stream=stream, **more)
        return self.call("POST", path, body)

    def last_logged(self) -> dict[str, object]:
        """Return the last line of the log; it is written before its connection is closed."""
        return dict(json.loads(self.log.read_text().splitlines()[-1]))


def format_ask(model: str, *, chat: bool, stream: bool, **more: object) -> tuple[str, bytes]:
    """Return path and body of a request for an answer with a prompt of three words."""
    prompt = {"messages": [{"role": "user", "content": "a b c"}]} if chat else {"prompt": "a b c"}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return path, json.dumps({"model": model, "stream": stream, **prompt, **more}).encode()


def read_reply(connection: socket.socket) -> Reply:
    """Read until the server closes or resets."""
    data, reset = b"", False
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        reset = True
    head, _, body = data.partition(b"\r\n\r\n")
    return Reply(head, body, reset)


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Truth]:
    """Run one server for all tests."""
    log = tmp_path_factory.mktemp("truth") / "log.jsonl"
    with running_server(log=log) as server:
        yield Truth(server, log)


@pytest.fixture(scope="session")
def read() -> Callable[[socket.socket], Reply]:
    """Give tests the reader for connections that they opened themselves."""
    return read_reply
