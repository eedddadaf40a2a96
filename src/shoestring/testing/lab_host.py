"""One host of a lab, seen from outside: start processes there, open sockets there."""

from __future__ import annotations

import os
import select
import signal as signals
import socket as sockets
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines.launch import given_environment
from shoestring.testing.lab_words import ask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOOPBACK = "127.0.0.1"


class HostProcess:
    """A process that was started on a host.

    Attributes:
        number: in the lab.
        pid: as this process here sees it.
    """

    def __init__(self, folder: Path, number: int, descriptor: int) -> None:
        self.number = number
        self.pid = pid_of(descriptor)
        self._folder = folder
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def wait(self, limit_s: float | None = None) -> int | None:
        """Return its exit status, negative: the signal that ended it; None: it runs on.

        Args:
            limit_s: for how long to wait for its end; None: as long as it takes.

        Raises:
            ShoestringError: the lab is gone.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(None if limit_s is None else limit_s * 1000)
        answer, files = ask(self._folder, {"do": "status", "number": self.number})
        for file in files:
            os.close(file)
        status: int | None = answer["status"]
        return status

    def kill(self) -> None:
        """End it and its process group at once (SIGKILL)."""
        self.signal(signals.SIGKILL)

    def freeze(self) -> None:
        """Stop it and its process group (SIGSTOP): connections stay, nobody answers.

        It stands still when this returns; children of its may take a moment more.
        """
        self.signal(signals.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signals.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal to it and its process group; to one that has ended, nothing.

        Raises:
            ShoestringError: the lab is gone.
        """
        ask(self._folder, {"do": "signal", "number": self.number, "signal": int(number)})


class Host:
    """A host of a lab.

    Attributes:
        name: in the plan.
        address: in the lab's net.
    """

    def __init__(self, folder: Path, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._folder = folder

    def start(
        self,
        command: Sequence[str],
        *,
        memory_bytes: int | None = None,
        cpu_share: float | None = None,
        environment: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        restore_signals: bool = True,
    ) -> HostProcess:
        """Start a process; it ends with the lab at the latest.

        Args:
            command: program and arguments.
            memory_bytes: what it and its children may use; beyond that the kernel kills it.
            cpu_share: cores' worth of processor time for it and its children.
            environment: variables beside the ones that every engine gets.
            log_path: where its output is appended; None drops it.
            restore_signals: False: it ignores SIGPIPE, as this process does.

        Raises:
            MissingError: the program cannot be started.
            NotAllowedError: the caps cannot be set.
            ShoestringError: the lab is gone.
        """
        with ExitStack() as stack:
            null = stack.enter_context(Path(os.devnull).open("rb"))
            output = stack.enter_context(Path(log_path or os.devnull).open("ab"))
            return self.start_on(
                command,
                (null.fileno(), output.fileno(), output.fileno()),
                memory_bytes=memory_bytes,
                cpu_share=cpu_share,
                environment={**given_environment(), **(environment or {})},
                restore_signals=restore_signals,
            )

    def start_on(
        self,
        command: Sequence[str],
        files: tuple[int, int, int],
        *,
        environment: Mapping[str, str],
        memory_bytes: int | None = None,
        cpu_share: float | None = None,
        restore_signals: bool = True,
    ) -> HostProcess:
        """Start a process with these as its standard input, output and error.

        Args:
            command: program and arguments.
            files: descriptors of ours.
            environment: all its variables.
            memory_bytes: as for :meth:`start`, and so on.
            cpu_share: likewise.
            restore_signals: likewise.

        Raises:
            ShoestringError: as for :meth:`start`.
        """
        question = {
            "do": "start", "host": self.name, "command": list(command),
            "environment": dict(environment), "folder": str(Path.cwd()),
            "memory_bytes": memory_bytes, "cpu_share": cpu_share,
            "restore_signals": restore_signals,
        }  # fmt: skip
        answer, [descriptor] = ask(self._folder, question, files)
        return HostProcess(self._folder, answer["number"], descriptor)

    def socket(self, kind: int = sockets.SOCK_STREAM) -> sockets.socket:
        """Return a new IPv4 socket that lives in this host's network.

        Raises:
            ShoestringError: the lab is gone.
        """
        question = {"do": "socket", "host": self.name, "type": int(kind)}
        _, [descriptor] = ask(self._folder, question)
        return sockets.socket(fileno=descriptor)

    def connect(self, port: int, address: str = LOOPBACK) -> sockets.socket:
        """Return a TCP connection from this host to a port, of itself if no address is given.

        Raises:
            OSError: nobody listens there, or the way is cut.
            ShoestringError: the lab is gone.
        """
        connection = self.socket()
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection


def pid_of(descriptor: int) -> int | None:
    """Return the id of a descriptor's process as we see it; None where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "Pid":
            return int(value) if int(value) > 0 else None
    return None
