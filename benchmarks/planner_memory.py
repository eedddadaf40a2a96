"""How far is predicted memory from what llama-server really holds: ours, and two peers'.

For each case of `planner_cases.py` the model is made, served, and asked once. The truth is

    reserved   the sum of the buffers that llama-server names in its log (--verbosity 4)
    resident   the peak of its resident set, VmHWM in /proc/PID/status, after the one request;
               taken again where the system took mapped weights back meanwhile

and beside it stand what llama-fit-params prints for the host, and what gguf-parser-go estimates
(`gguf_parser/`, built here).
A case that was measured with the same flags and program is not measured again.

    python benchmarks/planner_memory.py [--only TEXT] [--again] [--truth-only]
        [--models FOLDER] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from planner_cases import ANSWER_TOKENS, HELD_OUT, SEEN, Case
from planner_truth import (
    ENVIRONMENT,
    SERVER_FLAGS,
    ask_fit_params,
    ask_parser,
    build_parser,
    list_flags,
    measure,
    taken_back_bytes,
)

from results import write_result
from shoestring.engines.discovery import find_program
from shoestring.engines.install.answers import ask
from shoestring.errors import EngineLostError
from shoestring.hardware.cores import usable_cores
from shoestring.hardware.platforms import read_text
from shoestring.models.downloads import write_whole
from shoestring.models.fetch import resolve_model
from shoestring.models.header import read_header
from shoestring.models.outline import outline_of_header, outline_of_shape
from shoestring.models.shape_files import find_shape
from shoestring.models.synthesis import describe_shape
from shoestring.paths import cache_dir
from shoestring.plan.memory import Settings, describe_demand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "planner-memory"
OURS, FIT_PARAMS, PARSER = "shoestring", "llama-fit-params", "gguf-parser-go"
TRUTHS = ("reserved_bytes", "resident_bytes")
BARS = {"median_error": 0.02, "worst_error": 0.06}
"""What our errors may be at most."""
MARGIN = 0.03
"""A plan leaves so much free: what is off by more would have failed on a machine just as large."""
TRIES = 3
WIDE, WIDTH = 62, 16
"""Of the table's first column, and of one for each tool."""
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def main() -> None:
    """Measure what is not measured yet, predict, compare, and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds it")
    arguments.add_argument("--again", action="store_true", help="measure what is there already")
    arguments.add_argument(
        "--truth-only",
        action="store_true",
        help="without our predictions, and without the cases held out",
    )
    arguments.add_argument("--models", type=Path, metavar="FOLDER", help="keep what is made here")
    arguments.add_argument("--json-out", type=Path, default=Path(f"results/benchmarks/{NAME}.json"))
    given = arguments.parse_args()
    if (program := find_program("llama-server")) is None:
        arguments.error("llama-server is missing: make engines")
    cases = SEEN if given.truth_only else SEEN + HELD_OUT
    wanted = [case for case in cases if given.only in str(case)]
    if not wanted:
        arguments.error(f"--only {given.only}: no case has this in its name")
    version = next(
        (line for line in ask(str(program), "--version").lines if "version" in line), None
    )
    rows = read_rows(given.json_out, version)
    todo = [case for case in wanted if given.again or str(case) not in rows]
    given.json_out.parent.mkdir(parents=True, exist_ok=True)
    for case, row in measure_all(todo, program, given.models) if todo else ():
        rows[str(case)] = row | {"how": describe(case, version)}
        write_whole(given.json_out, json.dumps({"benchmark": NAME, "cases": [*rows.values()]}))
        print(f"{len(rows)} {case}: {tell(row)}", file=sys.stderr, flush=True)
    if not given.truth_only:
        for row in rows.values():
            row["predicted"][OURS] = predict(Case(**row["case"]))
    rows = {name: rows[name] for name in map(str, SEEN + HELD_OUT) if name in rows}
    figures = judge_all(rows)
    write_result(given.json_out, NAME, {**figures, "cases": [*rows.values()]})
    print_table(rows, figures["tools"])
    print_sums("held out", figures["held_out"])


def judge_all(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Sum up all rows, and those apart on which nobody made a formula."""
    return {
        "bars": BARS,
        "margin": MARGIN,
        "server_environment": ENVIRONMENT,
        "transparent_huge_pages": read_text(PAGES),
        "tools": judge(rows.values()),
        "held_out": judge(rows[name] for name in map(str, HELD_OUT) if name in rows),
        "not_measured": [name for name, row in rows.items() if row["failure"]],
    }


def tell(row: dict[str, Any]) -> str:
    """Say in a few words what was measured of a case, or why nothing."""
    if row["truth"] is None:
        return str(row["failure"])
    sizes = (f"{row['truth'][truth] >> 20} MiB {truth.split('_')[0]}" for truth in TRUTHS)
    return ", ".join(sizes)


def read_rows(path: Path, version: str | None) -> dict[str, dict[str, Any]]:
    """Return what a file holds of these cases, measured by the same program in the same way."""
    text = read_text(path)
    rows = [] if text is None else json.loads(text)["cases"]
    sound = [row for row in rows if row["truth"] and not taken_back_bytes(row["truth"])]
    found = {str(Case(**row["case"])): row for row in sound}
    return {
        name: found[name]
        for name, case in ((str(case), case) for case in SEEN + HELD_OUT)
        if name in found and found[name]["how"] == describe(case, version)
    }


def describe(case: Case, version: str | None) -> dict[str, Any]:
    """Say how a case is measured."""
    return {
        "program": version,
        "flags": " ".join([*list_flags(case), *SERVER_FLAGS]),
        "prompt_tokens": case.prompt_tokens,
        "answer_tokens": ANSWER_TOKENS,
    }


