"""What is done to a node in mid-answer: killed, frozen, its worker killed, its cable pulled."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from swarm_hosts import Node, Swarm


@dataclass
class Blow:
    """A fault, which may be struck once, by whatever thread.

    Attributes:
        kind: ``killed``, ``worker``, ``frozen`` or ``cut``; see ``swarm_faults.py``.
        node: that it meets.
        processes: that are signalled; looked up before, since that takes a while.
        at_s: when it began, on ``time.monotonic``; None: not yet.
    """

    kind: str
    node: Node
    swarm: Swarm
    processes: list[psutil.Process] = field(default_factory=list)
    at_s: float | None = None

    def __post_init__(self) -> None:
        """Look up whom it will meet."""
        if self.kind == "worker":
            self.processes = [self.node.worker()]
        elif self.kind != "cut":
            self.processes = self.node.family()[: 1 if self.kind == "killed" else None]

    def strike(self) -> None:
        """Do it."""
        self.at_s = time.monotonic()
        if self.kind == "cut":
            self.swarm.cut(self.node)
        number = signal.SIGSTOP if self.kind == "frozen" else signal.SIGKILL
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
