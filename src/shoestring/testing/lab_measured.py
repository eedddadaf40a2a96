"""How true a lab is on this machine: the error of its delays, and what its router can carry.

::

    python -m shoestring.testing.lab_measured [--packets N] [--megabytes N]

*Error of a delay*: datagrams of 64 bytes, one at a time, from one host to another; the time from
before the send until the receiver's kernel has it (``arrived``, SO_TIMESTAMPNS) and until the
receiver has woken up (``read``), less the set delay. Both are wall clocks of one kernel.

*Throughput*: one TCP connection without delay and rate. *Processor per packet*: the router's own
time meanwhile, over the packets that it moved (acknowledgements too).

Prints one JSON object; times in seconds, throughput in bytes a second.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
import time
from typing import Any

from shoestring.errors import ShoestringError
from shoestring.testing.lab import HostPlan, Lab, LabPlan, lab

DELAYS_S = (0.0, 0.001, 0.005, 0.01)
MTUS = (65_000, 1500)
PAUSE_S = 0.002
SO_TIMESTAMPNS = 35
CHUNK_BYTES = 1 << 20


def delay_error(running: Lab, delay_s: float, packets: int) -> dict[str, Any]:
    """Return how late packets came beyond one delay."""
    running.change("there", delay_s=delay_s)
    one, other = (running.hosts[name].socket(socket.SOCK_DGRAM) for name in ("home", "there"))
    arrived_ns, read_ns = [], []
    pause = threading.Event()
    set_ns = round(delay_s * 1e9)
    with one, other:
        other.bind((running.hosts["there"].address, 0))
        other.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        one.connect(other.getsockname())
        for _ in range(packets):
            pause.wait(PAUSE_S)  # so that all go to sleep in between
            begun_ns = time.time_ns()
            one.send(bytes(64))
            _, [(_, _, stamp)], _, _ = other.recvmsg(64, 64)
            read_ns.append(time.time_ns() - begun_ns - set_ns)
            seconds, rest_ns = struct.unpack("=qq", stamp)
            arrived_ns.append(seconds * 10**9 + rest_ns - begun_ns - set_ns)
    return {"delay_s": delay_s, "n": packets,
            "arrived_late_s": _spread_s(arrived_ns), "read_late_s": _spread_s(read_ns)}  # fmt: skip


def _spread_s(errors_ns: list[int]) -> dict[str, float]:
    errors_ns.sort()
    n = len(errors_ns)
    at = {"least": 0, "median": n // 2, "p99": n * 99 // 100, "most": n - 1}
    return {name: errors_ns[place] / 1e9 for name, place in at.items()}


def throughput(running: Lab, size_bytes: int) -> dict[str, Any]:
    """Return what one connection carried, and the router's time for it."""
    running.change("there", delay_s=0.0)
    there = running.hosts["there"]
    with there.socket() as listener:
        listener.bind((there.address, 0))
        listener.listen(1)
        one = running.hosts["home"].connect(listener.getsockname()[1], there.address)
        other, _ = listener.accept()
    before = running.status()["router"]
    with one, other:
        sender = threading.Thread(target=one.sendall, args=(bytes(size_bytes),))
        begun_s, left = time.monotonic(), size_bytes
        sender.start()
        while left:
            left -= len(other.recv(CHUNK_BYTES))
        took_s = time.monotonic() - begun_s
        sender.join()
    after = running.status()["router"]
    packets = _packets(after) - _packets(before)
    return {"bytes": size_bytes, "bytes_per_s": size_bytes / took_s, "packets": packets,
            "router_cpu_s_a_packet": (after["cpu_s"] - before["cpu_s"]) / packets}  # fmt: skip


def _packets(router: dict[str, Any]) -> int:
    return sum(counts.get("sent_packets", 0) for counts in router["hosts"].values())


def main() -> int:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packets", type=int, default=1000, help="for each delay")
    parser.add_argument("--megabytes", type=int, default=200, help="for each packet size")
    options = parser.parse_args()
    hosts = {"home": HostPlan(), "there": HostPlan()}
    found: dict[str, Any] = {"delays": [], "throughput": []}
    try:
        for mtu in MTUS:
            with lab(LabPlan(hosts, mtu=mtu)) as running:
                found["priority"] = running.status()["router"]["priority"]
                if mtu == MTUS[0]:
                    found["delays"] = [
                        delay_error(running, delay_s, options.packets) for delay_s in DELAYS_S
                    ]
                carried = throughput(running, options.megabytes * 10**6)
                found["throughput"].append({"mtu": mtu, **carried})
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
