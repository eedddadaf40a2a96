"""2,000 connections, of which 200 ask for long streams and never read: who is harmed?

1,800 connections are honest and mostly idle: each asks for ``/health`` from time to time, and
connects again where the gateway closed it. Beside them honest streams of the known-truth server
are measured, without the 200, with them, and after they have left. The 200 have a small receive
buffer and ask an engine of our own that sends ``UNREAD_PARTS`` of 8 kB as fast as it gets rid of
them: what they do not read lies in the kernel's buffers and in the gateway, or stops the engine.
``unread_taken_bytes`` says how much of each the engine got rid of.

- Growth: the gateway's peak less its resident set before the first connection; the stated bound is
  ``CONNECTION_BYTES`` a connection and ``UNREAD_BYTES`` a client that does not read. Before that
  all code has run, so that importing does not count.
- Harm: failures of honest streams, and their TTFT with the 200 less that without.

The gateway would cut them off after ``stall_s``; it is set so long that all stay.

    python benchmarks/gateway_crowd.py [--connections 2000] [--unread 200] [--requests 700]
                                       [--json-out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import socket
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from gateway_overhead import Figures, bar, spread
from gateway_servers import Server, engine_section, note, our_gateway, question
from load import CHAT, Line, closed_loop, run

from results import write_result
from shoestring.analysis.metrics import timings
from shoestring.engines.launch import free_port
from shoestring.truth.process import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from load import Site

HONEST_MODEL = "truth-ttft50-itl10-n16"
UNREAD_MODEL = "unread"
UNREAD_PARTS, PART_BYTES = 1500, 8000
"""12 MB, more than the kernel keeps of a connection and less than the longest answer."""
CONCURRENCY = 8
WARMUP_REQUESTS = 50
STALL_S = 3600
PAUSE_S = 20.0
FILL_S = 15.0
"""Until each unread answer has stopped."""
RECEIVE_BUFFER_BYTES = 4096
CONNECTION_BYTES, UNREAD_BYTES = 32 * 2**10, 256 * 2**10
FILES_BEYOND = 600
"""Files of this process beside the crowd: what the engine of the unread has open, and others."""
UNREAD_SECTION = """
[[engines]]
name = "firehose"
url = "http://127.0.0.1:{port}"
slots = {slots}

[aliases.unread]
targets = [{{engine = "firehose", model = "unread"}}]
"""
ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
)
SAMPLE_S = 0.2


def event(delta: dict[str, Any], reason: str | None) -> bytes:
    """Return a part of a stream as OpenAI's servers send it."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: %s\n\n" % json.dumps({"id": "unread", "choices": [choice]}).encode()


PART = event({"content": "x" * PART_BYTES}, None)
END = event({}, "length") + b"data: [DONE]\n\n"


class Firehose:
    """An engine that sends long streams as fast as they are taken.

    Attributes:
        taken_bytes: of each stream, what it got rid of.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.taken_bytes: list[int] = []

    async def listen(self) -> asyncio.Server:
        """Serve on loopback."""
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /v1/chat"):
                await self._stream(writer)
            else:
                listed = json.dumps({"object": "list", "data": [{"id": UNREAD_MODEL}]}).encode()
                writer.write(ANSWER_HEAD % (b"application/json", len(listed)) + listed)
                await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        number = len(self.taken_bytes)
        self.taken_bytes.append(0)
        writer.write(ANSWER_HEAD % (b"text/event-stream", UNREAD_PARTS * len(PART) + len(END)))
        for _ in range(UNREAD_PARTS):
            writer.write(PART)
            await writer.drain()
            self.taken_bytes[number] += len(PART)
        writer.write(END)
        await writer.drain()


@dataclass
class Watch:
    """The gateway's memory, sampled while the work goes on."""

    server: Server
    most_bytes: int = 0

    async def sample(self) -> None:
        """Keep the most that was seen, until cancelled."""
        while True:
            self.most_bytes = max(self.most_bytes, self.server.resident_bytes() or 0)
            await asyncio.sleep(SAMPLE_S)


