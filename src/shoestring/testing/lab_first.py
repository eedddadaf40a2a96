"""Process 1 of a lab: makes the hosts' networks, starts the router, and listens.

Each question comes over a connection of its own (:mod:`shoestring.testing.lab_words`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from shoestring.errors import BadValueError, ShoestringError
from shoestring.testing.lab_net import make_nets
from shoestring.testing.lab_router import run_router
from shoestring.testing.lab_server import Server, be
from shoestring.testing.lab_words import close_all, listen, receive_word, send_word
from shoestring.testing.sealed_room import begin_process_one

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shoestring.testing.lab_groups import Groups
    from shoestring.testing.lab_net import HostNet
    from shoestring.testing.lab_plan import LabPlan

ASKER_LIMIT_S = 10.0
"""So long may one that asks take to say it."""


def run_first(
    plan: LabPlan,
    folder: Path,
    groups: Groups,
    keeper: socket.socket,
    say: Callable[[Mapping[str, Any]], None],
) -> NoReturn:
    """Be process 1 until the end of the lab.

    Args:
        plan: what it is made of.
        folder: where it is asked.
        groups: for what has a cap.
        keeper: can be read when the keeper is gone.
        say: tells the owner, once.
    """
    signal.set_wakeup_fd(-1)
    try:
        begin_process_one()
        if select.select([keeper], [], [], 0)[0]:  # it ended before the kernel was told
            os._exit(1)
        signals = _children_that_end()
        nets = make_nets(plan)
        router_pid, control = _start_router(plan, nets)
        listener = listen(folder)
    except ShoestringError as error:
        say({"error": str(error), "kind": type(error).__name__})
        os._exit(1)
    say({"ready": True})
    be(lambda: _serve(Server(plan, nets, groups, router_pid, control), listener, signals))


def _children_that_end() -> socket.socket:
    signals, wakeup = socket.socketpair()
    for end in (signals, wakeup):
        end.setblocking(False)
    signal.set_wakeup_fd(os.dup(wakeup.fileno()), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return signals


def _start_router(plan: LabPlan, nets: Mapping[str, HostNet]) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        be(lambda: run_router(plan, [net.device for net in nets.values()], theirs))
    theirs.close()
    close_all([net.device for net in nets.values()])
    return pid, ours


def _serve(server: Server, listener: socket.socket, signals: socket.socket) -> NoReturn:
    while True:
        ready = select.select([listener, signals], [], [])[0]
        if signals in ready:
            signals.recv(4096)
            server.bury()
        if listener in ready:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(ASKER_LIMIT_S)
                try:
                    _answer_one(server, connection)
                except OSError as error:  # who asked is gone
                    print(f"a question was lost: {error}", file=sys.stderr, flush=True)


def _answer_one(server: Server, connection: socket.socket) -> None:
    word, files = receive_word(connection)
    answer: dict[str, Any]
    out: list[int] = []
    try:
        answer, out = server.answer(word, files)
    except ShoestringError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    except (LookupError, TypeError, ValueError) as error:  # whoever asks must not end the lab
        answer = {"error": f"this cannot be asked: {error}", "kind": BadValueError.__name__}
    finally:
        close_all(files)
    try:
        send_word(connection, answer, out)
    finally:
        close_all(out)
