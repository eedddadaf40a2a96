"""What of a token's time and bytes is ours, part by part?

| part | what |
|---|---|
| ``frames`` | what llama-server says to each of two workers for a token, counted by kind |
| ``work`` | what our side does with such frames, each part by itself, in memory |
| ``processor`` | processor time a token of each process, over raw RPC and over ours |
| ``link`` | bytes a token on the host's link, both ways, headers of IP included, likewise |

The last two are of one host without delay, and differences of two lengths of answer, so that
prompt and start do not count.

    python benchmarks/swarm_parts.py [--model pypi:gemma3-270m] [--models MODEL ...] [--tokens 48]
                                     [--times 5] [--json-out FILE]

``frames`` and ``work`` need a worker on loopback, the others what the laboratory needs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from swarm_chain import over_nodes
from swarm_examples import PHI3, SIXTY
from swarm_hosts import running_swarm
from swarm_token import ASKED, count_step, last_token, record, time_work
from swarm_user import llama_server

from results import write_result
from shoestring.engines.outlines import find_model
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.testing.lab_workers import start_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm_hosts import Swarm

    from shoestring.testing.live_server import LiveServer

MODEL: Final = "pypi:gemma3-270m"
MODELS: Final = (MODEL, SIXTY, "shape:llama-3.2-1b:q4_k_m", PHI3)
RECORDED: Final = 6
"""Tokens of which the last one is counted."""
CPUCLOCK_SCHED: Final = 2
"""Of ``include/linux/posix-timers.h``."""
FEW: Final = 24
"""Tokens of the shorter answer: both have the graphs of a prompt and those of tokens."""
TIMES: Final = 200
"""Each part of the work is done so often."""


def main() -> None:
    """Count and measure all, and write what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default=MODEL)
    arguments.add_argument("--models", nargs="+", default=list(MODELS))
    arguments.add_argument("--tokens", type=int, default=48)
    arguments.add_argument("--times", type=int, default=5)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-parts.json")
    )
    given = arguments.parse_args()
    if min(given.tokens, given.times) < 1:
        arguments.error("--tokens, --times: at least 1")
    model = resolve_model(given.model, cache=cache_dir()).path
    with tempfile.TemporaryDirectory() as scratch:
        frames = [count_model(name, Path(scratch) / str(number))
                  for number, name in enumerate(given.models)]  # fmt: skip
        [heard] = asyncio.run(
            record(model, Path(scratch) / "work", workers=1, tokens=32, output="local")
        )
        work = time_work(heard, Path(scratch), times=TIMES)
    with running_swarm(1, rtt_s=0.0) as swarm:
        processes = asyncio.run(measure_processes(swarm, model, given))
    figures = {
        "how": {"model": given.model, "tokens": given.tokens, "times": given.times, "threads": 1},
        "frames": frames, "work": work, **processes,
    }  # fmt: skip
    write_result(given.json_out, "swarm-parts", figures)


def count_model(name: str, folder: Path) -> dict[str, Any]:
    """Count a token's frames over two workers, as many layers on each, the last with the output."""
    model = resolve_model(name, cache=cache_dir()).path
    print(f"frames of {name}", file=sys.stderr, flush=True)
    two = record(model, folder, workers=2, tokens=RECORDED, output="remote")
    first, second = asyncio.run(two)
    shape = find_model(name).outline.shape
    return {
        "model": shape.name, "layers": shape.layers, "width": shape.width,
        "vocabulary": shape.vocabulary,
        "first": count_step(last_token(first.requests)),
        "last": count_step(last_token(second.requests)),
    }  # fmt: skip


async def measure_processes(
    swarm: Swarm, model: Path, given: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return processor time of each process and bytes of the link, a token, raw and ours."""
    [node] = swarm.nodes
    assert swarm.laboratory is not None
    found: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as stack:
        [worker] = start_workers(swarm.laboratory, [node.name], threads=1)
        stack.callback(worker.process.wait)
        stack.callback(worker.process.kill)
        raw = llama_server([worker.endpoint], model, swarm.folder / "raw.log")
        server = await stack.enter_async_context(raw)
        pids = {"llama-server": server.pid, "worker": worker.process.pid or 0}
        found["raw"] = await asyncio.to_thread(take, server, pids, swarm, given)
    async with over_nodes(swarm, model) as (server, *_):
        pids = {"llama-server": server.pid, "proxy": os.getpid(), "agent": node.pid,
                "worker": node.worker().pid}  # fmt: skip
        found["ours"] = await asyncio.to_thread(take, server, pids, swarm, given)
    return {part: {arm: its[part] for arm, its in found.items()} for part in ("processor", "link")}


def take(
    server: LiveServer, pids: Mapping[str, int], swarm: Swarm, given: argparse.Namespace
) -> dict[str, Any]:
    """Ask for few tokens, again and again, then for many; return the differences, by token.

    Not in turns: what changed last in the caches of an answer is copied with the next one. The
    first answer of each length only warms up.
    """
    shorter, longer = (
        [spend(server, pids, swarm, tokens) for _ in range(given.times + 1)][1:]
        for tokens in (FEW, FEW + given.tokens)
    )
    rows = [
        {name: (many[name] - few[name]) / given.tokens for name in many}
        for few, many in zip(shorter, longer, strict=True)
    ]
    print("processes", *pids, file=sys.stderr, flush=True)
    return {
        "processor": {name: [row[name] for row in rows] for name in pids},
        "link": {"bytes": median(row["link"] for row in rows)},
    }


def processor_s(pid: int) -> float:
    """Return the processor time of a process, its threads that ended included.

    By the clock of ``clock_getcpuclockid(3)``, in nanoseconds: ``cpu_times`` counts ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def spend(
    server: LiveServer, pids: Mapping[str, int], swarm: Swarm, tokens: int
) -> dict[str, float]:
    """Return what one answer took of each process, in seconds, and of the link, in bytes."""

    def now() -> dict[str, float]:
        return {**{name: processor_s(pid) for name, pid in pids.items()},
                "link": swarm.nodes[0].wire_bytes()}  # fmt: skip

    before = now()
    server.complete({**ASKED, "n_predict": tokens})
    after = now()
    return {name: after[name] - before[name] for name in after}


if __name__ == "__main__":
    main()
