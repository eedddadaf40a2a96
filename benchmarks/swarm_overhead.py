"""What do links, firewall, room and journal cost a token, beside llama.cpp's own RPC?

On each host of the laboratory stand a stock worker and a node of ours, with as many threads. Two
stock llama-servers stay loaded, all layers (and, if said, the output) on one or two of these
hosts: one asks the workers directly, the other by stages and nodes. They answer the same question
in turns, and who is first turns; nothing else computes meanwhile. A token's time is llama-server's
own: ``predicted_ms / predicted_n``.

- added: (ours - raw) / hosts, of each pair; the median, and its bootstrap interval over pairs.
- ratio: raw's time / ours, that is our tokens a second by raw's; likewise.

    python benchmarks/swarm_overhead.py [--pairs 20] [--model shape:llama-3.2-1b:q4_k_m]
                                        [--remotes 1 2] [--rtt-ms 2 20] [--tokens 48]
                                        [--output local|remote] [--star] [--json-out FILE]

Needs what the laboratory needs. ``bars`` says met or missed; the status is 1 where a text differs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from swarm_hosts import running_swarm
from swarm_user import OUTPUT_WORDS, PROMPT, Told, llama_server

from results import write_result
from shoestring.analysis.stats import bootstrap_median_ci
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.swarm.spares import Need, Spares
from shoestring.swarm.stage import HOST, standing_stages
from shoestring.swarm.weights import Weights
from shoestring.testing.lab_workers import start_workers

if TYPE_CHECKING:
    from swarm_hosts import Swarm

    from shoestring.testing.lab_workers import Worker
    from shoestring.testing.live_server import LiveServer

MODEL: Final = "shape:llama-3.2-1b:q4_k_m"
ADDED_BAR_S: Final = 0.0015
RATIO_BARS: Final = {0.002: 0.95, 0.02: 0.98}
"""By round trip, in seconds."""
MEMORY_BYTES: Final = 1 << 30
Case = dict[str, Any]


def main() -> int:
    """Measure all cases and write what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pairs", type=int, default=20)
    arguments.add_argument("--model", default=MODEL)
    arguments.add_argument("--remotes", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--rtt-ms", type=float, nargs="+", default=[2.0, 20.0])
    arguments.add_argument("--tokens", type=int, default=48)
    arguments.add_argument("--threads", type=int, default=1, help="of each worker")
    arguments.add_argument("--star", action="store_true", help="activations all go through here")
    arguments.add_argument("--output", choices=OUTPUT_WORDS, default="local")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-overhead.json")
    )
    given = arguments.parse_args()
    if min(given.pairs, given.tokens, *given.remotes) < 1 or min(given.rtt_ms) <= 0:
        arguments.error("--pairs, --tokens and --remotes: at least 1; --rtt-ms: more than 0")
    model = resolve_model(given.model, cache=cache_dir()).path
    cases: list[Case] = []
    with running_swarm(
        max(given.remotes), rtt_s=given.rtt_ms[0] / 1e3, threads=given.threads
    ) as swarm:
        for remotes in given.remotes:
            cases += asyncio.run(measure(given, swarm, model, remotes))
    figures = {
        "how": {"model": given.model, "pairs": given.pairs, "tokens": given.tokens,
                "threads": given.threads, "output": given.output, "star": given.star,
                "order": "who is first turns", "clock": "llama-server's own"},
        "bars": [bar for case in cases for bar in judge(case)], "cases": cases,
    }  # fmt: skip
    write_result(given.json_out, "swarm-overhead", figures)
    return 0 if all(case["same_text"] for case in cases) else 1


