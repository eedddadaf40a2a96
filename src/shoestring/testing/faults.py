"""Faults of a run's surroundings, made on purpose: a small disk, a stepping clock, a cut network.

Each is a context manager that leaves the machine as it was. None touches what others use: the disk
is a tmpfs of its own, the clock is shifted within the processes that load a shim, and the network
is a namespace behind a pair of virtual links, with addresses that are reserved for examples.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.errors import MissingError, ShoestringError
from shoestring.truth.process import COMMAND as TRUTH_COMMAND
from shoestring.truth.process import START_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

SHIM = Path(__file__).with_name("clock_shim.c")
FILL_BYTES = 512
REFUSALS = (
    "operation not permitted", "permission denied", "operation not supported",
    "must be superuser", "only root can",
)  # fmt: skip
"""What ``mount`` and ``ip`` say where the kernel did not let them."""
NAMESPACES = 64
"""Of the 64 networks of four addresses in 198.51.100.0/24 (RFC 5737), a process takes one."""


class NotAllowedError(ShoestringError):
    """The kernel, or this container, does not let us make the fault."""


@contextmanager
def small_disk(folder: Path, *, size: str = "2m") -> Iterator[Path]:
    """Mount an empty tmpfs on a new folder, and unmount it with the block.

    Args:
        folder: made here.
        size: as ``mount`` takes it.

    Raises:
        MissingError: there is no ``mount``.
        NotAllowedError: we may not mount.
    """
    folder.mkdir()
    _system("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _system("umount", str(folder))


@contextmanager
def ballast(folder: Path) -> Iterator[None]:
    """Fill the disk of a folder to its last byte, and free it with the block."""
    path = folder / "ballast"
    try:
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * FILL_BYTES)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        yield
    finally:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class SteppingClock:
    """A wall clock that processes see which are started with ``environment``.

    Attributes:
        environment: variables that make a process, and what it starts, load the shim.
        offset: the file that holds the shift.
    """

    environment: dict[str, str]
    offset: Path

    def step_to(self, offset_s: int) -> None:
        """Set the wall clock to so many seconds after the machine's, negative: before it."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("=q", offset_s))


def stepping_clock(folder: Path) -> SteppingClock:
    """Compile the shim into a folder and return a clock that is not shifted yet.

    Raises:
        MissingError: there is no C compiler.
        ShoestringError: it cannot compile the shim.
    """
    library, offset = folder / "clock_shim.so", folder / "clock_offset"
    _system("cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SHIM), "-ldl")
    offset.write_bytes(struct.pack("=q", 0))
    environment = {"LD_PRELOAD": str(library), "SHOESTRING_CLOCK_OFFSET": str(offset)}
    return SteppingClock(environment, offset)


@dataclass(frozen=True)
class FarNetwork:
    """A network namespace, one virtual link away.

    Attributes:
        namespace: its name.
        address: of its end of the link.
    """

    namespace: str
    address: str

    def cut(self) -> None:
        """Take the far end of the link down: what is sent is lost, and nobody is told."""
        _system("ip", "-n", self.namespace, "link", "set", "far", "down")

    def mend(self) -> None:
        """Take it up again."""
        _system("ip", "-n", self.namespace, "link", "set", "far", "up")


@contextmanager
def far_network() -> Iterator[FarNetwork]:
    """Make a namespace and a link to it; both go with the block.

    Raises:
        MissingError: there is no ``ip`` (package iproute2).
        NotAllowedError: we may not make them.
    """
    name, near = f"shoestring-{os.getpid()}", f"ss{os.getpid()}"
    first = 4 * (os.getpid() % NAMESPACES)
    network = FarNetwork(name, f"198.51.100.{first + 2}")
    with ExitStack() as stack:
        _system("ip", "netns", "add", name)
        stack.callback(_system, "ip", "netns", "delete", name)
        _system("ip", "link", "add", near, "type", "veth", "peer", "name", "far", "netns", name)
        stack.callback(_system, "ip", "link", "delete", near)
        _system("ip", "address", "add", f"198.51.100.{first + 1}/30", "dev", near)
        _system("ip", "link", "set", near, "up")
        _system("ip", "-n", name, "address", "add", f"{network.address}/30", "dev", "far")
        network.mend()
        yield network


@contextmanager
def far_truth_server(network: FarNetwork) -> Iterator[str]:
    """Start a known-truth server in the namespace and return its base URL.

    Raises:
        ShoestringError: it does not start.
    """
    command = ["ip", "netns", "exec", network.namespace, *TRUTH_COMMAND,
               "--host", network.address, "--with-parent"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
            line = process.stdout.readline() if ready else b""
            if not line:
                raise ShoestringError(f"no known-truth server in namespace {network.namespace}")
            yield str(json.loads(line)["base_url"])
        finally:
            process.terminate()


def _system(program: str, *arguments: str) -> None:
    """Run a program of the system.

    Raises:
        MissingError: it is not there.
        NotAllowedError: the kernel did not let it; holds what it said.
        ShoestringError: it failed for another reason, likewise.
    """
    if shutil.which(program) is None:
        raise MissingError(f"{program} is missing: install it")
    done = subprocess.run([program, *arguments], env=os.environ | {"LC_ALL": "C"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        refused = program != "cc" and any(words in said.lower() for words in REFUSALS)
        kind = NotAllowedError if refused else ShoestringError
        raise kind(f"{program} {' '.join(arguments[:3])}: {said}")
