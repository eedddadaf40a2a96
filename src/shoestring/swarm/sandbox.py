"""What a worker's process gives up before it becomes the engine.

Two processes stand between the agent and the engine (see :mod:`shoestring.swarm.room`): the
*doorman*, who enters the network of the room, and the *warden*, who is process 1 in there, gives
up all that is listed here, and starts the engine.

| given up | by | else the engine could |
|---|---|---|
| other networks | network namespace with ``lo`` alone | call home, scan the owner's network |
| other processes | process namespace | signal, trace, outlive |
| files, sockets in files | a root of read-only bind mounts | read keys, ask a daemon |
| the same again | Landlock | the same, through a hole in the line above |
| new rights | ``no_new_privs``, no capabilities, user 65534 where we are root | climb back |
| namespaces of its own | a limit of zero of them | reach more of the kernel |
| system calls without use to it | seccomp | the same |
| memory without end | :mod:`shoestring.swarm.limits`, else ``RLIMIT_DATA`` | push the owner out |

Nothing here imports more than the standard library: it runs under ``python -I``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.swarm import landlock, mounts, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {"user": 0x10000000, "net": 0x40000000, "pid": 0x20000000, "mount": 0x00020000,
         "ipc": 0x08000000, "uts": 0x04000000, "cgroup": 0x02000000}  # fmt: skip
"""Namespaces and their flags (CLONE_NEW*)."""
NOBODY = 65534
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
CAPABILITIES_V3 = 0x20080522
OPEN_FILES = 1024
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Plan:
    """What the agent asks of a room; travels as JSON.

    Attributes:
        command: the engine and its arguments; ``{port}`` stands for its port.
        environment: all variables that it gets.
        runnable: files and folders that it may read and run.
        devices: nodes below ``/dev`` that it may use.
        readable: files and folders that it may read.
        port: on which it shall listen where the network is its own; none of those that the kernel
            gives out by itself, or whoever knocks before it listens may reach himself.
        data_bytes: its limit by ``RLIMIT_DATA``; None: no limit, or a better one.
        niceness: added to that of the agent.
        allow_weaker: go on without a network of its own or without walls around files.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    runnable: tuple[str, ...]
    devices: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    port: int = 10052
    data_bytes: int | None = None
    niceness: int = 0
    allow_weaker: bool = False


@dataclass
class Held:
    """Which protections hold, and why the others do not.

    Attributes:
        namespaces: of the room's own, see :data:`KINDS`.
        landlock_abi: version of the law that holds; 0: none.
        seccomp: system calls that no engine needs are refused.
        user: who the engine is, as the machine counts users.
        lacks: protection and reason.
    """

    namespaces: list[str] = field(default_factory=list)
    landlock_abi: int = 0
    seccomp: bool = False
    user: int = -1
    lacks: dict[str, str] = field(default_factory=dict)

    def refusal(self) -> str | None:
        """Say in one line what is too little to let strangers in, and the mend; None: enough."""
        if "net" not in self.namespaces:
            return (
                f"the worker cannot have a network of its own ({self.lacks['net']}): be root, or "
                "let users make namespaces (sysctl user.max_user_namespaces, and where it exists "
                "kernel.apparmor_restrict_unprivileged_userns=0), or allow a weaker room"
            )
        if "mount" not in self.namespaces and not self.landlock_abi:
            return (
                f"nothing keeps the worker from files (mount: {self.lacks['mount']}; Landlock: "
                f"{self.lacks['landlock']}): take Linux 5.13 or newer, booted with lsm=landlock,"
                "..., or allow a weaker room"
            )
        return None


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends, and never get new rights."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def leave_network_and_processes(held: Held) -> None:
    """Enter a new network, and have the next child be process 1 among new processes.

    Without the right to, a user namespace is made first, in which we have it.
    """
    if not _unshare("net", held) and _own_user_namespace(held):
        _unshare("net", held)
    _unshare("pid", held)
    if "net" in held.namespaces:
        with socket.socket() as sock:
            request = bytearray(struct.pack("16sH22x", b"lo", 0))
            fcntl.ioctl(sock, SIOCGIFFLAGS, request)
            (flags,) = struct.unpack_from("=H", request, 16)
            struct.pack_into("=H", request, 16, flags | IFF_UP)
            fcntl.ioctl(sock, SIOCSIFFLAGS, request)


