"""A real llama-server for tests and benchmarks: started, waited for, asked, and ended."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from shoestring.engines.launch import Launched, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LIMIT_S = 600.0
"""A shared machine of two cores may take long."""


@dataclass(frozen=True)
class LiveServer:
    """A server that has loaded its model.

    Attributes:
        pid: of its process.
        address: as ``http://127.0.0.1:PORT``.
        session: of HTTP, which no proxy of the environment gets to see.
        limit_s: for each answer.
    """

    pid: int
    address: str
    session: requests.Session
    limit_s: float

    def complete(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return what ``/completion`` answers.

        Raises:
            requests.RequestException: it refused, or did not answer.
        """
        answer = self.session.post(f"{self.address}/completion", json=asked, timeout=self.limit_s)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said


@contextmanager
def live_server(
    command: Callable[[int], Sequence[str]],
    *,
    environment: Mapping[str, str] | None = None,
    log_path: Path | None = None,
    limit_s: float = LIMIT_S,
) -> Iterator[LiveServer]:
    """Start a server on a free port, yield it when its model is loaded, and end it.

    Args:
        command: makes program and arguments for a port.
        environment: variables beside the inherited ones.
        log_path: where its output is appended; None drops it.
        limit_s: for the model to load, and for each answer.

    Raises:
        EngineLostError: it did not take the model.
        MissingError: the program cannot be started.
    """
    address = f"http://127.0.0.1:{(port := free_port())}"
    with requests.Session() as session:
        session.trust_env = False

        def ready() -> bool:
            try:
                return session.get(f"{address}/health", timeout=limit_s).ok
            except requests.ConnectionError:
                return False

        server = Launched(
            "llama-server", command(port), environment=environment or {}, log_path=log_path
        )
        try:
            server.wait_until(ready, limit_s)
            yield LiveServer(server.pid, address, session, limit_s)
        finally:
            server.stop()
