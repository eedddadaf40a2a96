"""Servers that play with HTTP itself: the limits hold in every phase, and the reason is right."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Generation, Patience, Prompt
from shoestring.errors import MissingError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'


class ScriptedServer:
    """Answers each connection by a script, and ends with the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.over = threading.Event()
        self.script: Callable[[socket.socket], None] = lambda _: None
        self.heard = b""
        self.dripped = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed, or the client left
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError):
                    self.heard = client.recv(65536)
                    self.script(client)

    def drip(self, client: socket.socket, piece: bytes, times: int = 100) -> None:
        """Send a piece each 50 ms, never silent for long, until the client has left."""
        for self.dripped in range(times):
            client.sendall(piece)
            if self.over.wait(0.05):
                return

    def close(self) -> None:
        """End all scripts."""
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server whose script the test sets."""
    one = ScriptedServer()
    yield one
    one.close()


def ask(server: ScriptedServer, *, request_s: float = 2.0) -> Generation:
    """Ask with a stall limit that drips never reach."""
    return OpenAIEngine(server.url, "m").generate(
        Prompt("now", 5), patience=Patience(5.0, request_s)
    )


DRIPS = {
    "head": (HEAD, b"X-Drip: 1\r\n", "deadline"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "deadline"),
    "error body": (b"HTTP/1.1 503 No\r\nContent-Length: 9999\r\n\r\n", b".", "http_error"),
    "chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0", "deadline"),
    "comments": (HEAD + b"\r\n", b": still here\n\n", "deadline"),
}


@pytest.mark.parametrize("phase", DRIPS)
def test_a_dripping_server_cannot_outlast_the_deadline(server, phase):
    """Wherever a server drips bytes, the request ends at its deadline with the right reason."""
    begin, piece, reason = DRIPS[phase]

    def script(client: socket.socket) -> None:
        client.sendall(begin)
        server.drip(client, piece)

    server.script = script
    generation = ask(server)

    assert generation.failure is not None
    assert generation.failure.reason == reason
    assert server.dripped < 99  # it was cut off, it did not end by itself


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HEAD + b"\r\n" + EVENTS, None),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENTS, None),
        (HEAD + b"\r\n\xef\xbb\xbf" + EVENTS, None),
        (HEAD + b"Content-Length: %d\r\n\r\n" % len(EVENTS) + EVENTS, None),
        (HEAD + b"Content-Length: 500\r\n\r\n" + EVENTS[:50], "reset"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "reset"),
        (HEAD + b"\r\n" + b"data: " + b"[" * 100_000 + b"\n\n", "malformed"),
        (b"", "reset"),
        (b"SSH-2.0-x\r\n", "malformed"),
        (b"HTTP/1.1 308 On\r\nLocation: /v2\r\nContent-Length: 0\r\n\r\n", "http_error"),
    ],
)
def test_edges_of_http(server, answer, reason):
    """Bodies with and without a length, cut ones, and what is no HTTP, each have their reason."""
    server.script = lambda client: client.sendall(answer)

    failure = ask(server, request_s=5).failure

    assert reason == (failure.reason if failure else None)


def test_what_came_at_once_has_one_stamp(server):
    """Ten chunks of one segment arrived at one moment, whatever their parsing took."""
    chunk = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for _ in range(10))
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    server.script = lambda client: client.sendall(head + framed + b"0\r\n\r\n")

    events = ask(server, request_s=5).events

    assert len(events) == 10
    assert len({event.t_ns for event in events}) == 1


def test_a_key_that_comes_back_is_blanked(server, monkeypatch):
    """A server that returns the request's head in its refusal does not put the key on record."""
    monkeypatch.setenv("SHOESTRING_API_KEY", "sk-very-secret")
    answer = b"HTTP/1.1 400 Bad\r\n\r\nyou sent Authorization: Bearer sk-very-secret"
    server.script = lambda client: client.sendall(answer)

    failure = ask(server, request_s=5).failure

    assert failure is not None
    assert b"sk-very-secret" in server.heard
    assert failure.detail.endswith("Bearer ***")


def test_a_netrc_does_not_replace_the_key(server, monkeypatch, tmp_path):
    """What is asked beside the timed path carries the same key, whatever the home folder holds."""
    (tmp_path / ".netrc").write_text("default login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHOESTRING_API_KEY", "sk-mine")
    server.script = lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with OpenAIEngine(server.url, "m"):
        assert b"Authorization: Bearer sk-mine" in server.heard


def test_each_question_has_its_own_connection(server):
    """A server that promises keep-alive and closes after its answer is not taken for lost."""
    said = b'{"data": [{"owned_by": "vllm"}], "version": "1.0"}'

    def answer_once(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        client.recv(65536)

    server.script = answer_once

    with OpenAIEngine(server.url, "m") as engine:
        assert engine.version() == "vllm 1.0"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 301 On\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n", "sends on to"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "set SHOESTRING_API_KEY"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (9 * 2**20), "answers without end"),
        (b"", "no server answers"),
    ],
)
def test_a_start_that_cannot_work_says_why(server, answer, words):
    """A redirect, a refused key, an endless body and silence are one line with the mend."""
    server.script = lambda client: client.sendall(answer)

    with pytest.raises(MissingError, match=words):
        OpenAIEngine(server.url, "m").start()


@pytest.mark.parametrize("key", ["ключ", "a\nb"])
def test_keys_that_no_header_can_carry(server, monkeypatch, key):
    """A key with characters that cannot be sent is refused, and not repeated."""
    monkeypatch.setenv("SHOESTRING_API_KEY", key)

    with pytest.raises(Exception, match="SHOESTRING_API_KEY holds a character") as caught:
        OpenAIEngine(server.url, "m")

    assert key not in str(caught.value)
