"""What would a pool of thousands cost, how fast and how fair is it, and what do attacks change?

One day of 5,000 nodes and 100,000 requests without attack, timed; then, in a smaller pool, each
attack beside the same seed without it, and lazy cheats under fewer and more audits. Everything but
the seconds of this machine follows from the seed.

    python benchmarks/swarm_simulation.py [--nodes N] [--requests N] [--attack-nodes N]
                                          [--attack-requests N] [--seed N] [--json-out FILE]

The bars: the day takes at most two minutes; the book is right in every run; the whole result stays
below 300 KB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from results import write_result
from shoestring.swarm.simulation.comparing import gain
from shoestring.swarm.simulation.running import simulate
from shoestring.swarm.simulation.scenario import ATTACKS, HOUR_S, Scenario

MOST_S: Final = 120.0
MOST_BYTES: Final = 300_000
AUDIT_SHARES: Final = (0.005, 0.1)
"""Beside the usual one."""
DAY_BIN_S: Final = HOUR_S // 4


def main() -> None:
    """Run all, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nodes", type=int, default=5_000)
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--attack-nodes", type=int, default=1_000)
    arguments.add_argument("--attack-requests", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-simulation.json")
    )
    given = arguments.parse_args()
    day = timed(Scenario(
        nodes=given.nodes, requests=given.requests, seed=given.seed, bin_s=DAY_BIN_S
    ))  # fmt: skip
    small = Scenario(
        nodes=given.attack_nodes, requests=given.attack_requests, seed=given.seed, bin_s=HOUR_S
    )
    runs = {"none": timed(small)}
    for attack in ATTACKS:
        runs[attack] = timed(replace(small, attack=attack))
    for share in AUDIT_SHARES:
        runs[f"lazy, audited {share:g}"] = timed(
            replace(small, attack="lazy", audit_share=share)
        )  # fmt: skip
    figures = {
        "how": {"clock": "seconds of this process and of the wall; all else is simulated"},
        "bars": judge(day, runs), "day": day, "attacks": runs,
        "gains_credits": {
            attack: {
                "without": gain(runs["none"]["outcome"], attack),
                "with": gain(runs[attack]["outcome"], attack),
            }
            for attack in ATTACKS
        },
    }  # fmt: skip
    write_result(given.json_out, "swarm-simulation", figures)


def timed(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario; return its outcome and what it took."""
    told = f"{scenario.attack or 'no attack'}, {scenario.audit_share:g} audited"
    print(f"{told}: {scenario.nodes} nodes, {scenario.requests} requests", file=sys.stderr)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    outcome = simulate(scenario, say=lambda line: print(line, file=sys.stderr))
    return {
        "cpu_s": time.process_time() - cpu_s,
        "wall_s": time.perf_counter() - wall_s,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "outcome": outcome,
    }


def judge(day: dict[str, Any], runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Say which bars are kept."""
    every = [day, *runs.values()]
    wrong = sum(not one["outcome"]["ledger"]["right"] for one in every)
    size = len(json.dumps([day, runs], indent=1))
    return [
        _bar("a day, processor seconds", day["cpu_s"], MOST_S),
        _bar("a day, seconds on the wall, whoever else computes", day["wall_s"], MOST_S),
        _bar("books that are not right", wrong, 0),
        _bar("bytes of all outcomes", size, MOST_BYTES),
    ]


def _bar(what: str, value: float, limit: float) -> dict[str, Any]:
    return {"bar": what, "value": value, "sense": "at most", "limit": limit, "met": value <= limit}


if __name__ == "__main__":
    main()
