"""Stands between the harness and a server that the harness started, and outlives neither.

Run as a file, with Python's standard library alone: ``python -I guard.py COMMAND ARGUMENT...``.
It starts the command in a process group of its own, writes its process id to standard output, and
waits for two things: the end of the command, or the end of its own standard input. The second
comes when the harness is gone, however it went (SIGKILL too): then the whole group is ended, asked
first. Standard output gets the command's exit status (negative: the signal) as its last line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

PATIENCE_S = 10.0


def main() -> None:
    """Run the command until it ends or we are left alone."""
    try:
        child = subprocess.Popen(
            sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )
    except OSError as error:
        print(f"error {error.strerror}", flush=True)
        return
    print(child.pid, flush=True)
    threading.Thread(target=_end_when_alone, args=(child,), daemon=True).start()
    status = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # what it started and did not end
    try:
        print(status, flush=True)
    except BrokenPipeError:
        # Nobody is there to be told.
        os._exit(0)


def _end_when_alone(child: subprocess.Popen[bytes]) -> None:
    # Returns at its end, for nothing is ever written to it; unbuffered, since the interpreter
    # aborts when it ends while a thread holds a buffer's lock.
    os.read(0, 1)
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        # It has ended, which is what was wanted.
        return


if __name__ == "__main__":
    main()
