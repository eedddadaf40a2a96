"""What a worker is and may use, and what of its protections holds.

``docs/swarm-sandbox.md`` says what each protection keeps off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.digests import file_sha256
from shoestring.errors import BadValueError, MissingError
from shoestring.swarm.engine_needs import find_needs, given_variables
from shoestring.swarm.limits import Group, Wanted
from shoestring.swarm.sandbox import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

SPARE_PROCESSES = 128
"""Beside the threads asked for: the room's own two, and those of drivers."""
WITHOUT_QUOTA_NICENESS = 10
_digests: dict[tuple[str | int, ...], str] = {}


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is and may use.

    Attributes:
        program: ``ggml-rpc-server``.
        sha256: its digest; another program is not started.
        threads: of the processor.
        device: as ``-d`` takes it; None: the processor.
        memory_bytes: the most it may use; None: no limit.
        cpu_share: of all cores, above 0 and at most 1; None: no limit.
        log_path: where its output is appended; None drops it.
        readable: files and folders that it may read and run beside those that it is linked to.
        allow_weaker: start it also where it can see a network or files of the machine.
    """

    program: Path
    sha256: str
    threads: int
    device: str | None = None
    memory_bytes: int | None = None
    cpu_share: float | None = None
    log_path: Path | None = None
    readable: tuple[Path, ...] = ()
    allow_weaker: bool = False


@dataclass(frozen=True)
class Protections:
    """What holds of ``docs/swarm-sandbox.md``.

    Attributes:
        namespaces: those of the room's own.
        landlock_abi: version of Landlock that holds; 0: none.
        seccomp: system calls that no engine needs are refused.
        user: who the engine is on this machine.
        memory: kind of the limit; None: there is none.
        cpu: likewise.
        lacks: protection and reason.
    """

    namespaces: tuple[str, ...]
    landlock_abi: int
    seccomp: bool
    user: int
    memory: str | None
    cpu: str | None
    lacks: dict[str, str]


def check_program(settings: WorkerSettings) -> None:
    """See that the program is the expected one; it is read again only when the file changed."""
    try:
        found = settings.program.stat()
        key = (str(settings.program), found.st_dev, found.st_ino, found.st_size,
               found.st_mtime_ns, found.st_ctime_ns)  # fmt: skip
        if key not in _digests:
            _digests[key] = file_sha256(settings.program)
    except OSError as error:
        raise MissingError(
            f"{settings.program} cannot be read ({error.strerror}): "
            "shoestring engines install llama-server"
        ) from error
    if _digests[key] != settings.sha256:
        raise BadValueError(
            f"{settings.program} has SHA-256 {_digests[key]}, not {settings.sha256}: install the "
            "engine that is pinned, or name this one's digest"
        )


def plan_room(settings: WorkerSettings) -> tuple[Plan, Group]:
    """Decide what a worker may do, and make the control groups that limit it.

    Raises:
        BadValueError: the share of the processor is no share.
        MissingError: a library of the program's is missing.
    """
    program = settings.program.resolve()
    needs = find_needs(program, settings.device)
    threads, cores = settings.threads, None
    if settings.cpu_share is not None:
        if not 0 < settings.cpu_share <= 1:
            raise BadValueError(f"cpu share {settings.cpu_share}: give one above 0, at most 1")
        cores = settings.cpu_share * (os.cpu_count() or 1)
        threads = max(1, min(threads, round(cores)))
    group = Group(Wanted(settings.memory_bytes, cores, threads + SPARE_PROCESSES))
    command = [str(program), "-H", "127.0.0.1", "-p", "{port}", "-t", str(threads)]
    plan = Plan(
        command=(*command, *(() if settings.device is None else ("-d", settings.device))),
        environment=given_variables(),
        runnable=(*needs.runnable, *map(str, settings.readable)),
        devices=needs.devices,
        readable=needs.readable,
        data_bytes=None if "memory" in group.holds else settings.memory_bytes,
        niceness=WITHOUT_QUOTA_NICENESS if "cpu" in group.lacks else 0,
        allow_weaker=settings.allow_weaker,
    )
    return plan, group


def protections(settings: WorkerSettings, held: Mapping[str, Any], group: Group) -> Protections:
    """Put together what the room said and which limits hold."""
    limits = dict(group.holds)
    if settings.memory_bytes is not None:
        limits.setdefault("memory", "RLIMIT_DATA")
    if settings.cpu_share is not None:
        limits.setdefault("cpu", "nice and threads")
    return Protections(
        namespaces=tuple(held["namespaces"]),
        landlock_abi=held["landlock_abi"],
        seccomp=held["seccomp"],
        user=held["user"],
        memory=limits.get("memory"),
        cpu=limits.get("cpu"),
        lacks={**held["lacks"], **group.lacks},
    )