def main() -> None:
    """Measure, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--connections", type=int, default=2000)
    arguments.add_argument("--unread", type=int, default=200, help="of them never read")
    arguments.add_argument("--requests", type=int, default=700, help="of honest streams a phase")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/gateway-crowd.json")
    )
    given = arguments.parse_args()
    if not 0 < given.unread < given.connections - CONCURRENCY:
        arguments.error(f"--unread: at least 1, and {CONCURRENCY} less than --connections")
    allow_files(given.connections + FILES_BEYOND)
    port = free_port()
    with tempfile.TemporaryDirectory() as name, running_server() as truth:
        unread = UNREAD_SECTION.format(port=port, slots=given.unread)
        settings = engine_section(truth.base_url, {HONEST_MODEL: HONEST_MODEL}) + unread
        with our_gateway(Path(name), "crowd", settings, f"stall_s = {STALL_S}") as server:
            figures = run(measure(given, server, Firehose(port)))
    figures["bars"] = judge(figures, given)
    write_result(given.json_out, "gateway-crowd", figures)
    for one in figures["bars"]:
        said = {True: "met", False: "missed", None: "no figure"}[one["met"]]
        print(f"{said:9} {one['bar']}: {one['value']} ({one['sense']} {one['limit']})")


def allow_files(count: int) -> None:
    """Let this process and the gateway open so many files, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise SystemExit(f"{count} open files are needed and {hard} allowed: ulimit -n {count}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def measure(given: argparse.Namespace, server: Server, firehose: Firehose) -> Figures:
    """Take all phases."""
    site, watch = server.site, Watch(server)
    engine = await firehose.listen()
    await honest(site, WARMUP_REQUESTS)
    before = server.resident_bytes()
    sampling = asyncio.create_task(watch.sample())
    phases: dict[str, Figures] = {}
    async with crowd(site, given.connections - given.unread - CONCURRENCY):
        phases["without"] = await phase("without", site, server, given.requests)
        unread = [ask_and_never_read(site, number) for number in range(given.unread)]
        note(f"{given.unread} do not read; {FILL_S:g} s until their buffers are full")
        await asyncio.sleep(FILL_S)
        phases["with"] = await phase("with", site, server, given.requests)
        taken = sorted(firehose.taken_bytes)
        for sock in unread:
            sock.close()
        phases["after"] = await phase("after", site, server, given.requests)
    sampling.cancel()
    engine.close()
    return {
        "connections": given.connections, "unread": given.unread,
        "unread_begun": len(taken),
        "unread_taken_bytes": {"median": median(taken) if taken else None,
                               "max": max(taken, default=None)},
        "stall_s": STALL_S, "connection_bound_bytes": CONNECTION_BYTES,
        "unread_bound_bytes": UNREAD_BYTES, "resident_before_bytes": before,
        "resident_most_bytes": watch.most_bytes,
        "growth_bytes": None if before is None else watch.most_bytes - before,
        "phases": phases,
    }  # fmt: skip


async def phase(name: str, site: Site, server: Server, requests: int) -> Figures:
    """Measure honest streams."""
    note(f"honest streams, {name} the crowd that does not read")
    ttfts, failures = await honest(site, requests)
    return {
        "requests": requests, "failed": len(failures), "failures": failures[:5],
        "ttft_s": spread([ttfts]), "resident_bytes": server.resident_bytes(),
    }  # fmt: skip


async def honest(site: Site, requests: int) -> tuple[list[float], list[str]]:
    """Return the TTFTs of honest streams, and how the others failed."""
    ask = site.post(CHAT, question(HONEST_MODEL, "now", stream=True))
    answers = await closed_loop(site, lambda _: ask, range(requests), CONCURRENCY)
    made = [answer.read() for answer in answers]
    ttfts = [timings(one).ttft_s for one in made if one.failure is None]
    failed = [one.failure.detail for one in made if one.failure is not None]
    return [ttft_s for ttft_s in ttfts if ttft_s is not None], failed


@asynccontextmanager
async def crowd(site: Site, size: int) -> AsyncIterator[None]:
    """Keep so many honest connections open, each asking something small from time to time."""
    lines = [Line(site) for _ in range(size)]
    for line in lines:
        await line.open()
    tasks = [asyncio.create_task(idle_on(line, site, n)) for n, line in enumerate(lines)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in lines:
            line.close()


async def idle_on(line: Line, site: Site, number: int) -> None:
    """Ask now and then; connect again where the connection was closed meanwhile."""
    draw, request = random.Random(number), site.get("/health")
    while True:
        await asyncio.sleep(draw.uniform(0, 2 * PAUSE_S))
        await line.ask(request)
        with suppress(OSError):
            await line.open()


def ask_and_never_read(site: Site, number: int) -> socket.socket:
    """Ask for a long stream over a connection that is never read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    sock.connect(site.address)
    sock.sendall(site.post(CHAT, question(UNREAD_MODEL, f"number {number}", stream=True)))
    return sock


def judge(figures: Figures, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Say of each bar whether it is met."""
    bound = given.connections * CONNECTION_BYTES + given.unread * UNREAD_BYTES
    phases = figures["phases"]
    failed = sum(one["failed"] for one in phases.values())
    added = {
        part: None if None in (have := [phases[p]["ttft_s"][part] for p in ("with", "without")])
        else have[0] - have[1]
        for part in ("median", "p99")
    }  # fmt: skip
    return [
        bar("growth of the gateway, bytes", figures["growth_bytes"], "at most", bound),
        bar("unread streams that began", figures["unread_begun"], "at least", given.unread),
        bar("honest streams that failed", failed, "at most", 0),
        bar("added TTFT median, s", added["median"], "at most", 0.003),
        bar("added TTFT p99, s", added["p99"], "at most", 0.010),
    ]


if __name__ == "__main__":
    main()
