"""Faults, many times over, at random moments: is every row there exactly once, and why not ok?

One campaign for each kind. Whatever ends the harness, it is started again with ``--resume`` until
its runs are complete. Counted over all runs of a campaign: planned requests, rows, rows that stand
twice, that are missing, that nobody planned, failures by their reason, sessions, interruptions
that the harness noted and how many it recovered from, processes that outlived their harness, and
how the harness ended where it did not end well.

    python benchmarks/faults.py [KIND ...] [--kills N] [--requests N] [--seed 1] [--out FOLDER]

The status is 1 where a row was lost or doubled, a run stayed cut, or a process was left over.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults_kills import kill_engine, kill_harness, kill_runner
from faults_surroundings import cut_network, fill_disk, step_clock

from results import write_result

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Kind:
    """One kind of fault: who makes it, and how often by default."""

    make: Callable[[Path, int, int, random.Random], dict[str, Any]]
    times: int


KINDS = {
    "harness": Kind(kill_harness, 30),
    "engine": Kind(kill_engine, 30),
    "runner": Kind(kill_runner, 10),
    "disk": Kind(fill_disk, 10),
    "clock": Kind(step_clock, 20),
    "network": Kind(cut_network, 10),
}


def main() -> int:
    """Run the campaigns and write their counts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    arguments.add_argument("--kills", type=int, help="faults of each kind")
    arguments.add_argument("--requests", type=int, default=60, help="of each run")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    given = arguments.parse_args()
    if unknown := ", ".join(set(given.kinds) - KINDS.keys()):
        arguments.error(f"unknown {unknown}: known are {', '.join(KINDS)}")
    clean = True
    for name in given.kinds or KINDS:
        kind = KINDS[name]
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            counts = kind.make(
                Path(folder), given.kills or kind.times, given.requests, random.Random(given.seed)
            )
        write_result(
            given.out / f"faults-{name}.json", f"faults-{name}", {"seed": given.seed, **counts}
        )
        clean = clean and _is_clean(counts)
    return 0 if clean else 1


def _is_clean(counts: dict[str, Any]) -> bool:
    wrong = [counts[key] for key in ("twice", "missing", "foreign", "orphans")]
    return counts["complete"] and not any(wrong) and counts["rows"] == counts["planned"]


if __name__ == "__main__":
    sys.exit(main())
