"""What a killed supervisor left running, ended by the ids that it wrote down.

Usually nothing is left, for the guards end the services; but a guard can be killed, too. A process
is only ended where it bears the number of a service's process group and is not older than that
service: a number that was given to somebody else later is left alone.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from shoestring.engines.guard import PATIENCE_S
from shoestring.stack.node import read_last_node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.stack.node import Service

CLOCK_SLACK_S = 1.0
"""The kernel's times of creation are counted from a boot time that is rounded."""


def end_remains(folder: Path, say: Callable[[str], None]) -> None:
    """End what the last supervisor of this folder left; it must be dead."""
    node = read_last_node(folder)
    left: list[psutil.Process] = []
    for service in node.services if node is not None else ():
        members = [] if service.adopted else _members(service)
        if members:
            say(f"ending {service.name} of a node whose supervisor is gone")
        left += members
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, left = psutil.wait_procs(left, PATIENCE_S)


def _members(service: Service) -> list[psutil.Process]:
    """Return the processes of the service's group that were made since it was."""
    if service.pid is None or service.created_s is None:
        return []
    oldest_s = service.created_s - CLOCK_SLACK_S
    if oldest_s < psutil.boot_time() - CLOCK_SLACK_S:
        return []  # from before this machine was started
    members = []
    for process in psutil.process_iter():
        try:
            ours = os.getpgid(process.pid) == service.pid and process.create_time() >= oldest_s
        except (psutil.Error, ProcessLookupError, PermissionError):
            # Gone, or another user's.
            continue
        if ours:
            members.append(process)
    return members
