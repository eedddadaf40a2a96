"""Nodes of a swarm as real processes, each on a host of its own, and one user who may use them all.

Each node is ``shoestring swarm node`` in a state folder of its own; the user is this process. With
a round trip the nodes are hosts of the laboratory, and this thread, and what it starts, is on the
laboratory's host in the middle, so that a cable can be pulled. Without, all are on loopback, where
there is none to pull.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psutil

from shoestring.engines.launch import free_port, given_environment
from shoestring.errors import EngineLostError, ShoestringError
from shoestring.paths import cache_dir
from shoestring.swarm.addresses import PeerAddress, parse_place
from shoestring.swarm.home import Home
from shoestring.swarm.joining import join
from shoestring.swarm.remote import Remote
from shoestring.testing.lab import HostPlan, Lab, LabPlan, lab
from shoestring.testing.lab_plan import HOME
from shoestring.testing.namespaces import enter_network

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Sequence

    from shoestring.swarm.identity import Identity
    from shoestring.testing.lab_host import Host

MAIN: Final = "from shoestring.cli import main; main()"
LOOPBACK: Final = "127.0.0.1"
PORT: Final = 7433
WORKER: Final = "ggml-rpc-server"
READY_LIMIT_S: Final = 120.0
INVITED_S: Final = 3600.0
SIOCGSKNS: Final = 0x894C
"""Of Linux: a descriptor of the network namespace in which a socket was made."""


class Started(Protocol):
    """A process, wherever it was started."""

    @property
    def pid(self) -> int | None:
        """Of the process, as we see it."""

    def wait(self) -> int | None:
        """Return its status once it has ended."""


@dataclass
class Node:
    """A node's process, which may be ended and started again with what it keeps.

    Attributes:
        name: by which the user calls it.
        host: of the laboratory; None: loopback.
        folder: of its state.
        port: on which it listens.
        flags: of ``shoestring swarm node``.
        remote: how the user reaches it.
        said: the lines that it wrote, of all its lives.
    """

    name: str
    host: Host | None
    folder: Path
    port: int
    flags: Sequence[str]
    remote: Remote = field(init=False)
    said: list[str] = field(default_factory=list)
    _process: Started | None = None

    @property
    def address(self) -> str:
        """Where the user finds it."""
        return LOOPBACK if self.host is None else self.host.address

    @property
    def pid(self) -> int:
        """Of its process, as we see it.

        Raises:
            EngineLostError: it does not run.
        """
        if self._process is None or self._process.pid is None:
            raise EngineLostError(f"{self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            EngineLostError: it does not; says what it said last.
        """
        command = [sys.executable, "-P", "-c", MAIN, "swarm", "node",
                   "--host", self.address, "--port", str(self.port), *self.flags]  # fmt: skip
        ready = threading.Event()
        theirs = self._listen(ready)
        try:
            self._process = self._start(command, theirs)
        finally:
            os.close(theirs)
        if not ready.wait(READY_LIMIT_S) or not self.said[-1].count("serving"):
            self.end()
            raise EngineLostError(f"{self.name} does not serve: {' / '.join(self.said[-3:])}")

    def invite(self, user: Home) -> None:
        """Let the user join; called once, while it listens."""
        home = Home(self.folder / "swarm")
        invitation = home.invitations().make(
            home.identity().id, name="user", addresses=[f"{self.address}:{self.port}"],
            rights=("use",), lasts_s=INVITED_S,
        )  # fmt: skip
        peer = asyncio.run(join(user.identity(), invitation, user.peers(_ignore), name=self.name))
        host, port = parse_place(peer.addresses[0])
        self.remote = Remote(peer.name, PeerAddress(peer.id, host, port), peer.certificate)

    def family(self) -> list[psutil.Process]:
        """Return its process and all below it, itself first; none where it has ended."""
        with suppress(EngineLostError, psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def worker(self) -> psutil.Process:
        """Return the worker that holds the most memory: the one that serves, not one in reserve.

        Raises:
            EngineLostError: there is none.
        """
        workers = [one for one in self.family() if one.name() == WORKER]
        if not workers:
            raise EngineLostError(f"{self.name} has no worker")
        return max(workers, key=lambda one: one.memory_info().rss)

    def signal(self, number: signal.Signals) -> None:
        """Signal its process and all below."""
        for one in self.family():
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def end(self) -> None:
        """End it and all below at once, and wait for that."""
        family = self.family()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        if self._process is not None:
            self._process.wait()
            self._process = None
        psutil.wait_procs(family, timeout=READY_LIMIT_S)

    def forget_weights(self) -> None:
        """Remove the weights that it keeps on its disk; it is to be started anew then."""
        shutil.rmtree(self.folder / "cache" / "swarm", ignore_errors=True)

    def wire_bytes(self) -> int:
        """Return how many bytes its link has carried so far, both ways, headers of IP included.

        Raises:
            ShoestringError: it is on loopback, whose counter is everybody's.
        """
        if self.host is None:
            raise ShoestringError("on loopback the bytes of one node cannot be told from others'")
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            device, _, figures = line.partition(":")
            if device.strip() == "net0":
                counts = figures.split()
                return int(counts[0]) + int(counts[8])
        raise ShoestringError(f"{self.name} has no link")

    def _start(self, command: Sequence[str], output: int) -> Started:
        cache = self.folder / "cache"  # of its own, for its weights; the engines are everybody's
        if not cache.exists():
            cache.mkdir(parents=True)
            (cache / "engines").symlink_to(cache_dir() / "engines")
        environment = {**given_environment(), "SHOESTRING_STATE": str(self.folder),
                       "SHOESTRING_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}  # fmt: skip
        with Path(os.devnull).open("rb") as null:
            if self.host is not None:
                files = (null.fileno(), output, output)
                return self.host.start_on(command, files, environment=environment)
            return subprocess.Popen(command, stdin=null, stdout=output, stderr=output,
                                    env=environment, start_new_session=True)  # fmt: skip

    def _listen(self, ready: threading.Event) -> int:
        """Hear what it writes, until nobody has the descriptor any more that is returned."""
        ours, theirs = os.pipe()

        def hear() -> None:
            with os.fdopen(ours, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    self.said.append(line.strip())
                    if self.said[-1].startswith("serving "):
                        ready.set()
            ready.set()

        threading.Thread(target=hear, daemon=True).start()
        return theirs


@dataclass(frozen=True)
class Swarm:
    """Nodes that run, and who may use them.

    Attributes:
        identity: the user's.
        nodes: node1, node2, ...
        laboratory: where they stand; None: on loopback.
        folder: for logs.
    """

    identity: Identity
    nodes: list[Node]
    laboratory: Lab | None
    folder: Path

    def cut(self, node: Node) -> None:
        """Pull a node's cable; nobody is told.

        Raises:
            ShoestringError: on loopback there is none.
        """
        if self.laboratory is None:
            raise ShoestringError("on loopback there is no cable to pull: give a round trip")
        self.laboratory.cut(node.name)

    def mend(self, node: Node) -> None:
        """Have a node as it was before anything was done to it: a new process, its cable in."""
        node.end()
        if self.laboratory is not None:
            self.laboratory.mend(node.name)
        node.start()


@contextmanager
def running_swarm(
    count: int,
    *,
    rtt_s: float | None = None,
    threads: int = 1,
    memory: str | Sequence[str] = "2GiB",
) -> Iterator[Swarm]:
    """Start nodes, have the user join them all, and end them with the block.

    Args:
        count: of nodes.
        rtt_s: between the user and each, in the laboratory; None: they are on loopback.
        threads: of each node's worker.
        memory: that each gives to a session, or one after another.

    Raises:
        EngineLostError: a node does not serve.
        NotAllowedError: there can be no laboratory here.
    """
    # All hosts are this machine: what the user does here would make each owner's machine busy.
    flags = ("--threads", str(threads), "--always", "--no-announce")
    offers = [memory] * count if isinstance(memory, str) else memory
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = [f"node{number + 1}" for number in range(count)]
        running = None
        if rtt_s is not None:
            hosts = {name: HostPlan(delay_s=rtt_s / 2) for name in names}
            running = stack.enter_context(lab(LabPlan({HOME: HostPlan(), **hosts})))
            stack.enter_context(being_on(running.hosts[HOME]))
        user = Home(folder / "user")
        swarm = Swarm(user.identity(), [], running, folder)
        for name, offer in zip(names, offers, strict=True):
            host, port = (None, free_port()) if running is None else (running.hosts[name], PORT)
            node = Node(name, host, folder / name, port, (*flags, "--memory", offer))
            stack.callback(node.end)
            node.start()
            node.invite(user)
            swarm.nodes.append(node)
        yield swarm


@contextmanager
def being_on(host: Host) -> Iterator[None]:
    """Have this thread, and what it starts, be on a host of a laboratory.

    Raises:
        NotAllowedError: the kernel does not let us.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with host.socket() as there:
        namespace = fcntl.ioctl(there, SIOCGSKNS)
    try:
        enter_network(namespace)
        yield
    finally:
        enter_network(before)
        os.close(namespace)
        os.close(before)


def _ignore(_line: str) -> None:
    """Say nothing: the benchmark says what it found."""
