"""A server that the harness starts, waits for, and ends; nothing of it survives the harness.

The server runs behind :mod:`shoestring.engines.guard`, which ends it when the harness is gone.
Its output goes to the run's log. It listens on loopback, on a port that was free a moment ago:
where another program was faster, the server dies and is started again on another port.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines import guard
from shoestring.errors import EngineLostError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

POLL_S = 0.02
STOP_WAIT_S = guard.PATIENCE_S + 5.0
NOBODYS_URL = "http://127.0.0.1:9"
"""Stands for the address until the server is started."""
TRIES = 3
WITHHELD = re.compile(
    r"SHOESTRING_API_KEY|HF_TOKEN|HUGGING_?FACE\w*_TOKEN"  # secrets that are not the server's
    r"|LLAMA_\w+|OLLAMA_(?!MODELS$)\w+"  # settings that no record would hold
)
"""The user's variables that no engine of ours gets."""


def free_port() -> int:
    """Return a loopback port on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server of ours could listen on a port of loopback."""
    with socket.socket() as sock:
        # As servers do; else what is left of connections to a dead one would count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            # Taken, or not ours to take (below 1024).
            return False
    return True


def given_environment() -> dict[str, str]:
    """Return our own variables as every engine of ours gets them: without :data:`WITHHELD`."""
    return {name: v for name, v in os.environ.items() if not WITHHELD.fullmatch(name)}


def start_on_free_port(start: Callable[[int], None]) -> None:
    """Call ``start`` with a free port, and again with another where it was taken meanwhile.

    Args:
        start: starts a server on the port; leaves none behind where it raises.

    Raises:
        EngineLostError: ``start`` raised it, and not because of the port.
    """
    for _ in range(TRIES - 1):
        port = free_port()
        try:
            return start(port)
        except EngineLostError:
            if is_free(port):
                raise
    return start(free_port())


class Launched:
    """A running server process.

    Args:
        what: its name, for messages.
        command: program and arguments; no secret may stand here, others can read it.
        environment: variables beside the inherited ones; secrets go here.
        log_path: where its output is appended; None drops it.
        inherited: variables of ours that it gets; default: :func:`given_environment`.

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
        inherited: Mapping[str, str] | None = None,
    ) -> None:
        self._what = what
        self._log_path = log_path
        self._lock = threading.Lock()
        self._last_word: bytes | None = None
        """What the guard said of the server's end; empty: nothing, for it was killed itself."""
        self._ended = threading.Event()
        with Path(os.devnull if log_path is None else log_path).open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**(given_environment() if inherited is None else inherited), **environment},
                # Ctrl-C in the terminal is the harness's to handle: it ends the server in order.
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        said = self._guard.stdout.readline().decode()
        if not said.strip().isdigit():
            self._end_guard()
            self._guard.stdout.close()
            raise MissingError(f"{what} cannot be started: {said.removeprefix('error ').strip()}")
        self.pid = int(said)

    def death(self) -> str | None:
        """Say in one line how it died, or None while it lives."""
        word = self._hear()
        return None if word is None else f"{self._what} {_how(word)}{self.where_log()}"

    def wait_until(
        self,
        ready: Callable[[], bool],
        limit_s: float,
        mend: str = "take a smaller model, or a machine with more memory",
    ) -> None:
        """Wait until the server answers.

        Raises:
            EngineLostError: it died, or was not ready in time.
        """
        deadline_s = time.monotonic() + limit_s
        while True:
            # In this order: another program may answer on the port for which ours died.
            answers = ready()
            if (death := self.death()) is not None:
                raise EngineLostError(death)
            if answers:
                return
            if time.monotonic() > deadline_s:
                raise EngineLostError(
                    f"{self._what} was not ready within {limit_s:g} s: {mend}{self.where_log()}"
                )
            self._ended.wait(POLL_S)

    def stop(self) -> None:
        """End it and all that it started; may be called twice."""
        assert self._guard.stdout is not None
        if self._guard.stdout.closed:
            return
        self._end_guard()
        if not self._hear():
            # Nobody else ends the server of a guard that was killed.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._ended.set()
        with self._lock:
            self._guard.stdout.close()

    def where_log(self) -> str:
        """Name the log at the end of a message."""
        return f"; its log is {self._log_path}" if self._log_path else ""

    def _end_guard(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def _hear(self) -> bytes | None:
        """Return what the guard said of the server's end, or None while it says nothing."""
        stdout = self._guard.stdout
        assert stdout is not None
        with self._lock:
            if self._last_word is None and not stdout.closed:
                if not select.select([stdout], [], [], 0)[0]:
                    return None
                self._last_word = stdout.readline().strip()
                self._ended.set()
            return self._last_word


def _how(last_word: bytes) -> str:
    if not last_word:
        return "is lost: its guard was killed"
    status = int(last_word)
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    if status == -signal.SIGKILL:
        how += " (out of memory? take a smaller model or less context)"
    return f"died {how}"
