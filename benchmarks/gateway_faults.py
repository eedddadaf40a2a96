"""The campaign's surroundings: engine, Redis and two replicas, and how they are killed.

All keep their ports when they come back. The replicas read one file of keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psutil
from gateway_asks import KEYS, MODELS
from gateway_servers import answers_at, engine_section, launch_gateway, note, write_settings
from load import Line, Site

from shoestring.engines.discovery import find_program
from shoestring.engines.launch import Launched, free_port
from shoestring.gateway.keys_file import create_key
from shoestring.hardware.processes import peak_resident_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from shoestring.gateway.keys import Scope

KILLED, ENDED = "replica killed", "replica ended"
KINDS = ("engine killed", "redis killed", KILLED, ENDED)
DOWN_S = (1.0, 3.0)
REDIS_DOWN_S = (3.0, 5.0)
END_LIMIT_S = 60.0
START_LIMIT_S = 60.0
LAST_ANSWERS_S = 10.0
POLL_S = 0.2
CALM_S = 4.0
"""After each fault, and at the end."""


class Replica:
    """One gateway on a port of its own; its peak of memory outlives its restarts."""

    def __init__(self, settings: Path, port: int, log: Path) -> None:
        self._settings, self._port, self._log = settings, port, log
        self._peak_bytes: int | None = None
        self.base_url = f"http://127.0.0.1:{port}"
        self.is_up = False
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = launch_gateway(self._settings, self._port, self._log)
        self.is_up = True

    def peak_bytes(self) -> int | None:
        """Return the largest resident set of any of its lives."""
        peaks = (self._peak_bytes, peak_resident_bytes(self.process.pid))
        self._peak_bytes = max((peak for peak in peaks if peak is not None), default=None)
        return self._peak_bytes


@dataclass(frozen=True)
class Fault:
    """Something that was down.

    Attributes:
        kind: of :data:`KINDS`.
        replica: which one; None where it was none.
        from_ns: when it was hit.
        to_ns: when it was ready again.
        end_s: how long a replica took to end in order.
        seen_in_metrics: whether every replica's metrics told that Redis was lost.
    """

    kind: str
    replica: str | None
    from_ns: int
    to_ns: int
    end_s: float | None = None
    seen_in_metrics: bool | None = None

    def describe(self, begun_ns: int, answered_ns: list[tuple[int, int]]) -> dict[str, Any]:
        """Return it for the result; ``answered_after_s`` runs from where it was ready again."""
        first_ns = min((end for begun, end in answered_ns if begun > self.to_ns), default=None)
        return {
            "kind": self.kind,
            "at_s": (self.from_ns - begun_ns) / 1e9,
            "down_s": (self.to_ns - self.from_ns) / 1e9,
            "end_s": self.end_s,
            "answered_after_s": None if first_ns is None else (first_ns - self.to_ns) / 1e9,
            "seen_in_metrics": self.seen_in_metrics,
        }


class Surroundings:
    """Everything that the campaign runs; a context that leaves nothing behind.

    Attributes:
        replicas: the gateways by their names.
        secrets: what clients hold, by the names of :data:`KEYS`; ``wrong`` opens nothing.
        log: of the known-truth server, over all its lives.
        left_over: requests that replicas still told of when all clients had ended; None: a
            replica told nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engine_port, self._redis_port = free_port(), free_port()
        self._running: dict[str, Launched] = {}
        self.log = folder / "truth.jsonl"
        self.replicas: dict[str, Replica] = {}
        self.secrets: dict[str, str] = {}
        self.left_over: dict[str, float | None] = {}

    def __enter__(self) -> Self:
        """Start all of it."""
        with ExitStack() as stack:
            stack.callback(self.stop)
            self.start_redis()
            self.start_engine()
            keys = self._folder / "keys.json"
            for name, limits in KEYS.items():
                _, self.secrets[name] = create_key(keys, name, limits=limits)
            scrape: Scope = "metrics"
            _, self._metrics_key = create_key(keys, "metrics", scopes=(scrape,))
            self.secrets["wrong"] = f"{self.secrets['free'][:-4]}AAAA"
            for name in ("a", "b"):
                port, settings = free_port(), self._folder / f"{name}.toml"
                write_settings(settings, port, keys, self._sections())
                self.replicas[name] = Replica(settings, port, self._folder / f"{name}.log")
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all of it."""
        self.stop()

    def stop(self) -> None:
        """End whatever runs."""
        for replica in self.replicas.values():
            replica.process.stop()
        for launched in self._running.values():
            launched.stop()

    def start_engine(self) -> None:
        """Start the known-truth server on its port."""
        port = str(self._engine_port)
        words = [sys.executable, "-P", "-m", "shoestring.truth", "--port", port]
        url = f"http://127.0.0.1:{port}/health"
        self._start("engine", [*words, "--log", str(self.log)], lambda: answers_at(url))

    def start_redis(self) -> None:
        """Start an empty Redis on its port."""
        port = str(self._redis_port)
        words = [str(find_program("redis-server")), "--port", port, "--bind", "127.0.0.1"]
        words += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._start("redis", words, lambda: answers_ping(self._redis_port))

    def pid_of(self, what: str) -> int:
        """Return the process of ``engine`` or ``redis``."""
        return self._running[what].pid

    async def metric(self, replica: str, name: str) -> float | None:
        """Return the sum of a metric's samples; None where the replica does not tell."""
        site = Site(self.replicas[replica].base_url, self._metrics_key)
        line = Line(site)
        answer = await line.ask(site.get("/metrics"), limit_s=5.0)
        line.close()
        if answer.exchange.failure is not None:
            return None
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", answer.body.decode(), re.MULTILINE)
        return sum(map(float, found)) if found else None

    def _start(self, name: str, words: list[str], ready: Callable[[], bool]) -> None:
        if name in self._running:
            self._running[name].stop()
        log = self._folder / f"{name}.log"
        launched = self._running[name] = Launched(name, words, environment={}, log_path=log)
        launched.wait_until(ready, START_LIMIT_S, "look into its log")

    def _sections(self) -> str:
        return (
            f"{engine_section(f'http://127.0.0.1:{self._engine_port}', MODELS)}\n"
            f'[redis]\nurl = "redis://127.0.0.1:{self._redis_port}/0"\n\n'
            "[cache]\nenabled = true\nttl_s = 20\n"
        )