def close_room(plan: Plan, port: int, held: Held) -> None:
    """Give up the rest: files, names, user, capabilities. For process 1 of the room.

    Raises:
        OSError: a thing that always can be given up was not.
    """
    with _opened("/proc") as proc:
        if _unshare("mount", held):
            _change_root(plan, held)
        _unshare("ipc", held)
        _unshare("cgroup", held)
        if _unshare("uts", held):
            socket.sethostname("room")
        if "user" not in held.namespaces:
            if os.geteuid() == 0:
                _become_nobody(plan)
            _own_user_namespace(held, proc)
        _forbid_namespaces(held, proc)
    held.user = os.geteuid()  # mapped onto itself where the namespace of users is ours
    _check(_libc.capset(struct.pack("=Ii", CAPABILITIES_V3, 0), bytes(24)))
    _obey_landlock(plan, port, held)
    die_with_parent()  # forgotten when the user changed
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))  # the engine shall not trace the warden
    try:
        syscalls.wall_up(os.uname().machine)
    except OSError as error:
        held.lacks["seccomp"] = _why(error)
    else:
        held.seccomp = True


def limit(plan: Plan) -> None:
    """Set the limits of the process that is about to become the engine."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if plan.data_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (plan.data_bytes, plan.data_bytes))
    os.nice(plan.niceness)


def _unshare(kind: str, held: Held) -> bool:
    """Enter a new namespace of a kind, or note why not."""
    if _libc.unshare(KINDS[kind]):
        held.lacks[kind] = os.strerror(ctypes.get_errno())
        return False
    held.namespaces.append(kind)
    held.lacks.pop(kind, None)
    return True


def _change_root(plan: Plan, held: Held) -> None:
    kept = (*plan.runnable, *plan.readable, *plan.devices)
    # Without processes of our own it would show the machine's.
    options = None if "pid" not in held.namespaces else "" if plan.devices else "subset=pid"
    try:
        lack = mounts.change_root(kept, options)
    except OSError as error:
        held.namespaces.remove("mount")
        held.lacks["mount"] = _why(error)
    else:
        if lack is not None:
            held.lacks["proc"] = lack


def _own_user_namespace(held: Held, proc: int | None = None) -> bool:
    """Enter a user namespace in which there is nobody but this process's user.

    Args:
        held: gets the outcome.
        proc: ``/proc`` of the machine, where ours is another by now.
    """
    user, group = os.geteuid(), os.getegid()
    if not _unshare("user", held):
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"),
                           ("gid_map", f"{group} {group} 1")):  # fmt: skip
            _write(proc, f"self/{name}", text)
    except OSError as error:
        held.namespaces.remove("user")
        held.lacks["user"] = _why(error)
        return False
    return True


def _become_nobody(plan: Plan) -> None:
    """Put root off for a user who owns nothing, in the groups that the devices ask for."""
    os.setgroups(sorted({Path(path).stat().st_gid for path in plan.devices} - {0}))
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))  # else our own files in /proc are root's


def _forbid_namespaces(held: Held, proc: int) -> None:
    if "user" not in held.namespaces:
        held.lacks["nesting"] = "the limit of namespaces is the machine's: " + held.lacks["user"]
        return
    try:
        _write(proc, "sys/user/max_user_namespaces", "0")
    except OSError as error:
        held.lacks["nesting"] = _why(error)


def _obey_landlock(plan: Plan, port: int, held: Held) -> None:
    kept = [(path, landlock.RUN) for path in plan.runnable]
    kept += [(path, landlock.READ) for path in plan.readable]
    kept += [(path, landlock.USE_DEVICE) for path in plan.devices]
    if Path("/proc/self").exists() and "mount" in held.namespaces:
        kept.append(("/proc", landlock.READ))
    try:
        abi = landlock.offered_abi()
        landlock.restrict(abi, kept, port)
    except OSError as error:
        held.lacks["landlock"] = _why(error)
    else:
        held.landlock_abi = abi


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write(proc: int | None, name: str, text: str) -> None:
    path = f"/proc/{name}" if proc is None else name
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _why(error: OSError) -> str:
    return error.strerror or str(error)
