"""The process that keeps one lab, and takes all of it away at its end.

Run as ``python -P -m shoestring.testing.lab_keeper FOLDER``, with an open descriptor that holds a
lock on FOLDER. It reads the plan as one line of JSON from standard input, goes into namespaces of
its own and starts process 1 there (:mod:`shoestring.testing.lab_first`), which writes one line of
JSON to standard output: ``{"ready": true}``, or what went wrong.

It ends the lab on SIGTERM and SIGINT, when process 1 ends, and when standard input ends, that is:
when its owner is gone, however he went; ``stay`` on standard input lets the lab outlive its owner.
With process 1 the kernel ends all processes of the lab, and with them their networks. Process 1
itself is ended by the kernel should this process be killed. Then only the folder and control groups
are left, which the next lab, or ``shoestring lab down``, removes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import ShoestringError
from shoestring.testing.lab_first import run_first
from shoestring.testing.lab_groups import Groups, find_places, remove_groups
from shoestring.testing.lab_plan import LabPlan
from shoestring.testing.namespaces import (
    CLONE_NEWPID,
    MS_PRIVATE,
    MS_REC,
    leave_for_new,
    mount,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

OWNER, ANSWERS = 0, 1
STAY = b"stay\n"
CHUNK_BYTES = 1 << 16


def main() -> int:
    """Keep the lab of the folder that the argument names."""
    folder, places = Path(sys.argv[1]), find_places()
    try:
        plan = LabPlan.from_json(json.loads(_first_line()))
        remove_groups(places)
        leave_for_new()
        mount(None, "/", flags=MS_REC | MS_PRIVATE)  # what is mounted here stays here
        unshare(CLONE_NEWPID)
    except ShoestringError as error:
        _say({"error": str(error), "kind": type(error).__name__})
        return error.exit_status
    signals = _caught_signals()
    ours, theirs = socket.socketpair()
    groups = Groups(os.getpid(), places)
    first = os.fork()
    if first == 0:
        ours.close()
        run_first(plan, folder, groups, theirs, _say)
    theirs.close()
    _wait_for_end(first, signals)
    remove_groups(places)
    shutil.rmtree(folder, ignore_errors=True)  # its owner may be at it, too
    return 0


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(OWNER, CHUNK_BYTES)
        if not data:
            sys.exit(0)  # the owner went before he said what he wants
        line += data
    return line


def _caught_signals() -> socket.socket:
    """Return what can be read when a signal to end has come."""
    signals, wakeup = socket.socketpair()
    for end in (signals, wakeup):
        end.setblocking(False)
    signal.set_wakeup_fd(os.dup(wakeup.fileno()))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return signals


def _wait_for_end(first: int, signals: socket.socket) -> None:
    process = os.pidfd_open(first)
    watched = [process, signals.fileno(), OWNER]
    while True:
        ready = select.select(watched, [], [])[0]
        if process in ready:
            break
        if OWNER in ready and os.read(OWNER, len(STAY)) == STAY:
            watched.remove(OWNER)
            continue
        signal.pidfd_send_signal(process, signal.SIGKILL)
        watched = [process]
    os.waitpid(first, 0)


def _say(word: Mapping[str, Any]) -> None:
    os.write(ANSWERS, json.dumps(word).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
