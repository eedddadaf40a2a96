"""The files of a worker's room: a root of read-only bind mounts, and nothing behind it.

For a process that has a mount namespace of its own, and the rights of root in it.
Source: ``mount_setattr(2)``, ``pivot_root(2)``, ``proc(5)`` of the Linux manual.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
SCAFFOLD = "/tmp"  # noqa: S108 - covered in our namespace only  # nosec B108
_libc = ctypes.CDLL(None, use_errno=True)


def change_root(kept: Sequence[str], proc_options: str | None) -> str | None:
    """Make a root of nothing but what is kept, at the paths where it was, and leave the old one.

    First the machine's root goes below a scaffold, so that nothing of it is covered.

    Args:
        kept: files, folders and nodes of devices.
        proc_options: of ``/proc``, which shows the processes of our namespace; None: no ``/proc``.

    Returns:
        Why there is no ``/proc``, or None where there is one.

    Raises:
        OSError: the kernel, or this container, does not let us.
    """
    sources = [(path, str(Path(path).resolve())) for path in _outermost(kept)]
    _mount(None, "/", None, MS_REC | MS_PRIVATE)  # what is mounted here stays here
    _mount("scaffold", SCAFFOLD, "tmpfs", MS_NOSUID)
    for name in ("old", "new"):
        Path(SCAFFOLD, name).mkdir()
    _check(_libc.pivot_root(SCAFFOLD.encode(), f"{SCAFFOLD}/old".encode()))
    os.chdir("/")
    _mount("room", "/new", "tmpfs", MS_NOSUID, "size=1m,mode=755")
    for path, source in sources:
        _bind("/old" + source, "/new" + path)
    lack = _mount_proc(proc_options)
    os.chdir("/new")
    # struct mount_attr: what is set, cleared, propagation, user namespace.
    attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID, 0, 0, 0)
    _check(
        _libc.syscall(
            ctypes.c_long(MOUNT_SETATTR),
            ctypes.c_long(AT_FDCWD),
            b".",
            ctypes.c_long(AT_RECURSIVE),
            attributes,
            ctypes.c_long(len(attributes)),
        )
    )
    _check(_libc.pivot_root(b".", b"."))
    _check(_libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    return lack


def _outermost(paths: Sequence[str]) -> list[str]:
    """Drop what lies below another path: it comes with that, and must not be made in there."""
    there = set(paths)
    return [p for p in dict.fromkeys(paths) if there.isdisjoint(map(str, Path(p).parents))]


def _mount_proc(options: str | None) -> str | None:
    if options is None:
        return "it would show the processes of the machine"
    Path("/new/proc").mkdir()
    try:
        _mount("proc", "/new/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    except OSError as error:  # in a container whose own /proc is covered in part
        return error.strerror
    return None


def _bind(source: str, target: str) -> None:
    if Path(source).is_dir():
        Path(target).mkdir(parents=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch(exist_ok=False)
    _mount(source, target, None, MS_BIND | MS_REC)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    if _libc.mount(*texts, ctypes.c_ulong(flags), data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
