"""What does a gateway add? Ours and LiteLLM's proxy, beside nothing in between, in one run.

All blocks are interleaved, and who is first in a block turns. The client is this process; it keeps
connections open before all arms alike (the known-truth server closes its own after each answer: it
is connected again before the clock starts), and nothing waits in it.

- TTFT: of the known-truth server's ``MODEL``. A request's *added* TTFT is its own less the median
  of the requests without a gateway of the same block; of these the median and the p99.
- Throughput: of llama-server with a real model, as many streams as it has slots; output tokens by
  the engine's count / time of the block. One ratio a block, gateway / direct; their median.
- Cached: the same 16 deterministic questions again and again, whole and as streams; answers a
  second that were right. The known-truth server's log proves that it was asked none of them.
- Memory: the kernel's own peak (VmHWM) of a worker when its load is over.

    python benchmarks/gateway_overhead.py [--requests 720] [--blocks 6] [--concurrency 1 8]
                                          [--seconds 5] [--arms ARM ...] [--parts PART ...]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from gateway_rates import measure_cached, measure_throughput
from gateway_servers import DIRECT, LITELLM, OURS, PEER, gateways, note, question, turns
from load import CHAT, Site, closed_loop, run

from results import write_result
from shoestring.analysis.metrics import timings
from shoestring.analysis.stats import bootstrap_median_ci, percentile
from shoestring.engines.discovery import find_program
from shoestring.truth.process import running_server

ARMS = (DIRECT, OURS, LITELLM)
PARTS = ("ttft", "throughput", "cached")
MODEL = "truth-ttft50-itl10-n16"
WARMUP_REQUESTS = 10
JUDGED_CONCURRENCY = 8
Figures = dict[str, Any]


def main() -> None:
    """Measure the parts, judge, write."""
    given = parse_arguments()
    peer = PEER.install() if LITELLM in given.arms else None
    figures: Figures = {
        "how": {"arms": given.arms, "blocks": given.blocks, "order": "turns from block to block",
                "warmup_requests": f"{WARMUP_REQUESTS} before each block of TTFT, not counted"},
        "peers": {LITELLM: peer}, "peak_memory_bytes": {},
    }  # fmt: skip
    memory = figures["peak_memory_bytes"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "ttft" in given.parts:
            figures["ttft"], memory["ttft"] = measure_ttft(given, folder)
        if "throughput" in given.parts:
            figures["throughput"] = measure_throughput(
                given.blocks, given.arms, given.model, folder
            )
        if "cached" in given.parts:
            figures["cached"], memory["cached"] = measure_cached(
                given.blocks, given.arms, given.seconds, folder
            )
    figures["bars"] = judge(figures)
    write_result(given.json_out, "gateway-overhead", figures)
    for bar in figures["bars"]:
        said = {True: "met", False: "missed", None: "no figure"}[bar["met"]]
        print(f"{said:9} {bar['bar']}: {bar['value']} ({bar['sense']} {bar['limit']})")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=720, help="of an arm, below 662 no p99")
    arguments.add_argument("--blocks", type=int, default=6)
    arguments.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    arguments.add_argument("--seconds", type=float, default=5.0, help="of an arm's cached block")
    arguments.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--model", default="pypi:gemma3-270m", help="of llama-server")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/gateway-overhead.json")
    )
    given = arguments.parse_args()
    if min(given.requests, given.blocks, *given.concurrency) < 1:
        arguments.error("--requests, --blocks and --concurrency: at least 1")
    if "throughput" in given.parts and find_program("llama-server") is None:
        arguments.error("llama-server is missing: make engines")
    return given


def measure_ttft(
    given: argparse.Namespace, folder: Path
) -> tuple[list[Figures], dict[str, int | None]]:
    """Return TTFT of each arm and what it adds at each concurrency, and the workers' peaks."""
    with running_server() as truth, gateways(given.arms, folder, truth.base_url, MODEL) as servers:
        sites = {DIRECT: Site(truth.base_url), **{n: s.site for n, s in servers.items()}}
        levels = [ttft_level(given, sites, concurrency) for concurrency in given.concurrency]
        return levels, {name: server.peak_bytes() for name, server in servers.items()}


