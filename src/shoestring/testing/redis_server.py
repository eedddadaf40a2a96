"""A real Redis in tests: started on loopback, killed, restarted, held up, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines.launch import Launched, start_on_free_port
from shoestring.errors import EngineLostError
from shoestring.testing.engines import end_test

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_S = 30.0
ANSWER_S = 1.0


class RedisServer:
    """A redis-server of our own.

    Args:
        folder: where its data would lie.
        options: more of its command line, for example ``--appendonly yes``.

    Attributes:
        port: on 127.0.0.1; stays the same over restarts.
    """

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self._folder = folder
        self._options = options
        self._server: Launched | None = None
        self.port = 0
        start_on_free_port(self._start)

    @property
    def url(self) -> str:
        """Return the address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """End it at once, as a crash does; what it did not write is gone."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def restart(self) -> None:
        """Start it again on the same port, with what its options made it keep."""
        self._start(self.port)

    def pause(self) -> None:
        """Let it hang: connections are accepted, nothing is answered."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; it then does what was asked of it meanwhile."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, paused or not; may be called twice."""
        if self._server is not None and self._server.death() is None:
            self.resume()
            self._server.stop()

    def command(self, *words: str) -> str:
        """Run one command and return the first line of the answer, for example ``+PONG``."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_S) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.makefile(encoding="utf-8").readline().strip()

    def _start(self, port: int) -> None:
        self.port = port
        command = [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(self._folder), "--save", "", *self._options),
        ]
        log = self._folder / "redis.log"
        self._server = Launched("redis-server", command, environment={}, log_path=log)
        try:
            self._server.wait_until(self._answers, READY_S)
        except EngineLostError:
            self._server.stop()
            raise

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            # Not yet.
            return False


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """Run a Redis until the block ends; the test is skipped, or fails, where none is installed."""
    if shutil.which("redis-server") is None:
        end_test("redis-server", "apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), options)
        try:
            yield server
        finally:
            server.stop()
