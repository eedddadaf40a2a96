"""What the harness costs, and whether its figures agree with the engine's own.

- ``shoestring --help``: wall and processor time of the whole process, median of several.
- telemetry: processor time of the sampler's thread at 10 Hz, as a share of one core, while the
  engine works.
- decode rate: ours, (n - 1)/(last - first) on the client's clock, over the engine's own by the same
  formula, a request; median and extremes of the ratio.

    python benchmarks/costs.py [--run RUN] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.analysis.metrics import request_metrics
from shoestring.measure.records import read_run
from shoestring.measure.runner import run_suite

if TYPE_CHECKING:
    from shoestring.measure.records import Run

HELP_RUNS = 21


def main() -> None:
    """Measure all three and write them."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=65)
    arguments.add_argument("--run", type=Path, help="use this finished run of the engine")
    arguments.add_argument("--json-out", type=Path, default=Path("results/benchmarks/costs.json"))
    given = arguments.parse_args()
    if given.run is not None:
        run = read_run(given.run)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = run_suite("smoke", model="pypi:gemma3-270m", out=folder, requests=given.requests)
    figures = {
        "run_id": run.run_id,
        "help": help_time(),
        "telemetry": telemetry_cost(run),
        "decode": decode_ratio(run),
    }
    write_result(given.json_out, "costs", figures)


def help_time() -> dict[str, float]:
    """Time ``shoestring --help`` as a user sees it: a new process each time."""
    program = str(Path(sys.executable).parent / "shoestring")
    walls_s, cpus_s = [], []
    for _ in range(HELP_RUNS):
        before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([program, "--help"], check=True, capture_output=True)
        walls_s.append(time.perf_counter() - begun_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"runs": HELP_RUNS, "wall_s": median(walls_s), "wall_max_s": max(walls_s),
            "cpu_s": median(cpus_s)}  # fmt: skip


def telemetry_cost(run: Run) -> dict[str, Any]:
    """Return the sampler's share of one core over the run."""
    cpu_s = run.sessions[0]["telemetry"]["cpu_s"]
    span_s = (run.telemetry[-1]["t_ns"] - run.telemetry[0]["t_ns"]) / 1e9
    return {"samples": len(run.telemetry), "span_s": span_s, "cpu_s": cpu_s,
            "share_of_a_core": cpu_s / span_s}  # fmt: skip


def decode_ratio(run: Run) -> dict[str, Any]:
    """Compare our decode rate with the engine's own, request by request."""
    ratios = []
    for row in run.measured:
        metrics = request_metrics(row)
        ours, theirs = metrics.decode_tokens_per_s, metrics.native_decode_tokens_per_s
        if ours is not None and theirs is not None:
            ratios.append(ours / theirs)
    return {"requests": len(ratios), "ratio_median": median(ratios), "ratio_min": min(ratios),
            "ratio_max": max(ratios)}  # fmt: skip


if __name__ == "__main__":
    main()