def ttft_level(given: argparse.Namespace, sites: dict[str, Site], concurrency: int) -> Figures:
    """Take all blocks of one concurrency."""
    seen: dict[str, list[list[float]]] = defaultdict(list)
    failures: dict[str, list[str]] = defaultdict(list)
    size = -(-given.requests // given.blocks)
    for block, name in turns(given.blocks, given.arms):
        note(f"ttft, c={concurrency}, block {block + 1}: {name}")
        ttfts, failed = ttft_block(sites[name], size, concurrency)
        seen[name].append(ttfts)
        failures[name] += failed
    return {
        "concurrency": concurrency,
        "model": MODEL,
        "arms": {
            name: {"failed": len(failures[name]), "failures": failures[name][:5],
                   **describe_ttft(seen[name], seen.get(DIRECT, []))}
            for name in given.arms
        },
    }  # fmt: skip


def ttft_block(site: Site, size: int, concurrency: int) -> tuple[list[float], list[str]]:
    """Return the TTFTs of a block, and how the others failed."""
    ask = site.post(CHAT, question(MODEL, "now", stream=True))
    run(closed_loop(site, lambda _: ask, range(WARMUP_REQUESTS), concurrency))
    made = [a.read() for a in run(closed_loop(site, lambda _: ask, range(size), concurrency))]
    ttfts = [timings(one).ttft_s for one in made if one.failure is None]
    failed = [one.failure.detail for one in made if one.failure is not None]
    return [ttft_s for ttft_s in ttfts if ttft_s is not None], failed


def describe_ttft(blocks: list[list[float]], direct: list[list[float]]) -> Figures:
    """Reduce the TTFTs of an arm; nothing is added to nothing."""
    added = [
        [ttft_s - median(beside) for ttft_s in block]
        for block, beside in zip(blocks, direct, strict=False)
        if beside
    ]
    return {
        "requests": sum(map(len, blocks)),
        "ttft_s": spread(blocks),
        "added_s": {**spread(added), "median_ci95": bootstrap_median_ci(added)},
    }


def spread(blocks: list[list[float]]) -> Figures:
    """Return median, p99 (null below 662) and maximum of all values."""
    values = [value for block in blocks for value in block]
    return {"median": percentile(values, 50), "p99": percentile(values, 99),
            "max": max(values, default=None)}  # fmt: skip


def judge(figures: Figures) -> list[Figures]:
    """Say of each bar whether it is met; null where there is no figure to judge by."""
    added, failed = None, 0
    for level in figures.get("ttft", []):
        arm = level["arms"].get(OURS)
        failed += arm["failed"] if arm else 0
        if level["concurrency"] == JUDGED_CONCURRENCY and arm:
            added = arm["added_s"]
    rate = figures.get("throughput", {}).get("ratio_to_direct", {}).get(OURS)
    cached = figures.get("cached", {})
    ratios = cached.get("ratio_to_litellm", {})
    peaks = [part[OURS] for part in figures["peak_memory_bytes"].values() if part.get(OURS)]
    wrong = sum(cached.get(count, {}).get(OURS, 0) for count in ("not_right", "engine_was_asked"))
    return [
        bar("added TTFT median at c=8, s", added and added["median"], "at most", 0.003),
        bar("added TTFT p99 at c=8, s", added and added["p99"], "at most", 0.010),
        bar("throughput / direct, median", rate and rate["median"], "at least", 0.98),
        *(
            bar(f"cached {kind} / LiteLLM's, median", found and found["median"], "at least", 5.0)
            for kind, found in ratios.items()
        ),
        bar("peak memory of a worker, bytes", max(peaks, default=None), "at most", 150 * 2**20),
        bar("failed, not right, or not from the cache", failed + wrong, "at most", 0),
    ]


def bar(name: str, value: float | None, sense: str, limit: float) -> Figures:
    """Return one bar with its verdict."""
    met = None if value is None else (value <= limit if sense == "at most" else value >= limit)
    return {"bar": name, "value": value, "sense": sense, "limit": limit, "met": met}


if __name__ == "__main__":
    main()
