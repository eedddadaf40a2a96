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
    from collections.abc import Iterable
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
        threads = [threading.Thread(target=one.run, name=one.name) for one in self._keepers]
        logs = [*(self._folder / f"{keeper.name}.log" for keeper in self._keepers),
                self._folder / EVENTS, self._folder / SUPERVISOR_LOG]  # fmt: skip
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _interrupt)
            for thread in threads:
                thread.start()
            while all(one.is_alive() for one in threads):  # half a node is none
                self._stop.wait(ROTATE_EVERY_S)
                with self._lock:  # no event is written meanwhile
                    _rotate(logs)
        except KeyboardInterrupt:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # it is ending already
        self._stop.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()

    def _change(self, changed: Service) -> None:
        with self._lock:
            self._node = self._node.with_service(changed)
            try:
                write_node(self._folder, self._node)
            except OSError as error:
                print(f"the node's state was not written: {error}", file=sys.stderr, flush=True)

    def _note(self, service: str, event: str, **more: Any) -> None:
        line = {
            "time_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "monotonic_s": round(time.monotonic(), 3),
            "service": service,
            "event": event,
            **more,
        }
        text = json.dumps(line)
        try:
            with self._lock, (self._folder / EVENTS).open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except OSError as error:
            print(f"an event was not written ({error}): {text}", file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Setting the event here could wait for a lock that this very thread holds.
    raise KeyboardInterrupt


def _rotate(logs: Iterable[Path]) -> None:
    try:
        for log in logs:
            rotate(log)
    except OSError as error:
        # A full disk, most likely: the services go on, and so does the supervisor.
        print(f"logs are not rotated: {error}", file=sys.stderr, flush=True)


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