async def measure(given: argparse.Namespace, swarm: Swarm, model: Path, remotes: int) -> list[Case]:
    """Load both servers over so many hosts; return one case for each round trip."""
    nodes = swarm.nodes[:remotes]
    laboratory = swarm.laboratory
    assert laboratory is not None
    names = [node.name for node in nodes]
    workers = start_workers(laboratory, names, threads=given.threads)
    told, weights, spares = Told(), Weights(model), Spares()
    async with AsyncExitStack() as stack:
        stack.callback(_end, workers)
        stages = await stack.enter_async_context(
            standing_stages(
                swarm.identity, [[node.remote] for node in nodes], spares, weights,
                needs=[Need(MEMORY_BYTES, on_cpu=True)] * remotes, tell=told, pushes=not given.star,
            )
        )  # fmt: skip
        places = {
            "raw": [worker.endpoint for worker in workers],
            "ours": [f"{HOST}:{stage.port}" for stage in stages],
        }
        servers = {
            arm: await stack.enter_async_context(
                llama_server(endpoints, model, swarm.folder / f"{arm}.log", output=given.output)
            )
            for arm, endpoints in places.items()
        }
        for stage in stages:
            await told.until_ready(stage, 1)
        cases = []
        for rtt_ms in given.rtt_ms:
            for name in names:
                laboratory.change(name, delay_s=rtt_ms / 2e3)
            pairs = await asyncio.to_thread(take_pairs, servers, given.pairs, given.tokens)
            cases.append(describe(pairs, remotes, rtt_ms / 1e3))
    return cases


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def take_pairs(
    servers: dict[str, LiveServer], pairs: int, tokens: int
) -> list[dict[str, dict[str, Any]]]:
    """Ask both in turns; the first pair only warms them up."""
    asked = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
             "cache_prompt": False}  # fmt: skip
    found = []
    for number in range(pairs + 1):
        order = sorted(servers, reverse=number % 2 == 0)
        found.append({arm: servers[arm].complete(asked) for arm in order})
        print(f"pair {number} of {pairs}", file=sys.stderr, flush=True)
    return found[1:]


def describe(pairs: list[dict[str, dict[str, Any]]], remotes: int, rtt_s: float) -> Case:
    """Reduce the pairs of a case."""
    token_s = {arm: [token_time_s(pair[arm]) for pair in pairs] for arm in ("raw", "ours")}
    both = list(zip(token_s["raw"], token_s["ours"], strict=True))
    texts = {pair[arm]["content"] for pair in pairs for arm in pair}
    return {
        "remotes": remotes, "rtt_s": rtt_s, "pairs": len(pairs), "same_text": len(texts) == 1,
        "load_average_1min": os.getloadavg()[0],
        "raw_token_s": median(token_s["raw"]), "ours_token_s": median(token_s["ours"]),
        "added_s_a_remote": with_interval([(ours - raw) / remotes for raw, ours in both]),
        "ratio": with_interval([raw / ours for raw, ours in both]),
        "token_s": token_s,
    }  # fmt: skip


def token_time_s(answer: dict[str, Any]) -> float:
    """Return a token's time of one answer, as llama-server clocked it."""
    timings = answer["timings"]
    return float(timings["predicted_ms"] / timings["predicted_n"] / 1e3)


def with_interval(values: list[float]) -> dict[str, Any]:
    """Return the median of one value a pair, and its interval; null below five pairs."""
    return {"median": median(values), "ci95": bootstrap_median_ci([[one] for one in values])}


def judge(case: Case) -> list[dict[str, Any]]:
    """Say of each bar of a case whether it is met."""
    where = f"{case['remotes']} remote(s), {case['rtt_s'] * 1e3:g} ms"
    added_s = case["added_s_a_remote"]["median"]
    bars = [{"bar": f"added a token and remote, s: {where}", "value": added_s,
             "sense": "at most", "limit": ADDED_BAR_S, "met": added_s <= ADDED_BAR_S}]  # fmt: skip
    if (limit := RATIO_BARS.get(case["rtt_s"])) is not None:
        ratio = case["ratio"]["median"]
        bars.append({"bar": f"tokens/s by raw RPC's: {where}", "value": ratio,
                     "sense": "at least", "limit": limit, "met": ratio >= limit})  # fmt: skip
    return bars


if __name__ == "__main__":
    sys.exit(main())
