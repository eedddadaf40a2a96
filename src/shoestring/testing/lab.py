"""Unequal hosts on one machine, with a net between them that is as slow and bad as you say.

::

    plan = LabPlan({"home": HostPlan(), "slow": HostPlan(delay_s=0.01, cpu_share=0.25)})
    with lab(plan) as running:
        server = running.hosts["slow"].start(["python3", "-m", "http.server", "8000"])
        connection = running.hosts["home"].connect(8000, running.hosts["slow"].address)
        running.cut("slow")

Each host is a network namespace; :mod:`shoestring.testing.lab_router` carries the packets between
them. All of it is one tree of processes (:mod:`shoestring.testing.lab_keeper`) that ends with the
block, and with this process however it ends.
Needs Linux, ``ip``, ``/dev/net/tun``, and root or the right to make user namespaces. Caps of
memory and processor time: see :mod:`shoestring.testing.lab_groups`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import ShoestringError
from shoestring.testing.lab_groups import find_places, remove_groups
from shoestring.testing.lab_host import LOOPBACK, Host, pid_of
from shoestring.testing.lab_plan import HostPlan, LabPlan, LinkPlan
from shoestring.testing.lab_words import ERRORS, ask, close_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HostPlan", "Lab", "LabPlan", "LinkPlan", "lab"]

KEEPER = (sys.executable, "-P", "-m", "shoestring.testing.lab_keeper")
LOG = "lab.log"
KEEPER_PID = "keeper.pid"
PREFIX = "shoestring-lab-"


class Lab:
    """A lab that is up.

    Args:
        folder: where it is asked.

    Attributes:
        hosts: by name, in the plan's order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: Mapping[str, Host] = {
            name: Host(folder, name, address)
            for name, address in self.status()["addresses"].items()
        }

    def status(self) -> dict[str, Any]:
        """Return the plan, addresses, processes, what keeps the caps, and the router's counts.

        ``router.late_s`` says how much later than set the last packets arrived.

        Raises:
            ShoestringError: the lab is gone.
        """
        status, files = ask(self.folder, {"do": "status"})
        pids = iter([pid_of(file) for file in files])
        close_all(files)
        for row in status["processes"]:
            row["pid"] = next(pids, None) if row["status"] is None else None
        return status

    def cut(self, host: str, other: str | None = None) -> None:
        """Pull a host's cable, or cut it off from one other: packets vanish, and no one is told.

        Raises:
            BadValueError: there is no such host.
        """
        ask(self.folder, {"do": "cut", "host": host, "other": other, "pulled": True})

    def mend(self, host: str, other: str | None = None) -> None:
        """Put it back."""
        ask(self.folder, {"do": "cut", "host": host, "other": other, "pulled": False})

    def change(self, host: str, **figures: Any) -> None:
        """Give a host's link other figures: ``delay_s=0.02``, ``rate_bytes_per_s=None`` ...

        What is under way keeps its time; order is kept.

        Raises:
            BadValueError: a figure cannot be, or is none of a link.
        """
        ask(self.folder, {"do": "change", "host": host, "changes": figures})

    def set_link(self, link: LinkPlan) -> None:
        """Give one ordered pair figures of its own, in place of what its hosts' add up to.

        Raises:
            BadValueError: there is no such host.
        """
        ask(self.folder, {"do": "link", "link": asdict(link)})

    def forward(self, host: str, port: int, address: str = LOOPBACK) -> int:
        """Return a port of our loopback that leads to a server on a host, until the lab ends.

        The connection to the server is made on the host, so it does not cross the lab's net.

        Args:
            host: where the server is.
            port: on which it listens.
            address: on which it listens; the host's own, if it does so there only.

        Raises:
            BadValueError: there is no such host.
        """
        with socket.create_server((LOOPBACK, 0)) as listener:
            question = {"do": "forward", "host": host, "port": port, "address": address}
            ask(self.folder, question, [listener.fileno()])
            return int(listener.getsockname()[1])


@contextmanager
def lab(plan: LabPlan) -> Iterator[Lab]:
    """Bring a lab up, and take it down with the block.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
        MissingError: ``ip`` or ``/dev/net/tun`` is not there.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    held = hold(folder)
    try:
        keeper = begin(plan, folder, held)
        try:
            running = Lab(folder)
            _, [first] = ask(folder, {"do": "first"})
            yield running
        finally:
            end(keeper)
        _wait_for(first)  # the keeper did, unless it was killed
    finally:
        os.close(held)
        remove_rest(folder)


def hold(folder: Path) -> int:
    """Return a descriptor whose lock says that the folder's lab lives, while anyone has it open."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def begin(plan: LabPlan, folder: Path, held: int) -> subprocess.Popen[bytes]:
    """Start a lab's keeper and wait until all hosts are there.

    Args:
        plan: what it is made of.
        folder: an empty one.
        held: from :func:`hold`; the keeper holds it, too.

    Returns:
        The keeper, who ends the lab when its standard input is closed.

    Raises:
        NotAllowedError: as for :func:`lab`, and so on; nothing is left.
    """
    with (folder / LOG).open("wb") as log:
        keeper = subprocess.Popen(
            [*KEEPER, str(folder)], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, pass_fds=[held], start_new_session=True,
        )  # fmt: skip
    try:
        (folder / KEEPER_PID).write_text(str(keeper.pid))
        _see_ready(keeper, plan, folder / LOG)
    except BaseException:  # Ctrl-C, too
        end(keeper)
        raise
    return keeper


def _see_ready(keeper: subprocess.Popen[bytes], plan: LabPlan, log: Path) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    with suppress(BrokenPipeError):  # it died; its log says why
        keeper.stdin.write(json.dumps(plan.to_json()).encode() + b"\n")
    said = keeper.stdout.readline()
    if not said:
        raise ShoestringError(f"the lab did not start: {_last_line(log)}")
    word = json.loads(said)
    if "error" in word:
        raise ERRORS[word["kind"]](word["error"])


def end(keeper: subprocess.Popen[bytes]) -> None:
    """End a lab by its keeper, and wait until that has ended."""
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.close()
    keeper.wait()
    keeper.stdout.close()


def remove_rest(folder: Path) -> None:
    """Remove what is left of a lab whose keeper was killed, and of any other like it.

    Raises:
        ShoestringError: processes of it do not end.
    """
    for left in (folder, *_dead_folders()):
        shutil.rmtree(left, ignore_errors=True)  # mostly the keeper has done it
    remove_groups(find_places())


def _dead_folders() -> Iterator[Path]:
    """Yield folders of labs whose owner and keeper are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists() and not is_held(folder):
            yield folder


def is_held(folder: Path) -> bool:
    """Whether the lab of a folder lives."""
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's, who sees to it
        return True
    try:
        fcntl.flock(place, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(place)
    return False


def _wait_for(process: int) -> None:
    """Wait for the end of a descriptor's process, and close it."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()
    os.close(process)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
