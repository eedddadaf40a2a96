"""llama.cpp's RPC workers on the hosts of a lab."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines.discovery import find_program
from shoestring.errors import EngineLostError, MissingError
from shoestring.testing.lab_plan import HOME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.testing.lab import Lab
    from shoestring.testing.lab_host import Host, HostProcess

PROGRAM = "ggml-rpc-server"
PORT = 50_052
READY_LIMIT_S = 60.0
POLL_S = 0.01
LISTENS = "0A"


@dataclass(frozen=True)
class Worker:
    """A worker that listens.

    Attributes:
        endpoint: as ``llama-server --rpc`` takes it, from any host of the lab.
    """

    host: Host
    process: HostProcess
    endpoint: str


def start_workers(
    running: Lab,
    names: Sequence[str] | None = None,
    *,
    threads: int = 1,
    memory_bytes: int | None = None,
    cpu_share: float | None = None,
    environment: Mapping[str, str] | None = None,
    log_folder: Path | None = None,
) -> list[Worker]:
    """Start one worker on each host and wait until they listen.

    Args:
        running: the lab.
        names: of the hosts; None: all but ``home``.
        threads: of each.
        memory_bytes: cap of each, beside its host's.
        cpu_share: cores' worth of processor time of each, beside its host's.
        environment: variables beside the inherited ones.
        log_folder: gets ``HOST.log`` of each; None drops them.

    Raises:
        MissingError: llama.cpp's worker is not installed.
        EngineLostError: one does not come up.
    """
    program = find_program(PROGRAM)
    if program is None:
        raise MissingError(f"{PROGRAM} is not here: shoestring engines install llama-server")
    workers = []
    for name in [one for one in running.hosts if one != HOME] if names is None else names:
        host = running.hosts[name]
        process = host.start(
            [str(program), "-H", host.address, "-p", str(PORT), "-t", str(threads)],
            memory_bytes=memory_bytes,
            cpu_share=cpu_share,
            environment=environment,
            log_path=None if log_folder is None else log_folder / f"{name}.log",
            restore_signals=False,  # else a client that goes away ends it by SIGPIPE
        )
        workers.append(Worker(host, process, f"{host.address}:{PORT}"))
    for worker in workers:
        _wait_until_listens(worker)
    return workers


def _wait_until_listens(worker: Worker) -> None:
    """Look at the kernel's table: a connection would be the worker's one client."""
    deadline_s = time.monotonic() + READY_LIMIT_S
    pause = threading.Event()
    table = Path(f"/proc/{worker.process.pid}/net/tcp")
    while not _listens(table):
        status = worker.process.wait(0)
        if status is not None or time.monotonic() > deadline_s:
            how = "did not listen in time" if status is None else f"ended with status {status}"
            raise EngineLostError(f"{PROGRAM} on {worker.host.name} {how}")
        pause.wait(POLL_S)


def _listens(table: Path) -> bool:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # it has ended
        return False
    return any(
        int(local.rpartition(":")[2], 16) == PORT and state == LISTENS
        for _, local, _, state, *_ in (line.split() for line in lines)
    )
