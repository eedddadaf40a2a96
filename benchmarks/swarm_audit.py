"""How soon is a cheating node found, and is an honest one ever excluded?

Real llama-servers over real workers behind agents, in one process; some workers are behind a relay
that cheats. Windows are recorded as in the product and run again in fresh workers.

1. *Cheats.* For each kind every window is audited, and the relay knows in which it cheated: which
   share of the wrong windows an audit finds, and how far off their answers were.
2. *Bound.* Cheats that are wrong in a share ``q`` of windows, audited with probability ``p``: after
   how many windows they are found, in many campaigns. What an audited window shows is what 1 found;
   the draws are the product's own. This shows that the formula is that of the draws, no more.
3. *End to end.* Sessions with ``p`` below one, until the cheat is replaced: how often later than
   the bound says for 99 %. Windows are counted when an answer is over, so some are too many.
4. *Honest.* Whole audits at other nodes, each in a fresh worker, with other numbers of threads; and
   real windows run again and again in one worker each, until there are 10,000 audits.
5. *Tolerance.* The same model with other batches, without flash attention, and with activations off
   by the rounding of a float: how far apart kernels are that are all right.

    python benchmarks/swarm_audit.py [--honest 10000] [--whole 60] [--campaigns 10000]
                                     [--model pypi:gemma3-270m] [--json-out FILE]

The bars: an audit within a class finds every wrong window, cheats are replaced within the stated
bound as often as it says, and of 10,000 audits of honest nodes within a class none excludes one.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from swarm_audit_cheats import end_to_end, kinds, measure_cheat, measure_wrong_count, run_campaigns
from swarm_audit_honest import measure_again, measure_whole
from swarm_audit_tolerance import measure_tolerance

from results import write_result
from shoestring.models.fetch import resolve_model
from shoestring.paths import cache_dir
from shoestring.testing.audit_lab import (
    tiny_model,
)


def main() -> None:
    """Measure all, judge, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument("--honest", type=int, default=10_000)
    arguments.add_argument("--whole", type=int, default=60)
    arguments.add_argument("--campaigns", type=int, default=10_000)
    arguments.add_argument("--sessions", type=int, default=20)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/swarm-audit.json")
    )
    given = arguments.parse_args()
    small = resolve_model(given.model, cache=cache_dir()).path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = tiny_model(folder)
        cheats = [measure_cheat(folder, tiny, kind, 7) for kind in kinds(7)]
        cheats += [measure_cheat(folder, small, kind, 16, asks=1) for kind in (*kinds(16),)[1::3]]
        wrong_count = measure_wrong_count(folder, tiny)
        least = min(cheats, key=lambda one: one["found_share"])
        bound = run_campaigns(least["found_share"], given.campaigns)
        ends = end_to_end(folder, tiny, given.sessions)
        whole = measure_whole(folder, tiny, given.whole)
        again = asyncio.run(measure_again(folder, tiny, given.honest - whole["audits"]))
        tolerance = asyncio.run(measure_tolerance(folder, small))
    audits = whole["audits"] + again["audits"]
    excluded = whole["excluded"] + again["differing"]
    figures = {
        "how": {"models": [str(tiny.name), small.name], "windows_of_steps": 4,
                "numerics": "one build of ggml, one processor"},
        "bars": [
            {"bar": "honest nodes excluded, compared within a class", "value": excluded,
             "sense": "at most", "limit": 0,
             "met": excluded == 0 and audits >= given.honest},
            {"bar": "least share of wrong windows that an audit of one class finds",
             "value": min(one["found_share"] for one in cheats), "sense": "at least", "limit": 1.0,
             "met": all(one["found_share"] == 1.0 for one in cheats)},
            {"bar": "sessions whose cheat was replaced later than the bound says for 99 %",
             "value": ends["late"], "sense": "at most, but by a chance of one percent",
             "limit": ends["late_at_most"], "met": ends["late"] <= ends["late_at_most"]},
            {"bar": "wrong count signed", "value": wrong_count["signed"], "sense": "at most",
             "limit": 0, "met": wrong_count["signed"] == 0 and wrong_count["disputes"] > 0},
        ],
        "cheats": cheats, "wrong_count": wrong_count, "bound": bound, "end_to_end": [ends],
        "honest": {"audits": audits, "whole": whole, "again": again}, "tolerance": tolerance,
    }  # fmt: skip
    write_result(given.json_out, "swarm-audit", figures)


if __name__ == "__main__":
    main()
