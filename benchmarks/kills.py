"""Ten SIGKILLs at random moments of a 40-request suite, resumed: exactly the 40 rows?

The harness is killed as the kernel kills when memory runs out: at once, wherever it is. Every other
kill comes at a moment counted from the start (start-up, calibration, the engine's load), the others
at one counted from the session's first row (requests in flight, rows being written). Then it is
started again with ``--resume``, until the run is complete. Counted: rows, rows that stand twice,
rows that are missing, engine processes that outlived their harness. Real engine, real model.

    python benchmarks/kills.py [--kills 10] [--requests 40] [--seed 1] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from results import write_result
from shoestring.measure.records import read_run

LATEST_S = 6.0
"""Kills come at a moment between 0 and this after the start, or after the session's first row."""
POLL_S = 0.05
ORPHAN_WAIT_S = 10.0


def main() -> None:
    """Run the campaign and write its counts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--requests", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--json-out", type=Path, default=Path("results/benchmarks/kills.json"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), given.kills, given.requests, random.Random(given.seed))
    write_result(given.json_out, "kills", {"seed": given.seed, **counts})


def campaign(folder: Path, kills: int, requests: int, rng: random.Random) -> dict[str, Any]:
    """Kill and resume until the run is complete; return what was counted."""
    command = [sys.executable, "-c", "from shoestring.cli import main; main()", "run", "smoke",
               "--requests", str(requests), "--out", str(folder), "--resume"]  # fmt: skip
    killed: list[dict[str, Any]] = []
    orphans = 0
    while len(killed) < kills:
        moment_s = rng.uniform(0.0, LATEST_S)
        before = _count_rows(folder)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
            try:
                while len(killed) % 2 and one.poll() is None and _count_rows(folder) == before:
                    time.sleep(POLL_S)  # rows appear in a file; there is no event to await
                one.wait(moment_s)
                break  # complete before this kill
            except subprocess.TimeoutExpired:
                children = psutil.Process(one.pid).children(recursive=True)
                one.kill()
        _, alive = psutil.wait_procs(children, timeout=ORPHAN_WAIT_S)
        orphans += len(alive)
        since = "first row" if len(killed) % 2 else "start"
        killed.append({"since": since, "moment_s": round(moment_s, 3), "rows": _count_rows(folder)})
        print(
            f"kill {len(killed)} {moment_s:.1f} s after the {since}: {killed[-1]['rows']} rows",
            flush=True,
        )
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    run = read_run(runs[0])
    rows = Counter(row["id"] for row in run.measured)
    planned = {request["id"] for request in run.config["requests"]}
    return {
        "kills": killed,
        "planned": len(planned),
        "rows": sum(rows.values()),
        "twice": sum(count > 1 for count in rows.values()),
        "missing": len(planned - rows.keys()),
        "foreign": len(rows.keys() - planned),
        "failed": sum(row["status"] == "failed" for row in run.measured),
        "runs": len(runs),
        "sessions": len(run.sessions),
        "complete": run.complete,
        "orphans": orphans,
    }


def _count_rows(folder: Path) -> int:
    """Count the measured rows on disk, a torn last line left out."""
    files = list(folder.glob("*/requests.jsonl"))
    lines = files[0].read_bytes().split(b"\n")[:-1] if files else []
    return sum(json.loads(line)["phase"] == "measure" for line in lines)


if __name__ == "__main__":
    main()
