"""SIGKILLs of a node's parts while it is measured: does nothing get lost, and is it back at once?

Each round starts a run against the node, kills one of Ollama, its runner, Open WebUI, the kernel of
a notebook that measures, and the whole session, at a random moment, brings the node back with
``shoestring up``, and resumes the run until it is complete. Then:

- the run has exactly the requests of an undisturbed one, each once; a failed one has its reason;
- the node answers again, in Ollama and in Open WebUI; the seconds from the kill until then;
- sign-up is refused, as is a chat of somebody unknown (``up`` sees to the latter).

    python benchmarks/node_faults.py [--rounds 20] [--seed 1] [--kinds KIND ...] [--minutes M]
                                     [--out FOLDER]

The status is 1 where a round is not as it should be. The bar of 60 s is judged, and has no part in
the status.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from results import write_result
from shoestring.errors import ShoestringError
from shoestring.testing.node_process import Place, bring_up, take_down
from shoestring.testing.node_rounds import (
    KINDS,
    ids_of_an_undisturbed_run,
    left_over,
    one_round,
    order,
    what_is_wrong,
)

BAR_S = 60.0


def main() -> int:
    """Make all rounds and write what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments.add_argument("--minutes", type=float, default=math.inf, help="begin no round later")
    arguments.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    given = arguments.parse_args()
    if given.rounds < 1:
        arguments.error(f"--rounds {given.rounds}: at least 1")
    latest_s = time.monotonic() + 60 * given.minutes
    rng = random.Random(given.seed)
    names = order(given.rounds, given.kinds, rng)
    rounds: list[dict[str, Any]] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place = Place(folder / "state")
        try:
            model = bring_up(place).model
            undisturbed = ids_of_an_undisturbed_run(folder, model, place)
            for number, name in enumerate(names, start=1):
                if time.monotonic() > latest_s:
                    break
                out = folder / f"round-{number}"
                rounds.append(one_round(name, out, model, place, undisturbed, rng))
                print(number, name, rounds[-1], flush=True)
        except ShoestringError as error:
            if not rounds:
                raise SystemExit(str(error)) from error
            broken = [f"round {len(rounds) + 1}: {error}"]  # the rounds before it still count
        finally:
            take_down(place)
        left = left_over(place)
    wrong = [f"{left} processes were left over"] * bool(left) + broken
    wrong += [f"round {n}, {one['kind']}: {what}" for n, one in enumerate(rounds, start=1)
              for what in what_is_wrong(one)]  # fmt: skip
    figures = {
        "seed": given.seed, "rounds_wanted": given.rounds, "model": model, "wrong": wrong,
        "left_over": left, "bar_s": BAR_S,
        "within_bar": sum(one["ready_s"] <= BAR_S for one in rounds),
        "ready_s": ready_by_kind(rounds), "rounds": rounds,
    }  # fmt: skip
    write_result(given.out / "node-faults.json", "node-faults", figures)
    late = len(rounds) - figures["within_bar"]
    print(f"== {'; '.join(wrong) or 'clean'}; ready later than {BAR_S:g} s: {late}", flush=True)
    return 1 if wrong else 0


def ready_by_kind(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each kind how often it was killed, and the seconds until the node answered."""
    found = {}
    for name in dict.fromkeys(one["kind"] for one in rounds):
        times_s = [one["ready_s"] for one in rounds if one["kind"] == name]
        found[name] = {"rounds": len(times_s), "median": median(times_s), "max": max(times_s)}
    return found


if __name__ == "__main__":
    sys.exit(main())
