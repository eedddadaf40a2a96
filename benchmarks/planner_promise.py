"""Does what the planner promises to fit really run in that memory, and not in much less?

Each model is planned for RAM alone. A control group gets as much memory as the plan asks a machine
to have free, its margin included; llama-server is started in it by the plan's own launch line, and
is asked for an answer to a prompt of 600 tokens. Once more with half of that: where weights are
rearranged that cannot do; mapped weights alone can be read again and again. The kernel's own
counters say how near it came.

It needs the right to make a control group (root), and no swap.

    python benchmarks/planner_promise.py [--models FOLDER] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner_cases import SPARE_TOKENS, Case
from planner_memory import bring_model
from planner_truth import request

from results import write_result
from shoestring.engines.discovery import find_program
from shoestring.engines.llama_server import server_words
from shoestring.errors import EngineLostError
from shoestring.hardware.cgroups import groups
from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.row import MARGIN
from shoestring.plan.speed_constants import load_constants
from shoestring.report.planning import offload_of
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoestring.plan.planner import Plan

SHAPES = (
    "tinyllama-1.1b:q4_k_m", "llama-3.2-1b:q4_k_m", "llama-3.2-1b:q8_0", "qwen2.5-1.5b:q4_k_m",
    "gemma-3-1b:q4_0", "phi-3-mini/8:q4_k_m", "mixtral-8x7b/2:q4_k_m", "qwen3-0.6b:f16",
)  # fmt: skip
CONTEXT = 1024
SHARES = {"promised": 1.0, "half": 0.5}
FILES = (
    ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),  # version 1
    ("memory.max", "memory.peak"),
)
LIMIT_S = 300.0


def main() -> None:
    """Try each model in what it was promised, and in half of it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", type=Path)
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/planner-promise.json")
    )
    given = arguments.parse_args()
    if find_program("llama-server") is None:
        arguments.error("llama-server is missing: make engines")
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        plan = plan_in_ram(shape)
        promised = int(sum(placed.total_bytes for placed in plan.placed) / (1 - MARGIN))
        with bring_model(f"shape:{shape}", given.models) as path:
            tried = {name: run_in(plan, path, int(promised * share))
                     for name, share in SHARES.items()}  # fmt: skip
        rows.append({"shape": shape, "promised_bytes": promised,
                     "peak_without_limit_bytes": plan.demand.resident_bytes, **tried})  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    kept = sum(row["promised"]["answered"] for row in rows)
    figures = {
        "context": CONTEXT, "margin": MARGIN, "plans": len(rows), "plans_kept": kept,
        "half_answered": sum(row["half"]["answered"] for row in rows), "rows": rows,
    }  # fmt: skip
    write_result(given.json_out, "planner-promise", figures)
    print(f"{'met' if kept == len(rows) else 'missed'}: {kept} of {len(rows)} plans kept")


def plan_in_ram(shape: str) -> Plan:
    """Plan a model for RAM alone, as much as it likes."""
    asked = Ask(
        model=f"shape:{shape}",
        outline=outline_of_shape(shape),
        settings=Settings(context=CONTEXT),
        devices=parse_devices(["ram:64GiB:20GB/s"]),
    )
    return make_plan(asked, load_constants())


def run_in(plan: Plan, path: Path, limit_bytes: int) -> dict[str, Any]:
    """Run a plan's line in a group of so much memory; say whether it answered, and the peak."""
    case = Case(plan.ask.model, CONTEXT, 1, "f16", "f16", flash_attention=True)
    forget(path)
    with limited(limit_bytes) as (group, peak):
        begun_s = time.monotonic()
        failure = ask_server(plan, case, path, group)
        return {
            "limit_bytes": limit_bytes,
            "answered": failure is None,
            "failure": failure,
            "seconds": time.monotonic() - begun_s,
            "peak_bytes": int(peak.read_text()),
        }


def forget(path: Path) -> None:
    """Let the file leave memory: its pages count for whoever brings them in, and that was us."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ask_server(plan: Plan, case: Case, path: Path, group: Path) -> str | None:
    """Start the plan's line in a group and ask once; return what went wrong, or None."""
    import requests

    program = find_program("llama-server")

    def command(port: int) -> list[str]:
        words = server_words(
            str(program), str(path), port, context=CONTEXT, parallel=1, offload=offload_of(plan)
        )
        # The server has to be in the group before its first page.
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *words]

    with tempfile.TemporaryDirectory() as folder:
        try:
            log = Path(folder) / "log"
            with live_server(command, log_path=log, limit_s=LIMIT_S) as server:
                server.complete(request(case) | {"n_predict": SPARE_TOKENS // 2})
        except (EngineLostError, requests.RequestException) as error:
            return type(error).__name__ + ": " + str(error).split(";")[0]
    return None


@contextmanager
def limited(limit_bytes: int) -> Iterator[tuple[Path, Path]]:
    """Make a control group with a limit; yield it, and the file of its peak.

    Raises:
        SystemExit: no group can be made here.
    """
    for parent in groups(Path("/"), "memory"):
        for limit, peak in FILES:
            if not (parent / limit).exists():
                continue
            group = parent / "planner-promise"
            try:
                group.mkdir()
                (group / limit).write_text(str(limit_bytes))
            except OSError as error:
                raise SystemExit(f"{group}: no control group can be made here: {error}") from error
            try:
                yield group, group / peak
            finally:
                group.rmdir()
            return
    raise SystemExit("this system has no control groups for memory")


if __name__ == "__main__":
    main()
