"""What a process may open, run and listen on from now on: Landlock, Linux's law for oneself.

A process lists what it keeps; everything else that Landlock knows of is refused to it and to all
that it starts, for ever, root or not. The kernel says which version (ABI) of the law it offers:

| ABI | Linux | what is refused since then, unless it is listed |
|---|---|---|
| 1 | 5.13 | opening, running, making and removing files |
| 2, 3 | 5.19, 6.2 | moving files between folders; truncating them |
| 4 | 6.7 | TCP: listening, connecting |
| 5 | 6.10 | commands to devices (ioctl) |
| 6 | 6.12 | signals, and sockets with abstract names, of processes outside |
| 7 | 6.15 | nothing more (refusals are logged) |

Source: ``Documentation/userspace-api/landlock.rst`` and ``include/uapi/linux/landlock.h`` of Linux.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN_ABI = 7
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
PATH_BENEATH, NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
FILE_RIGHTS_COUNT = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights on files each version knows: the lowest bits; 16 from version 5."""
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_SOCKETS, SCOPE_SIGNALS = 1 << 0, 1 << 1
NETWORK_ABI, SCOPE_ABI = 4, 6

RUN = EXECUTE | READ_FILE | READ_DIR
READ = READ_FILE | READ_DIR
USE_DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that can be kept on what is no folder."""
_libc = ctypes.CDLL(None, use_errno=True)


def offered_abi() -> int:
    """Return the newest version that the kernel offers and we know.

    Raises:
        OSError: the kernel was built or booted without Landlock.
    """
    return min(_call(CREATE_RULESET, None, 0, VERSION_FLAG), KNOWN_ABI)


def restrict(abi: int, kept: Iterable[tuple[str, int]], port: int) -> None:
    """Give up all files but those kept, and all TCP but listening on one port.

    Args:
        abi: from :func:`offered_abi`.
        kept: existing paths (of folders: with all below) and the rights kept on each.
        port: on which this process will listen.

    Raises:
        OSError: the kernel refuses; ``no_new_privs`` must have been set before.
    """
    files = (1 << FILE_RIGHTS_COUNT.get(abi, 16)) - 1
    network = BIND_TCP | CONNECT_TCP if abi >= NETWORK_ABI else 0
    scopes = SCOPE_SOCKETS | SCOPE_SIGNALS if abi >= SCOPE_ABI else 0
    # An older kernel refuses what is longer than it knows, unless the rest is zero.
    law = struct.pack("=QQQ", files, network, scopes)
    rules = _call(CREATE_RULESET, law, len(law), 0)
    try:
        for path, rights in kept:
            _keep(rules, path, rights & files)
        if network:
            _call(ADD_RULE, rules, NET_PORT, struct.pack("=QQ", BIND_TCP, port), 0)
        _call(RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _keep(rules: int, path: str, rights: int) -> None:
    there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(there).st_mode):
            rights &= OF_A_FILE
        _call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, there), 0)
    finally:
        os.close(there)


def _call(number: int, *arguments: int | bytes | None) -> int:
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *longs)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
