"""A room of namespaces with loopback and a sink, for this process and its children.

The network namespace has ``lo`` and one tun device, the sink, with the default route: whatever is
sent outside comes to this process as a packet, and goes nowhere. Names are asked of the sink too.
The namespaces have no names: they go with the last process in them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile
from pathlib import Path

from shoestring.errors import MissingError
from shoestring.testing.faults import NotAllowedError
from shoestring.testing.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    lay_links,
    leave_for_new,
    mount,
    open_tun,
    unshare,
)

SINK = "sink"
NAME_SERVER = "198.18.0.2"
LINKS = f"""\
link set dev lo up
link set dev {SINK} addrgenmode none
link set dev {SINK} txqueuelen 10000 up
address add 198.18.0.1/32 dev {SINK}
route add default dev {SINK} src 198.18.0.1
"""
LINKS_IPV6 = f"""\
address add fd73:6873::1/128 dev {SINK} nodad
route add ::/0 dev {SINK}
"""
SIDE_DOORS = ("/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket",
              "/run/dbus/system_bus_socket")  # fmt: skip
"""Sockets of services that would ask for names in another network."""

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> int:
    """Move this process into a room of its own and return the sink's file descriptor.

    The next child is process 1 of a process namespace: when it ends, all others in there end.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
        MissingError: ``ip`` or ``/dev/net/tun`` is not there.
    """
    if not Path("/etc/resolv.conf").exists():
        raise MissingError("/etc/resolv.conf is missing: names could not be led to the sink")
    leave_for_new()
    sink = open_tun(SINK)
    lay_links(LINKS)
    if Path("/proc/net/if_inet6").exists():
        lay_links(LINKS_IPV6)
    mount(None, "/", flags=MS_REC | MS_PRIVATE)  # what is mounted here stays here
    _lead_names_to_sink()
    unshare(CLONE_NEWPID)
    return sink


def begin_process_one() -> None:
    """Show the room's processes in ``/proc``, and be killed when the parent ends.

    For the first child after :func:`enter`; the parent goes on to see all processes.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise NotAllowedError(f"prctl: {os.strerror(ctypes.get_errno())}")
    unshare(CLONE_NEWNS)
    mount("proc", "/proc", kind="proc")


def _lead_names_to_sink() -> None:
    with tempfile.NamedTemporaryFile("w", prefix="resolv-") as file:
        file.write(f"nameserver {NAME_SERVER}\n")
        file.flush()
        Path(file.name).chmod(0o644)
        mount(file.name, str(Path("/etc/resolv.conf").resolve()), flags=MS_BIND)
    for door in SIDE_DOORS:
        if Path(door).exists():
            mount("/dev/null", str(Path(door).resolve()), flags=MS_BIND)