def measure_all(
    cases: Iterable[Case], program: Path, models: Path | None
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Measure cases, and ask the peers; one model is made at a time.

    Args:
        cases: those of one model one after the other.
        program: of llama-server.
        models: the folder in which models are kept; None: they go, unless they were in the cache.
    """
    fit_params = find_program(FIT_PARAMS)
    with tempfile.TemporaryDirectory() as folder:
        parser, reason = build_parser(Path(folder))
        for name, group in groupby(cases, key=lambda case: case.model):
            with bring_model(name, models) as model:
                for case in group:
                    parsed = ask_parser(parser, case, model) if parser else {"reason": reason}
                    said = {FIT_PARAMS: ask_fit_params(fit_params, case, model), PARSER: parsed}
                    yield case, measure_one(case, program, model) | {"predicted": said}


def measure_one(case: Case, program: Path, model: Path) -> dict[str, Any]:
    """Measure a case, again where its memory was taken from it; a failing server is a result."""
    import requests

    row: dict[str, Any] = {"case": asdict(case)}
    try:
        for _ in range(TRIES):
            truth = measure(case, program, model)
            if not (taken := taken_back_bytes(truth)):
                return row | {"truth": truth, "failure": None}
    except (EngineLostError, requests.RequestException) as error:
        return row | {"truth": None, "failure": str(error)}
    return row | {"truth": None, "failure": f"{taken} bytes of it were taken back by the system"}


@contextmanager
def bring_model(name: str, models: Path | None) -> Iterator[Path]:
    """Make or find a model; what was made goes again, unless there is a folder to keep it in."""
    scheme, _, rest = name.partition(":")
    kept = models or cache_dir()
    if models or scheme != "shape" or find_shape(rest, describe_shape(rest), kept):
        yield resolve_model(name, cache=kept).path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield resolve_model(name, cache=Path(folder)).path


def predict(case: Case) -> dict[str, Any]:
    """Say what our planner expects of a case; a real model's header is read."""
    scheme, _, rest = case.model.partition(":")
    if scheme == "shape":
        outline = outline_of_shape(rest)
    else:
        outline = outline_of_header(read_header(resolve_model(case.model, cache=cache_dir()).path))
    settings = asdict(case) | {
        "threads": usable_cores(),
        "filled": case.prompt_tokens + ANSWER_TOKENS,
    }
    del settings["model"]
    demand = describe_demand(outline, Settings(**settings))
    return {truth: getattr(demand, truth) for truth in TRUTHS}


def judge(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum up how far each tool's predictions are from both truths."""
    compared = [
        {tool: compare(row["truth"], said) for tool, said in row["predicted"].items()}
        for row in rows
        if row["truth"] is not None
    ]
    return {
        tool: {
            truth: sum_up([row[tool][truth] for row in compared if tool in row]) for truth in TRUTHS
        }
        for tool in (OURS, FIT_PARAMS, PARSER)
    }


def compare(held: dict[str, Any], said: dict[str, Any]) -> dict[str, float | None]:
    """Return the error of one tool's prediction against each truth, as a share of the truth."""
    return {truth: said[truth] / held[truth] - 1 if truth in said else None for truth in TRUTHS}


def sum_up(found: Iterable[float | None]) -> dict[str, Any]:
    """Return how many predictions there are, how far off, and how many promised too much room."""
    errors = [error for error in found if error is not None]
    if not errors:
        return {"cases": 0, "median_error": None, "worst_error": None, "plans_that_failed": None}
    return {
        "cases": len(errors),
        "median_error": median(map(abs, errors)),
        "worst_error": max(errors, key=abs),
        "plans_that_failed": sum((1 + error) * (1 + MARGIN) < 1 for error in errors),
    }


def is_met(ours: dict[str, Any]) -> bool:
    """Whether our errors keep to the bars."""
    return ours["cases"] > 0 and all(abs(ours[figure]) <= most for figure, most in BARS.items())


def print_table(rows: dict[str, dict[str, Any]], tools: dict[str, Any]) -> None:
    """Print each case's truths in MiB and each tool's errors, and what it comes to."""
    for truth in TRUTHS:
        print(f"\n{truth:{WIDE}} {'MiB':>7} {' '.join(f'{tool:>{WIDTH}}' for tool in tools)}")
        for name, row in rows.items():
            if (held := row["truth"]) is not None:
                errors = [compare(held, row["predicted"].get(tool, {}))[truth] for tool in tools]
                print(f"{name:{WIDE}} {held[truth] / 2**20:7.0f} {' '.join(map(_percent, errors))}")
    print_sums("all", tools)


def print_sums(which: str, tools: dict[str, Any]) -> None:
    """Print what the errors come to."""
    for truth in TRUTHS:
        for figure in BARS:
            errors = [_percent(tools[tool][truth][figure]) for tool in tools]
            print(f"{f'{which}, {truth}: {figure}':{WIDE}} {'':7} {' '.join(errors)}")
        failed = [f"{tools[tool][truth]['plans_that_failed']!s:>{WIDTH}}" for tool in tools]
        print(f"{f'{which}, {truth}: plans_that_failed':{WIDE}} {'':7} {' '.join(failed)}")
        print("met" if is_met(tools[OURS][truth]) else "missed", f"{which}, {truth}: {BARS}")


def _percent(share: float | None) -> str:
    return f"{'-':>{WIDTH}}" if share is None else f"{share:>{WIDTH}.1%}"


if __name__ == "__main__":
    main()
