"""Measure the feasibility matrix on this machine, and say how far the predictions are off.

Each cell that no run in --runs has settled is run once (``shoestring feasibility --measure``); then
every peak of memory is held against what was predicted for it. Stopped, it goes on where it was.

    python benchmarks/feasibility.py [--models qwen3-8b,...] [--quantisations q4_k_m,...]
        [--contexts 2048,...] [--engine llama-server] [--runs DIR] [--out DIR] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.hardware.machine import describe_machine
from shoestring.plan.machines import machine_of
from shoestring.report.feasibility_campaign import fill_in
from shoestring.report.feasibility_query import ask, read_matrix, write_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.report.feasibility import Cell

BAR = 0.05
"""A prediction of memory may be off by this share of what was measured."""


def main() -> None:
    """Run what is left to do, write the matrix, and judge the predictions."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("--models", "--quantisations", "--contexts"):
        arguments.add_argument(option)
    arguments.add_argument("--engine", default="llama-server")
    arguments.add_argument("--runs", type=Path, default=Path("results/local"))
    arguments.add_argument("--out", type=Path, default=Path("results/feasibility"))
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/feasibility.json")
    )
    given = arguments.parse_args()
    query = ask(given.models, given.quantisations, given.contexts)
    wrong = fill_in(query, given.runs, say, engine=given.engine, hopeless=False)
    places = [given.runs] if given.runs.is_dir() else []
    cells = read_matrix(query, places, say, here=True)
    write_matrix(cells, given.out)
    found = judge(cells)
    write_result(given.json_out, "feasibility", {"bar": BAR, "cells": found, "not_tried": wrong})
    for one in found:
        verdict = "met" if one["met"] else "missed"
        print(
            f"{verdict:7} {one['model']}:{one['quantisation']} {one['context']} {one['error']:+.1%}"
        )
    sys.exit(1 if wrong else 0)


def judge(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Compare prediction and peak of each cell that answered on this machine, once a run."""
    here = machine_of(describe_machine())
    by_run: dict[str, dict[str, Any]] = {}
    for cell in cells:
        plan, said = cell.predicted, cell.measured
        if said is None or plan is None or here is None or cell.machine.name != here.name:
            continue
        predicted, peak = (
            (plan.gpu_bytes, said.vram_peak_bytes)
            if here.gpu_bytes
            else (plan.host_bytes, said.ram_peak_bytes)
        )
        if peak:
            error = predicted / peak - 1
            by_run[said.run_id] = {
                "model": cell.model.shape, "quantisation": cell.quantisation,
                "context": cell.context, "predicted_bytes": predicted, "peak_bytes": peak,
                "error": error, "met": abs(error) <= BAR, "run_id": said.run_id,
            }  # fmt: skip
    return list(by_run.values())


def say(line: str) -> None:
    """Tell on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
