"""The known-truth server in a process of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import json
import select
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# -P: a file of the current folder that is called like a module (json.py) does not take its place.
COMMAND = (sys.executable, "-P", "-m", "shoestring.truth")
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
REASON_CHARACTERS = 300


@dataclass(frozen=True)
class RunningServer:
    """A server that listens.

    Attributes:
        base_url: without ``/v1`` and without a slash at its end.
        pid: of its process.
    """

    base_url: str
    pid: int


@contextmanager
def running_server(*, cpu: int | None = None, log: Path | None = None) -> Iterator[RunningServer]:
    """Start the server on a free loopback port, and end it with the block.

    It also ends when this process dies, however that happens: its stdin is a pipe from here.

    Args:
        cpu: the only core that it may use.
        log: a file that gets one JSON line an answer.

    Raises:
        ShoestringError: it did not start; one line holds what it said and how to see more.
    """
    command = [*COMMAND, "--with-parent"]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    if log is not None:
        command += ["--log", str(log)]
    # A file takes whatever the server says without ever blocking it; a pipe would.
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        try:
            yield RunningServer(_await_base_url(process, said), process.pid)
        finally:
            _end(process)


def _await_base_url(process: subprocess.Popen[bytes], said: BinaryIO) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if ready else b""
    if not line:
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
        reason = words[-1].removeprefix("Error: ") if words else f"silent for {START_TIMEOUT_S:g} s"
        raise ShoestringError(
            f"the known-truth server did not start: {reason[:REASON_CHARACTERS]}; "
            f"to see it alone, run: {shlex.join(COMMAND)}"
        )
    return str(json.loads(line)["base_url"])


def _end(process: subprocess.Popen[bytes]) -> None:
    # Closing its stdin may not reach it: a child that was forked meanwhile holds the pipe open.
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
