"""Faults, many times over, at random moments: is every row there exactly once, and why not ok?

One campaign for each kind. Whatever ends the harness, it is started again with ``--resume`` until
its runs are complete. Counted over all runs of a campaign: planned requests, rows, rows that stand
twice, that are missing, that nobody planned, failures by their reason, sessions, interruptions
that the harness noted and how many it recovered from, processes that outlived their harness, and
how the harness ended where it did not end well, by the reason that the fault explains.

    python benchmarks/faults.py [KIND ...] [--kills N] [--requests N] [--seed 1] [--out FOLDER]

The status is 1 where a campaign is not clean: :func:`what_is_wrong` says what that takes.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults_kills import kill_engine, kill_harness, kill_runner
from faults_surroundings import FULL, cut_network, fill_disk, step_clock

from results import write_result
from shoestring.engines.discovery import MENDS, find_program
from shoestring.errors import ShoestringError

if TYPE_CHECKING:
    from collections.abc import Callable


AWAY, IN_VAIN = "did not come back", "in a row and gave no answer"
"""What the harness says where it gives an engine up: it ends with an interruption not mended."""
UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        make: makes them, and counts.
        times: how often by default.
        needs: a program.
        ends: statuses and words with which the harness may end for it.
        restarts: whether the harness has to start the engine again.
    """

    make: Callable[[Path, int, int, random.Random], dict[str, Any]]
    times: int
    needs: str | None = None
    ends: tuple[tuple[int, str], ...] = ()
    restarts: bool = False


KINDS = {
    "harness": Kind(kill_harness, 30),
    "engine": Kind(
        kill_engine,
        30,
        needs="llama-server",
        ends=((1, "died by signal 9"), (1, IN_VAIN)),  # the first: while it was loaded first
        restarts=True,
    ),
    "runner": Kind(kill_runner, 10, needs="ollama", ends=((2, "Ollama cannot load"),)),
    "disk": Kind(fill_disk, 10, ends=((2, FULL),)),
    "clock": Kind(step_clock, 20, needs="cc"),
    "network": Kind(
        cut_network,
        10,
        needs="ip",
        # The second: it was started again before the mended link carried anything.
        ends=((1, AWAY), (2, "no server answers")),
    ),
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
    if given.kills is not None and given.kills < 1:
        arguments.error(f"--kills {given.kills}: at least 1")
    names = given.kinds or list(KINDS)
    for name in names:
        needed = KINDS[name].needs
        if needed is not None and find_program(needed) is None:
            arguments.error(f"{name} needs {needed}: {MENDS.get(needed, 'put it on PATH')}")
    clean = True
    for name in names:
        kind = KINDS[name]
        times = given.kills or kind.times
        print(f"== {name}: {times} faults, runs of {given.requests} requests", flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                counts = kind.make(Path(folder), times, given.requests, random.Random(given.seed))
        except ShoestringError as error:
            raise SystemExit(f"{name}: {error}") from error
        ends = why_it_ended(kind, counts["ends"])
        wrong = what_is_wrong(kind, counts, ends)
        write_result(
            given.out / f"faults-{name}.json",
            f"faults-{name}",
            {"seed": given.seed, "wrong": wrong, **counts, "ends_by_reason": ends},
        )
        print(f"== {name}: {'; '.join(wrong) or 'clean'}", flush=True)
        clean = clean and not wrong
    return 0 if clean else 1


def why_it_ended(kind: Kind, ends: list[dict[str, Any]]) -> dict[str, int]:
    """Count the ends of the harness by the reason that this kind of fault explains."""
    return Counter(
        next(
            (words for status, words in kind.ends
             if status == end["status"] and words in end["message"]),
            UNEXPLAINED,
        )
        for end in ends
    )  # fmt: skip


def what_is_wrong(kind: Kind, counts: dict[str, Any], ends: dict[str, int]) -> list[str]:
    """Say all that keeps a campaign from being clean; one in which nothing ran is not."""
    given_up = ends.get(AWAY, 0) + ends.get(IN_VAIN, 0)
    holds = {
        "no run": counts["runs"] > 0,
        "nothing was planned": counts["planned"] > 0,
        "rows are not what was planned": counts["rows"] == counts["planned"]
        and not any(counts[key] for key in ("twice", "missing", "foreign")),
        "a run stayed cut": counts["complete"],
        "a process was left over": counts["orphans"] == 0,
        "the harness ended for no reason of the fault's": UNEXPLAINED not in ends,
        "the long cut ended no session": AWAY in counts.get("long_cut", AWAY),
        "an interruption without recovery": counts["interruptions"]
        == counts["recovered"] + given_up,
        "no engine was started again": counts["restarts"] > 0 or not kind.restarts,
    }
    return [what for what, fine in holds.items() if not fine]


if __name__ == "__main__":
    sys.exit(main())
