"""Which doors of the kernel a process walls up: a seccomp filter.

Who has broken into an engine looks for a flaw in the kernel next, and most of those of the last
years lay behind system calls that an engine has no use for: new namespaces, mounts, tracing, BPF,
io_uring, keys, userfaultfd. They are refused with EPERM; ``clone3``, whose flags a filter cannot
read, with ENOSYS, upon which C libraries take ``clone``, whose flags it can.

Sources: ``arch/x86/entry/syscalls/syscall_64.tbl``, ``include/uapi/asm-generic/unistd.h``,
``Documentation/userspace-api/seccomp_filter.rst`` of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FIRST_ARGUMENT = 0, 4, 16
NEW_NAMESPACES = 0x7E020000
"""All CLONE_NEW* that ``clone`` takes."""
X32 = 0x40000000
CLONE3 = 435
ANYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 467)
"""io_uring_*, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, pidfd_getfd,
mount_setattr, open_tree_attr: numbers above 424 are the same on all machines."""
MACHINES = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}
"""The mark of each architecture (AUDIT_ARCH_*), and its number of clone."""
REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "quotactl": (179, 60),
    "acct": (163, 89), "vmsplice": (278, 75),
}  # fmt: skip
"""Numbers on the machines, in their order."""
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def wall_up(machine: str) -> None:
    """Refuse the calls from now on, in all that is started too.

    Args:
        machine: as ``uname`` names it.

    Raises:
        OSError: the kernel has no such filters, or we no numbers for this machine.
    """
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {machine}")
    steps = filter_steps(machine)
    program = _Program(len(steps) // 8, steps)
    if _libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def filter_steps(machine: str) -> bytes:
    """Return the filter: 8 bytes a step (what to do, jumps, a number)."""
    mark, clone = MACHINES[machine]
    place = list(MACHINES).index(machine)
    refuse = _step(RETURN, REFUSE | errno.EPERM)
    steps = [_step(LOAD, AT_ARCHITECTURE), _step(EQUAL, mark, 1, 0), refuse]
    steps += [_step(LOAD, AT_NUMBER)]
    if machine == "x86_64":  # the same calls by other numbers
        steps += [_step(AT_LEAST, X32, 0, 1), refuse]
    steps += [_step(EQUAL, CLONE3, 0, 1), _step(RETURN, REFUSE | errno.ENOSYS)]
    for number in (*(each[place] for each in REFUSED.values()), *ANYWHERE):
        steps += [_step(EQUAL, number, 0, 1), refuse]
    steps += [_step(EQUAL, clone, 0, 3), _step(LOAD, AT_FIRST_ARGUMENT)]
    steps += [_step(ANY_BIT, NEW_NAMESPACES, 0, 1), refuse]
    return b"".join([*steps, _step(RETURN, ALLOW)])


def _step(what: int, number: int, if_so: int = 0, else_: int = 0) -> bytes:
    return struct.pack("=HBBI", what, if_so, else_, number)
