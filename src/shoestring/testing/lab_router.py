"""The net between a lab's hosts: one process that holds each packet for as long as it should take.

A packet goes through three parts, each with its time in nanoseconds::

    sender's link          way of this pair         receiver's link
    bytes / rate     ->    delay + jitter     ->    bytes / rate

A link takes one packet after the other. What waits for the sender's link stays in the sender's
kernel, as before a real card, so that its TCP feels it; what waits for the receiver's is held here,
up to ``QUEUE_BYTES``. The receiver's link begins as soon as the first byte is there: at equal rates
a packet pays once, as many small ones would. Packets of a pair keep their order, whatever the
jitter, and also where the delay is changed while they are under way.

None comes early: the set time counts from the moment when the packet was read here. It comes late
by what the kernel takes to wake this process, which therefore wakes ``SPIN_NS`` too soon and looks
without sleeping for the rest. ``late_ns`` are the last packets' true lateness.
"""

from __future__ import annotations

import errno
import gc
import heapq
import itertools
import os
import random
import select
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from shoestring.testing.lab_plan import LabPlan, LinkPlan
from shoestring.testing.lab_words import receive_word, send_word

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping

SPIN_NS = 100_000
AHEAD_NS = 1_000_000
"""So long before a link is free its next packets are read, lest it stands idle if we wake late."""
DENSE_NS = 300_000
"""Sooner after the last packet we sleep to the end: a stream would have us spin all the time."""
QUEUE_BYTES = 32 << 20
PACKET_BYTES = 65_536
BATCH = 32
"""Packets of one host that are read before the others are looked at."""
KEPT = 4096
PRIORITY = 1
FIRST_MULTICAST = 224
HEADER_BYTES = 20
NS_PER_S = 1_000_000_000


@dataclass(eq=False)
class Port:
    """A host's link.

    Attributes:
        name: of the host.
        device: its tun device's descriptor.
        address: four bytes.
        ns_per_byte: 0 where it has no rate.
        up_free_ns: when it can take the next packet from the host.
        down_free_ns: when it can take the next one to the host.
    """

    name: str
    device: int
    address: bytes
    ns_per_byte: float = 0.0
    up_free_ns: int = 0
    down_free_ns: int = 0
    counts: Counter[str] = field(default_factory=Counter)