def answers_ping(port: int) -> bool:
    """Whether a Redis answers on loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False


async def make_faults(
    around: Surroundings, draw: random.Random, times: int, seconds: float
) -> list[Fault]:
    """Hit everything so many times, in random order, spread over the time; then leave it alone.

    What takes longer than its share puts the end off: after each fault answers have to come.
    """
    kinds = [kind for kind in KINDS for _ in range(times)]
    draw.shuffle(kinds)
    begun_s, faults = time.monotonic(), []
    for number, kind in enumerate(kinds, 1):
        await asyncio.sleep(CALM_S)
        due_s = begun_s + seconds * number / (len(kinds) + 1)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        faults.append(await make_fault(kind, around, draw))
        note(f"{number} of {len(kinds)}: {kind}")
    await asyncio.sleep(max(CALM_S, begun_s + seconds - time.monotonic()))
    return faults


async def make_fault(kind: str, around: Surroundings, draw: random.Random) -> Fault:
    """Hit one, wait, bring it back."""
    replica = draw.choice(list(around.replicas)) if kind in (KILLED, ENDED) else None
    from_ns, end_s, seen = time.monotonic_ns(), None, None
    if replica is not None:
        hit = around.replicas[replica]
        hit.peak_bytes()
        hit.is_up = False
        os.kill(hit.process.pid, signal.SIGKILL if kind == KILLED else signal.SIGTERM)
        await asyncio.to_thread(await_end, hit.process.pid)
        end_s = (time.monotonic_ns() - from_ns) / 1e9 if kind == ENDED else None
        await asyncio.sleep(draw.uniform(*DOWN_S))
        hit.process.stop()
        await asyncio.to_thread(hit.start)
    elif kind == "redis killed":
        os.kill(around.pid_of("redis"), signal.SIGKILL)
        seen = await see_redis_lost(around, draw.uniform(*REDIS_DOWN_S))
        await asyncio.to_thread(around.start_redis)
    else:
        os.kill(around.pid_of("engine"), signal.SIGKILL)
        await asyncio.sleep(draw.uniform(*DOWN_S))
        await asyncio.to_thread(around.start_engine)
    return Fault(kind, replica, from_ns, time.monotonic_ns(), end_s, seen)


def await_end(pid: int) -> None:
    """Wait until a process has ended.

    Raises:
        psutil.TimeoutExpired: it does not.
    """
    with suppress(psutil.NoSuchProcess):  # it was faster
        psutil.Process(pid).wait(END_LIMIT_S)


async def see_redis_lost(around: Surroundings, seconds: float) -> bool:
    """Look into all metrics for so long; return whether each told of it."""
    end_s, told = time.monotonic() + seconds, set()
    while time.monotonic() < end_s:
        for name in around.replicas:
            if await around.metric(name, "shoestring_gateway_redis_up") == 0:
                told.add(name)
        await asyncio.sleep(POLL_S)
    return told == around.replicas.keys()


async def see_what_is_left(around: Surroundings) -> None:
    """Wait for the last answers; note what replicas still tell of."""
    end_s = time.monotonic() + LAST_ANSWERS_S
    while True:
        active = {name: await around.metric(name, "shoestring_gateway_active_requests")
                  for name in around.replicas}  # fmt: skip
        around.left_over = {name: count for name, count in active.items() if count != 0}
        if not around.left_over or time.monotonic() > end_s:
            return
        await asyncio.sleep(POLL_S)
