"""The process that keeps a node up: it starts the services, watches them, and starts them again.

``python -P -m shoestring.stack.supervisor FOLDER``, which ``shoestring up`` runs; SIGTERM ends
it, and with it all that it started. Each service has a thread of its own. What happens is written
to ``events.jsonl``: ``started``, ``ready``, ``died``, ``silent``, ``failed``, ``ended``.
If the supervisor itself is killed, the guards end the services (``engines/guard.py``).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import ShoestringError
from shoestring.stack.keeper import Keeper
from shoestring.stack.logs import rotate
from shoestring.stack.node import (
    EVENTS,
    SUPERVISOR_LOG,
    Node,
    read_wanted,
    supervising,
    write_node,
)
from shoestring.stack.services import make_services

if TYPE_CHECKING:
    from types import FrameType

    from shoestring.stack.node import Service

ROTATE_EVERY_S = 10.0


class Supervisor:
    """Keeps the services of one node.

    Args:
        folder: the node's.
    """

    def __init__(self, folder: Path) -> None:
        wanted = read_wanted(folder)
        if wanted is None:
            raise ShoestringError(f"{folder} does not say what is wanted: shoestring up")
        self._folder = folder
        self._stop = threading.Event()
        self._lock = threading.Lock()
        services = make_services(folder, wanted)
        self._node = Node(
            supervisor_pid=os.getpid(),
            started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            services=tuple(service.first_state() for service in services),
        )
        self._keepers = [Keeper(one, self._stop, self._change, self._note) for one in services]

    def publish(self) -> None:
        """Say that the node is ours, and what is going to run."""
        write_node(self._folder, self._node)

    def run(self) -> None:
        """Keep the services until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        threads = [
            threading.Thread(target=keeper.run, name=keeper.name) for keeper in self._keepers
        ]
        for thread in threads:
            thread.start()
        logs = [*(self._folder / f"{keeper.name}.log" for keeper in self._keepers),
                self._folder / EVENTS, self._folder / SUPERVISOR_LOG]  # fmt: skip
        while not self._stop.wait(ROTATE_EVERY_S):
            for log in logs:
                rotate(log)
        for thread in threads:
            thread.join()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _change(self, changed: Service) -> None:
        with self._lock:
            self._node = self._node.with_service(changed)
            write_node(self._folder, self._node)

    def _note(self, service: str, event: str, **more: Any) -> None:
        line = {
            "time_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "monotonic_s": round(time.monotonic(), 3),
            "service": service,
            "event": event,
            **more,
        }
        with self._lock, (self._folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Go on in a child that nobody waits for; return when it has the node, or has failed."""
    folder = Path(sys.argv[1])
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        os._exit(0 if os.read(reading, 1) else 1)
    os.close(reading)
    os.chdir(folder)
    with supervising(folder):
        supervisor = Supervisor(folder)
        supervisor.publish()
        os.write(writing, b"1")
        os.close(writing)
        supervisor.run()


if __name__ == "__main__":
    main()
