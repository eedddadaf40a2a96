"""What the contract servers share: threads on loopback, and a model that only knows words.

A contract server behaves as an engine's published API does, traps included, so that an adapter can
be held to that API where the engine itself is not to be had. It proves nothing about the engine.

The model's tokens are words. It repeats the prompt's words for ever and would end after
``eos_after`` tokens; every request is kept in ``asked``, to be looked at by a test.
"""

from __future__ import annotations

import itertools
import json
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD_TIMEOUT_S = 30.0  # a test that forgets to go on fails, and does not hang


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text: its words."""
    return text.split()


@dataclass
class ModelServer:
    """The state of a contract server; change it at any time.

    Attributes:
        model_id: the model's name.
        key: asked for as Bearer token; None: none is asked for.
        pace_s: time for each token.
        eos_after: tokens after which the model would end.
        asked: paths and bodies of the requests for answers, in the order of arrival.
        gate: no generation goes on while it is cleared.
        base_url: where it listens.
        closing: once set, every answer is cut.
        changed: holds the lock of the state, and tells of requests.
    """

    model_id: str = "words"
    key: str | None = None
    pace_s: float = 0.001
    eos_after: int = 64
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    base_url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    handler: ClassVar[type[ModelHandler]]

    def words(self, prompt: list[str], limit: int, *, endless: bool) -> Iterator[str]:
        """Yield the words of an answer, each after its time.

        Raises:
            ConnectionAbortedError: ``closing`` was set: the answer is cut, as by a killed server.
        """
        length = limit if endless else min(limit, self.eos_after)
        for word in itertools.islice(itertools.cycle(prompt or ["silence"]), length):
            self.gate.wait(HOLD_TIMEOUT_S)
            if self.closing.wait(self.pace_s):
                raise ConnectionAbortedError("the server goes away")
            yield f" {word}"

    def note(self, path: str, body: dict[str, Any]) -> None:
        """Keep a request for an answer."""
        with self.changed:
            self.asked.append((path, body))
            self.changed.notify_all()

    def wait_for_asked(self, count: int) -> None:
        """Wait until so many answers have been asked for."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, HOLD_TIMEOUT_S)


@contextmanager
def serving(state: ModelServer, port: int = 0) -> Iterator[None]:
    """Serve on 127.0.0.1 until the block ends; ``base_url`` says where."""
    bound = type("Bound", (state.handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", port), bound)
    server.daemon_threads = False  # server_close() waits for their ends
    state.gate.set()
    state.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        state.closing.set()
        state.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


class ModelHandler(ABC, BaseHTTPRequestHandler):
    """Reads a request, lets ``tell`` or ``answer`` do the rest, and sends what they say."""

    state: ModelServer

    def do_GET(self) -> None:
        """Answer a question."""
        self._serve(self.tell)

    def do_POST(self) -> None:
        """Answer a request."""
        self._serve(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
        """Keep quiet."""

    @abstractmethod
    def tell(self, path: str, body: bytes) -> None:
        """Answer a question (GET)."""

    @abstractmethod
    def answer(self, path: str, body: bytes) -> None:
        """Answer a request (POST)."""

    def say(self, status: int, said: Any) -> None:
        """Send one JSON value, or an empty body for None."""
        body = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def has_key(self) -> bool:
        """Whether the request has the key that is asked for."""
        key = self.state.key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def _serve(self, respond: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            respond(urlsplit(self.path).path, body)
        except OSError:  # the client or the server goes away: the generation has stopped
            self.close_connection = True
