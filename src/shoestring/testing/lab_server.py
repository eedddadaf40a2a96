"""What a lab can be asked, and how process 1 does it.

All of it is one thread, so that it can go into a host's network, open a socket or start a process
there, and come back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.testing.faults import NotAllowedError
from shoestring.testing.lab_forward import serve_forward
from shoestring.testing.lab_groups import remove_empty
from shoestring.testing.lab_net import inside
from shoestring.testing.lab_plan import LabPlan, LinkPlan
from shoestring.testing.lab_words import MOST_FILES, receive_word, send_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shoestring.testing.lab_groups import Groups
    from shoestring.testing.lab_net import HostNet

Answer = tuple[dict[str, Any], list[int]]


@dataclass
class Started:
    """A process that was started on a host.

    Attributes:
        group: folders of its control group; none where it has no cap.
        status: None while it runs.
    """

    host: str
    command: list[str]
    process: subprocess.Popen[bytes]
    group: Mapping[str, Path]
    status: int | None = None


def be(run: Callable[[], None]) -> NoReturn:
    """Be a process that does one thing and never returns to what it was forked from."""
    status = 1
    try:
        run()
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here; the log says why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@dataclass
class Server:
    """The lab's state.

    Attributes:
        router_pid: the router's process.
        control: the router's ear.
    """

    plan: LabPlan
    nets: Mapping[str, HostNet]
    groups: Groups
    router_pid: int
    control: socket.socket
    started: list[Started] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    cut_pairs: set[frozenset[str]] = field(default_factory=set)

    def answer(self, word: dict[str, Any], files: list[int]) -> Answer:
        """Do what was asked.

        Raises:
            ShoestringError: it cannot be done.
        """
        handlers: Mapping[str, Callable[[dict[str, Any], list[int]], Answer]] = {
            "status": self._status, "first": self._first, "start": self._start,
            "signal": self._signal, "socket": self._socket, "forward": self._forward,
            "cut": self._cut, "change": self._change, "link": self._link,
        }  # fmt: skip
        if "host" in word:
            self.plan.check_host(word["host"])
        return handlers[word["do"]](word, files)

    def bury(self) -> None:
        """Take the status of each process that has ended, orphans too.

        Raises:
            ShoestringError: the router has ended.
        """
        by_pid = {one.process.pid: one for one in self.started if one.status is None}
        with suppress(ChildProcessError):  # nobody is left
            while True:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.router_pid:
                    raise ShoestringError("the router has ended")
                if (one := by_pid.get(pid)) is not None:
                    one.status = one.process.returncode = os.waitstatus_to_exitcode(wait_status)
                    remove_empty(one.group)

    def _status(self, word: dict[str, Any], _: list[int]) -> Answer:
        """Say what there is; a process descriptor comes for each one that runs, in their order."""
        self.bury()
        asked = range(len(self.started)) if "number" not in word else [word["number"]]
        rows, files = [], list[int]()
        for number in asked:
            one = self.started[number]
            rows.append({"number": number, "host": one.host, "command": one.command,
                         "status": one.status})  # fmt: skip
            if one.status is None and len(files) < MOST_FILES:
                files.append(os.pidfd_open(one.process.pid))
        if "number" in word:
            return rows[0], files
        answer = {
            "plan": self.plan.to_json(),
            "addresses": {name: net.address for name, net in self.nets.items()},
            "caps_by": self.groups.caps_by(),
            "router": self._tell_router({}),
            "processes": rows,
        }
        return answer, files

    def _first(self, _: dict[str, Any], __: list[int]) -> Answer:
        """Give a descriptor of process 1, which ends last of all."""
        return {}, [os.pidfd_open(os.getpid())]

    def _start(self, word: dict[str, Any], files: list[int]) -> Answer:
        host, number = word["host"], len(self.started)
        enter, group = self._grouped(host, number, word["memory_bytes"], word["cpu_share"])
        stdin, stdout, stderr = files
        try:
            with inside(self.nets[host]):
                process = subprocess.Popen(
                    word["command"], stdin=stdin, stdout=stdout, stderr=stderr,
                    env=word["environment"], cwd=word["folder"], start_new_session=True,
                    restore_signals=word["restore_signals"],
                    preexec_fn=enter,  # noqa: PLW1509 - there are no threads here
                )  # fmt: skip
        except OSError as error:
            remove_empty(group)
            raise MissingError(f"{error.filename} cannot be started: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            remove_empty(group)
            raise NotAllowedError(
                f"{word['command'][0]} cannot be started with these caps: memory "
                f"{word['memory_bytes']}, cpu_share {word['cpu_share']}"
            ) from error
        self.started.append(Started(host, word["command"], process, group))
        return {"number": number}, [os.pidfd_open(process.pid)]

    def _grouped(
        self, host: str, number: int, memory_bytes: int | None, cpu_share: float | None
    ) -> tuple[Callable[[], None] | None, Mapping[str, Path]]:
        """Make the group of a process that has a cap, or whose host has."""
        of_host = self.plan.hosts[host]
        memory = [m for m in (memory_bytes, of_host.memory_bytes) if m is not None]
        share = [s for s in (cpu_share, of_host.cpu_share) if s is not None]
        if not memory and not share:
            return None, {}
        self.groups.make(host, of_host.memory_bytes, of_host.cpu_share)
        group = self.groups.make(f"{host}/{number}", min(memory, default=None),
                                 min(share, default=None))  # fmt: skip
        return self.groups.entry(group, min(memory, default=None)), group

    def _signal(self, word: dict[str, Any], _: list[int]) -> Answer:
        """Signal a process and those of its group; one that has ended needs none."""
        self.bury()
        one = self.started[word["number"]]
        if one.status is None:
            os.killpg(one.process.pid, word["signal"])
            if word["signal"] == signal.SIGSTOP:  # it may go on for a moment
                os.waitid(os.P_PID, one.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return {}, []

    def _socket(self, word: dict[str, Any], _: list[int]) -> Answer:
        with inside(self.nets[word["host"]]):
            return {}, [socket.socket(socket.AF_INET, word["type"]).detach()]

    def _forward(self, word: dict[str, Any], files: list[int]) -> Answer:
        with inside(self.nets[word["host"]]):
            child = os.fork()
            if child == 0:
                listener = socket.socket(fileno=files[0])
                be(lambda: asyncio.run(serve_forward(listener, word["address"], word["port"])))
        return {}, []

    def _cut(self, word: dict[str, Any], _: list[int]) -> Answer:
        """Pull the cable of a host, or cut it off from one other; or mend that."""
        host, other, pulled = word["host"], word["other"], word["pulled"]
        if other is None:
            (self.cut.add if pulled else self.cut.discard)(host)
        else:
            self.plan.check_host(other)
            (self.cut_pairs.add if pulled else self.cut_pairs.discard)(frozenset((host, other)))
        pairs = [sorted(pair) for pair in self.cut_pairs]
        return self._tell_router({"cut": sorted(self.cut), "cut_pairs": pairs}), []

    def _change(self, word: dict[str, Any], _: list[int]) -> Answer:
        caps = {"memory_bytes", "cpu_share"} & set(word["changes"])
        if caps:
            raise BadValueError(f"{min(caps)} is set when a process starts; give it there")
        return self._have(self.plan.with_host(word["host"], **word["changes"]))

    def _link(self, word: dict[str, Any], _: list[int]) -> Answer:
        return self._have(self.plan.with_link(LinkPlan(**word["link"])))

    def _have(self, plan: LabPlan) -> Answer:
        self.plan = plan
        return self._tell_router({"plan": plan.to_json()}), []

    def _tell_router(self, word: Mapping[str, Any]) -> dict[str, Any]:
        send_word(self.control, word)
        answer, _ = receive_word(self.control)
        return answer
