"""Does a command reach for the outside? It runs where only loopback works, and all else is counted.

::

    python -m shoestring.testing.sealed [--json FILE] -- COMMAND ARGUMENT...

COMMAND gets a network namespace with loopback and one more link, whose other end is this program.
Connections are refused there, names get an address that leads there again, and nothing is sent on.
So each attempt is seen: a program is neither kept waiting nor told that there is no network.

FILE gets one JSON object; without it a summary goes to stderr::

    {"attempts": 2, "lost_packets": 0, "status": 0, "by": [
      {"kind": "dns", "to": "198.18.0.2:53", "name": "example.org", "program": "curl",
       "count": 1},
      {"kind": "tcp", "to": "198.18.1.0:443", "name": "example.org", "program": "curl",
       "count": 1}
    ]}

``status`` is COMMAND's (128 + the signal that ended it), and this program's too. What COMMAND
leaves running is ended with it. Variables that name a proxy are withheld: a proxy on loopback
would hide attempts.
Needs Linux, ``ip`` and ``/dev/net/tun``, and root or the right to make user namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from shoestring.errors import BadValueError, ShoestringError
from shoestring.testing import sealed_room
from shoestring.testing.faults import NotAllowedError
from shoestring.testing.sealed_count import Count
from shoestring.testing.sealed_packets import answer, read_packet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMAND = (sys.executable, "-P", "-m", "shoestring.testing.sealed")
PACKET_BYTES = 65536
PATIENCE_S = 10.0
"""How long COMMAND may take to end after a signal, before it is killed."""
NOT_FOUND, BY_SIGNAL = 127, 128
PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy"}
TX_DROPPED = 11
"""Place in a line of ``/proc/net/dev`` behind the device's name."""


def why_not() -> str | None:
    """Say why nothing can be sealed here; None where it can."""
    done = subprocess.run([*COMMAND, "--", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else None


def run_sealed(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdout: IO[str] | None = None,
) -> dict[str, Any]:
    """Run a command sealed and return the object that ``--json`` writes.

    Args:
        command: program and arguments.
        environment: its variables; ours if left out.
        stdout: the file that gets its output; ours if left out.

    Raises:
        ShoestringError: nothing can be sealed here; the reason is on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        sealed = [*COMMAND, "--json", str(file), "--", *command]
        status = subprocess.run(sealed, env=environment, stdout=stdout, check=False).returncode
        if not file.exists():
            raise ShoestringError(f"{command[0]} did not run sealed: status {status}")
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result


def main() -> int:
    """Run the command that the arguments name, and say what it attempted."""
    parser = argparse.ArgumentParser(
        prog="python -m shoestring.testing.sealed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="gets the result")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="behind --")
    options = parser.parse_args()
    try:
        if options.json is not None and not options.json.parent.is_dir():
            raise BadValueError(f"--json {options.json}: there is no folder {options.json.parent}")
        result = _watch(options.command)
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    else:
        print(_summary(result), file=sys.stderr)
    return int(result["status"])


def _watch(command: Sequence[str]) -> dict[str, Any]:
    """Run the command in a room of its own and count until it ends."""
    sink = sealed_room.enter()
    # What can be read there is the number of a signal that came.
    signals, wakeup = socket.socketpair()
    for end in (signals, wakeup):
        end.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    ours, theirs = socket.socketpair()
    first = os.fork()
    if first == 0:
        ours.close()
        _run_as_first(command, theirs)
    theirs.close()
    count = Count()
    status = _count_until_end(first, sink, signals, count)
    if trouble := ours.makefile().read():
        raise NotAllowedError(trouble)
    return {"attempts": count.total(), "lost_packets": _lost_packets(), "status": status,
            "by": count.table()}  # fmt: skip


def _run_as_first(command: Sequence[str], parent: socket.socket) -> NoReturn:
    """Be process 1: run the command, pass signals on to it, bury orphans, end with it."""
    signal.set_wakeup_fd(-1)
    try:
        sealed_room.begin_process_one()
    except ShoestringError as error:
        parent.sendall(str(error).encode())
        os._exit(1)
    if select.select([parent], [], [], 0)[0]:  # the parent ended before we could be told
        os._exit(1)
    environment = {n: value for n, value in os.environ.items() if n.lower() not in PROXIES}
    try:
        # In a group of its own: a signal reaches it through us, and only once.
        child = subprocess.Popen(command, env=environment, start_new_session=True)
    except OSError as error:
        print(f"Error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        os._exit(NOT_FOUND)

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    while True:
        pid, wait_status = os.wait()
        if pid == child.pid:
            status = os.waitstatus_to_exitcode(wait_status)
            os._exit(status if status >= 0 else BY_SIGNAL - status)


def _count_until_end(first: int, sink: int, signals: socket.socket, count: Count) -> int:
    """Answer and count what comes to the sink until process 1 has ended; return its status."""
    process = os.pidfd_open(first)
    kill_at_s: float | None = None
    while True:
        left_s = None if kill_at_s is None else max(0.0, kill_at_s - time.monotonic())
        ready, _, _ = select.select([sink, process, signals.fileno()], [], [], left_s)
        if sink in ready:
            _take_packets(sink, count)
        if signals.fileno() in ready:
            for number in signals.recv(PACKET_BYTES):
                signal.pidfd_send_signal(process, number)
            kill_at_s = kill_at_s or time.monotonic() + PATIENCE_S
        if process in ready:
            break
        if not ready:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            kill_at_s = None
    _, wait_status = os.waitpid(first, 0)
    _take_packets(sink, count)  # its last words
    status = os.waitstatus_to_exitcode(wait_status)
    return status if status >= 0 else BY_SIGNAL - status


def _take_packets(sink: int, count: Count) -> None:
    """Count and answer all that waits; who sent it is looked up before the answer frees him."""
    while True:
        try:
            packet = read_packet(os.read(sink, PACKET_BYTES))
        except BlockingIOError:
            return
        if packet is None:
            continue
        count.add(packet)
        if (said := answer(packet, count.address_of)) is not None:
            os.write(sink, said)


def _lost_packets() -> int:
    """Return how many packets found no room in the sink's queue."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        device, _, figures = line.partition(":")
        if device.strip() == sealed_room.SINK:
            return int(figures.split()[TX_DROPPED])
    raise ShoestringError("the sink is gone; what it counted cannot be trusted")


def _summary(result: dict[str, Any]) -> str:
    rows = [
        f"{row['count']:6} {row['kind']:5} {row['name'] or ''} {row['to']} "
        f"{row['program'] or 'unknown program'}"
        for row in result["by"]
    ]
    return "\n".join([f"attempts to reach outside: {result['attempts']}", *rows])


if __name__ == "__main__":
    sys.exit(main())
