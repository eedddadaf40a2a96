"""Namespaces for this process, and tun devices and links in them.

The sealed room and the lab stand on these. None of the namespaces has a name: each goes with the
last process and the last descriptor in it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from shoestring.errors import MissingError
from shoestring.testing.faults import NotAllowedError

TUN = Path("/dev/net/tun")
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def leave_for_new() -> None:
    """Move this process into a new network and mount namespace, where it may make more.

    As root these are all; else, and where root may not, a user namespace is made in which we are.

    Raises:
        MissingError: there is no ``ip``, which lays the links.
        NotAllowedError: the kernel, or this container, does not let us.
    """
    if shutil.which("ip") is None:
        raise MissingError("ip is missing: install iproute2")
    flags = CLONE_NEWNET | CLONE_NEWNS
    if os.geteuid() == 0:
        try:
            return unshare(flags)
        except NotAllowedError:  # root of a container; a user namespace may do
            pass
    user, group = os.geteuid(), os.getegid()
    unshare(flags | CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"),
                       ("gid_map", f"0 {group} 1")):  # fmt: skip
        try:
            Path("/proc/self", name).write_text(text)
        except OSError as error:
            raise NotAllowedError(f"a user namespace cannot be set up: {error}") from error
    return None


def unshare(flags: int) -> None:
    """Leave the namespaces that the flags name for new ones.

    Raises:
        NotAllowedError: the kernel, or this container, does not let us.
    """
    if _libc.unshare(flags):
        raise NotAllowedError(
            f"no namespace of our own: {os.strerror(ctypes.get_errno())}; be root, or let users "
            "make namespaces"
        )


def enter_network(namespace: int) -> None:
    """Go to the network namespace of a descriptor; what is open stays where it was opened.

    Raises:
        NotAllowedError: the kernel does not let us.
    """
    if _libc.setns(namespace, CLONE_NEWNET):
        raise NotAllowedError(f"setns: {os.strerror(ctypes.get_errno())}")


def open_tun(name: str) -> int:
    """Make a tun device in our network and return the descriptor of its other end.

    It goes with the descriptor. Reads do not wait. Packets begin with their IP header.

    Raises:
        MissingError: there is no ``/dev/net/tun``.
        NotAllowedError: the kernel does not let us.
    """
    try:
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(device, TUNSETIFF, request)
    except FileNotFoundError as error:
        raise MissingError(f"{TUN} is missing: load the kernel module tun") from error
    except OSError as error:
        raise NotAllowedError(f"no tun device: {error}; be root, or let users open it") from error
    return device


def lay_links(lines: str) -> None:
    """Run lines of ``ip -batch`` in our network.

    Raises:
        NotAllowedError: one failed; says what it said.
    """
    done = subprocess.run(["ip", "-batch", "-"], input=lines, text=True, capture_output=True,
                          check=False)  # fmt: skip
    if done.returncode:
        raise NotAllowedError(f"the network cannot be laid: {done.stderr.strip()}")


def mount(source: str | None, target: str, *, kind: str | None = None, flags: int = 0) -> None:
    """Mount a file system, or a file over another, without options.

    Raises:
        NotAllowedError: the kernel does not let us.
    """
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*names, flags, None):
        number = ctypes.get_errno()
        raise NotAllowedError(f"{target} cannot be mounted: {errno.errorcode[number]}")
