"""A server that the harness starts, waits for, and ends; nothing of it survives the harness.

The server runs behind :mod:`shoestring.engines.guard`, which ends it when the harness is gone.
Its output goes to the run's log. It listens on loopback, on a port that was free a moment ago:
where another program was faster, the server says so, dies, and is started again on another port.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines import guard
from shoestring.errors import EngineLostError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

POLL_S = 0.02
STOP_WAIT_S = guard.PATIENCE_S + 5.0


def free_port() -> int:
    """Return a loopback port on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Launched:
    """A running server process.

    Args:
        what: its name, for messages.
        command: program and arguments; no secret may stand here, others can read it.
        environment: variables beside our own; secrets go here.
        log_path: where its output is appended; None drops it.

    Raises:
        MissingError: the program cannot be started.
    """

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path | None,
    ) -> None:
        self._what = what
        self._log_path = log_path
        self._status: int | None = None
        self._ended = threading.Event()
        with Path(os.devnull if log_path is None else log_path).open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | environment,
                # Ctrl-C in the terminal is the harness's to handle: it ends the server in order.
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        said = self._guard.stdout.readline().decode()
        if not said.strip().isdigit():
            self.stop()
            raise MissingError(f"{what} cannot be started: {said.removeprefix('error ').strip()}")
        self.pid = int(said)

    def death(self) -> str | None:
        """Say in one line how it died, or None while it lives."""
        if self._status is None and not self._read_status():
            return None
        status = self._status or 0
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        if status == -signal.SIGKILL:
            how += " (out of memory? take a smaller model or less context)"
        return f"{self._what} died {how}{self.where_log()}"

    def wait_until(self, ready: Callable[[], bool], limit_s: float) -> None:
        """Wait until the server answers.

        Raises:
            EngineLostError: it died, or was not ready in time.
        """
        deadline_s = time.monotonic() + limit_s
        while not ready():
            if (death := self.death()) is not None:
                raise EngineLostError(death)
            if time.monotonic() > deadline_s:
                raise EngineLostError(
                    f"{self._what} was not ready within {limit_s:g} s: take a smaller model, or "
                    f"a machine with more memory{self.where_log()}"
                )
            self._ended.wait(POLL_S)

    def stop(self) -> None:
        """End it and all that it started; may be called twice."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._ended.set()
        self._guard.stdout.close()

    def where_log(self) -> str:
        """Name the log at the end of a message."""
        return f"; its log is {self._log_path}" if self._log_path else ""

    def _read_status(self) -> bool:
        """Read what the guard says of the end, where it has said it."""
        stdout = self._guard.stdout
        assert stdout is not None
        if stdout.closed or not select.select([stdout], [], [], 0)[0]:
            return False
        line = stdout.readline().strip()
        self._status = int(line) if line else -signal.SIGKILL  # the guard itself was killed
        self._ended.set()
        return True