class Way:
    """One ordered pair of hosts."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._last_ns = 0

    def take(self, link: LinkPlan) -> None:
        """Have these figures from now on."""
        self._delay_ns = round(link.delay_s * NS_PER_S)
        self._jitter_ns = round(link.jitter_s * NS_PER_S)
        self._loss = link.loss

    def arrival_ns(self, left_ns: int) -> int | None:
        """Say when a packet that left then arrives; None: never."""
        if self._loss and self._random.random() < self._loss:
            return None
        due_ns = left_ns + self._delay_ns
        if self._jitter_ns:
            due_ns += self._random.randint(0, self._jitter_ns)
        self._last_ns = max(self._last_ns, due_ns)
        return self._last_ns


@dataclass(frozen=True, eq=False)
class Flight:
    """A packet under way.

    Attributes:
        spread_ns: between the arrival of its first byte and its last.
        through: the receiver's link has taken it, too.
    """

    source: Port
    to: Port
    data: bytes
    spread_ns: int
    through: bool = False


class Router:
    """Moves packets between tun devices.

    Args:
        plan: the net's figures.
        devices: a descriptor for each host, in the plan's order.
        clock_ns: monotonic.
    """

    def __init__(
        self,
        plan: LabPlan,
        devices: Iterable[int],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock_ns = clock_ns
        self._ports = [
            Port(name, device, bytes(map(int, plan.address(name).split("."))))
            for name, device in zip(plan.hosts, devices, strict=True)
        ]
        self._by_address = {port.address: port for port in self._ports}
        pairs = itertools.permutations(plan.hosts, 2)
        self._ways = {pair: Way(f"{plan.seed} {' '.join(pair)}") for pair in pairs}
        self._cut: set[str] = set()
        self._cut_pairs: set[frozenset[str]] = set()
        self._flights: list[tuple[int, int, Flight]] = []
        self._number = itertools.count()
        self._landed_ns = 0
        self._late_ns: deque[int] = deque(maxlen=KEPT)
        self.take(plan)

    def take(self, plan: LabPlan) -> None:
        """Have the figures of a plan with the same hosts, for packets that are sent from now on."""
        for port in self._ports:
            rate = plan.hosts[port.name].rate_bytes_per_s
            port.ns_per_byte = 0.0 if rate is None else NS_PER_S / rate
        for pair, way in self._ways.items():
            way.take(plan.way(*pair))

    def cut(self, hosts: Iterable[str], pairs: Iterable[Iterable[str]]) -> None:
        """Have exactly these cables pulled: what is sent or under way there vanishes."""
        self._cut = set(hosts)
        self._cut_pairs = {frozenset(pair) for pair in pairs}

    def state(self) -> dict[str, Any]:
        """Return what was done so far."""
        late_ns = sorted(self._late_ns)
        n = len(late_ns)
        return {
            "hosts": {port.name: dict(port.counts) for port in self._ports},
            "under_way": len(self._flights),
            "late_s": None
            if n == 0
            else {"n": n, "median": late_ns[n // 2] / NS_PER_S,
                  "p99": late_ns[n * 99 // 100] / NS_PER_S, "max": late_ns[-1] / NS_PER_S},
            "cut": sorted(self._cut),
            "cut_pairs": sorted(sorted(pair) for pair in self._cut_pairs),
            "cpu_s": time.process_time(),
        }  # fmt: skip

    def wait(self, *others: int) -> list[int]:
        """Move what is due, then wait for packets, the next due one, or these descriptors.

        Returns:
            Those of the descriptors that can be read.
        """
        now_ns = self._clock_ns()
        while self._flights and self._flights[0][0] <= now_ns:
            due_ns, _, flight = heapq.heappop(self._flights)
            self._land(due_ns, flight)
            now_ns = self._clock_ns()
        spin_ns = SPIN_NS if now_ns - self._landed_ns > DENSE_NS else 0
        wake_ns = self._flights[0][0] - spin_ns if self._flights else None
        readers = list(others)
        for port in self._ports:
            look_ns = port.up_free_ns - AHEAD_NS
            if look_ns <= now_ns:
                readers.append(port.device)
            else:  # what its host sends meanwhile waits in the host
                wake_ns = look_ns if wake_ns is None else min(wake_ns, look_ns)
        limit_s = None if wake_ns is None else max(0, wake_ns - now_ns) / NS_PER_S
        ready = set(select.select(readers, [], [], limit_s)[0])
        for port in self._ports:
            if port.device in ready:
                self._read(port)
        return [other for other in others if other in ready]

    def _read(self, port: Port) -> None:
        for _ in range(BATCH):
            try:
                data = os.read(port.device, PACKET_BYTES)
            except BlockingIOError:
                return
            now_ns = self._clock_ns()
            port.counts["sent_packets"] += 1
            port.counts["sent_bytes"] += len(data)
            spread_ns = round(len(data) * port.ns_per_byte)
            port.up_free_ns = max(now_ns, port.up_free_ns) + spread_ns
            for to in self._receivers(port, data):
                self._send(Flight(port, to, data, spread_ns), port.up_free_ns)
            if port.up_free_ns - AHEAD_NS > now_ns:
                return

    def _receivers(self, source: Port, data: bytes) -> list[Port]:
        """Return whom a packet is for; a multicast one is for all others."""
        if len(data) < HEADER_BYTES or data[0] >> 4 != 4:  # noqa: PLR2004 - the net is IPv4
            return []
        to = self._by_address.get(data[16:20])
        if to is not None:
            return [to] if to is not source else []
        if data[16] >= FIRST_MULTICAST:
            return [port for port in self._ports if port is not source]
        return []

    def _send(self, flight: Flight, left_ns: int) -> None:
        due_ns = None
        if not self._is_cut(flight.source, flight):
            due_ns = self._ways[flight.source.name, flight.to.name].arrival_ns(left_ns)
        if due_ns is None:
            flight.to.counts["lost_packets"] += 1
            return
        heapq.heappush(self._flights, (due_ns, next(self._number), flight))

    def _land(self, due_ns: int, flight: Flight) -> None:
        """Give a packet to the receiver's link, or from there to the receiver."""
        port = flight.to
        if self._is_cut(port, flight):
            port.counts["lost_packets"] += 1
            return
        if port.ns_per_byte and not flight.through:
            begin_ns = max(port.down_free_ns, due_ns - flight.spread_ns)
            if begin_ns - due_ns > QUEUE_BYTES * port.ns_per_byte:
                port.counts["lost_packets"] += 1
                return
            port.down_free_ns = begin_ns + round(len(flight.data) * port.ns_per_byte)
            end_ns = max(due_ns, port.down_free_ns)
            if end_ns > due_ns:
                through = Flight(flight.source, port, flight.data, 0, through=True)
                heapq.heappush(self._flights, (end_ns, next(self._number), through))
                return
        self._landed_ns = self._clock_ns()
        self._late_ns.append(self._landed_ns - due_ns)
        try:
            os.write(port.device, flight.data)
        except OSError as error:
            if error.errno != errno.EIO:  # the host took its interface down
                raise
            port.counts["lost_packets"] += 1
            return
        port.counts["received_packets"] += 1
        port.counts["received_bytes"] += len(flight.data)

    def _is_cut(self, end: Port, flight: Flight) -> bool:
        if not (self._cut or self._cut_pairs):
            return False
        pair = frozenset((flight.source.name, flight.to.name))
        return end.name in self._cut or pair in self._cut_pairs


def run_router(plan: LabPlan, devices: Iterable[int], control: socket.socket) -> NoReturn:
    """Move packets for ever, and do what ``control`` says, one JSON object a line each way."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        priority = "real-time"
    except PermissionError:  # without root; then busy hosts make packets late
        priority = "normal"
    router = Router(plan, devices)
    gc.collect()
    gc.disable()  # nothing here is in a circle, and a collection would make packets late
    while True:
        if router.wait(control.fileno()):
            word, _ = receive_word(control)
            send_word(control, {**_obey(router, word), "priority": priority})


def _obey(router: Router, word: Mapping[str, Any]) -> dict[str, Any]:
    if "plan" in word:
        router.take(LabPlan.from_json(word["plan"]))
    if "cut" in word:
        router.cut(word["cut"], word["cut_pairs"])
    return router.state()
