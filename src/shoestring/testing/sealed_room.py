"""A room of namespaces with loopback and a sink, for this process and its children.

The network namespace has ``lo`` and one tun device, the sink, with the default route: whatever is
sent outside comes to this process as a packet, and goes nowhere. Names are asked of the sink too.
The namespaces have no names: they go with the last process in them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from pathlib import Path

from shoestring.errors import MissingError
from shoestring.testing.faults import NotAllowedError

TUN = Path("/dev/net/tun")
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

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> int:
    """Move this process into a room of its own and return the sink's file descriptor.

    The next child is process 1 of a process namespace: when it ends, all others in there end.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
        MissingError: ``ip`` or ``/dev/net/tun`` is not there.
    """
    if shutil.which("ip") is None:
        raise MissingError("ip is missing: install iproute2")
    if not Path("/etc/resolv.conf").exists():
        raise MissingError("/etc/resolv.conf is missing: names could not be led to the sink")
    _leave_for_new_namespaces()
    sink = _open_sink()
    _ip(LINKS)
    if Path("/proc/net/if_inet6").exists():
        _ip(LINKS_IPV6)
    _mount(None, "/", flags=MS_REC | MS_PRIVATE)  # what is mounted here stays here
    _lead_names_to_sink()
    _unshare(CLONE_NEWPID)
    return sink


def begin_process_one() -> None:
    """Show the room's processes in ``/proc``, and be killed when the parent ends.

    For the first child after :func:`enter`; the parent goes on to see all processes.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise NotAllowedError(f"prctl: {os.strerror(ctypes.get_errno())}")
    _unshare(CLONE_NEWNS)
    _mount("proc", "/proc", kind="proc")


def _leave_for_new_namespaces() -> None:
    flags = CLONE_NEWNET | CLONE_NEWNS
    if os.geteuid() == 0:
        try:
            return _unshare(flags)
        except NotAllowedError:  # root of a container; a user namespace may do
            pass
    user, group = os.geteuid(), os.getegid()
    _unshare(flags | CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"),
                       ("gid_map", f"0 {group} 1")):  # fmt: skip
        try:
            Path("/proc/self", name).write_text(text)
        except OSError as error:
            raise NotAllowedError(f"a user namespace cannot be set up: {error}") from error
    return None


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise NotAllowedError(
            f"no namespace of our own: {os.strerror(ctypes.get_errno())}; be root, or let users "
            "make namespaces"
        )


def _open_sink() -> int:
    try:
        sink = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", SINK.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(sink, TUNSETIFF, request)
    except FileNotFoundError as error:
        raise MissingError(f"{TUN} is missing: load the kernel module tun") from error
    except OSError as error:
        raise NotAllowedError(f"no tun device: {error}") from error
    return sink


def _ip(lines: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input=lines, text=True, capture_output=True,
                          check=False)  # fmt: skip
    if done.returncode:
        raise NotAllowedError(f"the sealed network cannot be laid: {done.stderr.strip()}")


def _lead_names_to_sink() -> None:
    with tempfile.NamedTemporaryFile("w", prefix="resolv-") as file:
        file.write(f"nameserver {NAME_SERVER}\n")
        file.flush()
        Path(file.name).chmod(0o644)
        _mount(file.name, str(Path("/etc/resolv.conf").resolve()), flags=MS_BIND)
    for door in SIDE_DOORS:
        if Path(door).exists():
            _mount("/dev/null", str(Path(door).resolve()), flags=MS_BIND)


def _mount(source: str | None, target: str, *, kind: str | None = None, flags: int = 0) -> None:
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*names, flags, None):
        number = ctypes.get_errno()
        raise NotAllowedError(f"{target} cannot be mounted: {errno.errorcode[number]}")
