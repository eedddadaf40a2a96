"""How far clocks are off, ours and those of GuideLLM and AIPerf, where the truth is known.

The server runs in a process of its own on core 0, whoever measures on core 1 (all processes of a
peer; it inherits the core). For each concurrency: ours, GuideLLM, AIPerf, ours again, so that a
change of the machine does not meet one of them alone. Each asks for the same schedule, ``MODEL``:
16 tokens, the first after 50 ms, one each 10 ms. A request takes 0.2 s, so that 700 of them one
after another take two minutes and a half; shorter ones would measure connecting, not streaming.
Before each part ``concurrency + 10`` requests are sent that do not count: nobody starts cold.
What the errors are: ``samples.py``. How the peers are run: ``peers.py``.

Then two faults, few requests each: a stream without its final event, and 1.5 s of silence in the
middle. What does each tool call a success, and what do its figures show?

    python benchmarks/clock.py [--no-peers] [--requests 700] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from peers import PEERS, Load, PeerError
from samples import Sample, describe_errors, describe_outcome, drop_warmup, read_truth

from results import write_result
from shoestring.analysis.metrics import request_gaps_s, timings
from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Patience, Prompt
from shoestring.engines.transport import Cancellation
from shoestring.measure.loop import Ask, Stop, closed_loop
from shoestring.measure.prompting import PromptText
from shoestring.measure.rows import describe_generation
from shoestring.measure.schedule import Planned
from shoestring.truth.process import running_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.protocol import Generation

    Measure = Callable[[Load, Path], list[Sample]]

MODEL = "truth-ttft50-itl10-n16"
FAULTS = {"no final event": f"{MODEL}+nofinal", "1.5 s of silence": f"{MODEL}+stall8:1500"}
FAULT_REQUESTS = 20
FAULT_CONCURRENCY = 4
SERVER_CORE, CLIENT_CORE = 0, 1
WARMUP_REQUESTS = 10
OURS = "shoestring"
FIRST_CHUNK_BARS_S = {"median": 0.0003, "p99": 0.001}
GAP_P99_BARS_S = {1: 0.0003, 8: 0.0008, 32: 0.0015}


def main() -> None:
    """Measure, write the JSON, print the table."""
    arguments = argparse.ArgumentParser(description="How far the clocks of clients are off.")
    arguments.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    arguments.add_argument("--requests", type=int, default=700, help="a client and concurrency")
    arguments.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    arguments.add_argument("--json-out", type=Path, default=Path("results/benchmarks/clock.json"))
    given = arguments.parse_args()
    tools, versions, missing = install_peers() if given.peers else ({}, {}, {})
    cores = pin_client()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "truth.jsonl"
        with running_server(cpu=cores["server"], log=log) as server:
            levels = [
                measure_level(Load(server.base_url, MODEL, given.requests, concurrency), tools, log)
                for concurrency in given.concurrency
            ]
            faults = {name: measure_fault(server.base_url, model, tools)
                      for name, model in FAULTS.items()}  # fmt: skip
    figures = {
        "unit": "seconds",
        "how": {
            "model": MODEL, "requests": given.requests, "cores": cores,
            "order": "ours (half), each peer, ours (half)",
            "warmup_requests": f"concurrency + {WARMUP_REQUESTS} before each part, not counted",
            "p99": "null below 662 samples",
        },
        "peers": {"versions": versions, "missing": missing,
                  "no_single_chunks": {p.name: p.no_chunks for p in PEERS if p.no_chunks}},
        "levels": levels, "bars": judge(levels), "faults": faults,
    }  # fmt: skip
    write_result(given.json_out, "clock", figures)
    print(table(figures))


def install_peers() -> tuple[dict[str, Measure], dict[str, str], dict[str, str]]:
    """Return the peers that could be had, their versions, and why others could not."""
    tools: dict[str, Measure] = {}
    versions, missing = {}, {}
    for peer in PEERS:
        note(f"installing {peer.name}, once")
        try:
            versions[peer.name] = peer.install()
            tools[peer.name] = peer.measure
        except (PeerError, OSError) as error:
            missing[peer.name] = str(error)
            note(f"{peer.name} is left out: {error}")
    return tools, versions, missing


def pin_client() -> dict[str, int | None]:
    """Keep this process and its children on a core of their own, where there are two."""
    if not hasattr(os, "sched_setaffinity"):
        note("not pinned: this system cannot tie a process to a core")
        return {"server": None, "client": None}
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        note(f"not pinned: cores {SERVER_CORE} and {CLIENT_CORE} are not both to be had")
        return {"server": None, "client": None}
    os.sched_setaffinity(0, {CLIENT_CORE})
    return {"server": SERVER_CORE, "client": CLIENT_CORE}


def measure_level(load: Load, tools: dict[str, Measure], log: Path) -> dict[str, Any]:
    """Let everyone send the load, and reduce what each reports to its errors."""
    warmup = load.concurrency + WARMUP_REQUESTS
    half = load.requests // 2
    parts = [(OURS, measure_ours, half), *((n, m, load.requests) for n, m in tools.items()),
             (OURS, measure_ours, load.requests - half)]  # fmt: skip
    counted: dict[str, list[Sample]] = {}
    failed: dict[str, str] = {}
    loads = []
    for name, measure, requests in parts:
        note(f"concurrency {load.concurrency}: {name}, {requests} requests")
        loads.append([name, round(os.getloadavg()[0], 2)])
        asked = Load(load.base_url, load.model, requests + warmup, load.concurrency)
        try:
            samples = take(measure, asked)
        except PeerError as error:
            failed[name] = str(error)
            note(f"{name} is left out: {error}")
            continue
        counted.setdefault(name, []).extend(drop_warmup(samples, warmup))
    truth = read_truth(log)
    errors = {name: describe_errors(samples, truth) for name, samples in counted.items()}
    return {"concurrency": load.concurrency, "load_average_1min": loads, "errors": errors,
            "failed": failed}  # fmt: skip


def measure_fault(base_url: str, model: str, tools: dict[str, Measure]) -> dict[str, Any]:
    """Let everyone meet a misbehaving stream."""
    load = Load(base_url, model, FAULT_REQUESTS, FAULT_CONCURRENCY)
    found: dict[str, Any] = {}
    for name, measure in {OURS: measure_ours, **tools}.items():
        note(f"{model}: {name}")
        try:
            found[name] = describe_outcome(take(measure, load))
        except PeerError as error:
            found[name] = None
            note(f"{name} is left out: {error}")
    return {"model": model, "tools": found}


def take(measure: Measure, load: Load) -> list[Sample]:
    """Measure with a folder for whatever the client writes."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(load, Path(folder))


def measure_ours(load: Load, _: Path) -> list[Sample]:
    """Send the load as a run of shoestring does, and report what its metrics report."""
    engine = OpenAIEngine(load.base_url, load.model, api_key="")
    text = PromptText("now", None)
    asks = [
        Ask(Planned(f"k{number}", 0, "clock", load.concurrency), Prompt(text.text, 100_000), text)
        for number in range(load.requests)
    ]
    cancellation = Cancellation()
    stop = Stop(cancellation)
    patience = Patience(stall_s=10.0, request_s=60.0)
    answers = closed_loop(engine, asks, load.concurrency, patience, stop, cancellation)
    with closing(answers):
        generations = [answer.recording.read() for answer in answers]
    return [read_generation(generation) for generation in generations]


def read_generation(generation: Generation) -> Sample:
    """Return what our metrics say of a request; a failed one has no latencies."""
    gaps_s = request_gaps_s(describe_generation(generation, generation.intended_ns))
    failure = generation.failure
    return Sample(
        received_ns=generation.truth[0]["received_ns"] if generation.truth else None,
        failure=failure.reason if failure else None,
        ttft_s=timings(generation).ttft_s,
        mean_itl_s=mean(gaps_s) if gaps_s else None,
        arrivals_ns=tuple(event.t_ns for event in generation.events if event.kind == "answer"),
    )


def judge(levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say for each bar whether it was met; null where there is no figure to judge by."""
    bars = []
    for level in levels:
        concurrency, errors = level["concurrency"], level["errors"]
        ours = errors[OURS]
        for part, limit_s in FIRST_CHUNK_BARS_S.items():
            bars.append(bar(f"first chunk {part}", concurrency, ours["first_chunk_error_s"][part],
                            limit_s))  # fmt: skip
        if concurrency in GAP_P99_BARS_S:
            bars.append(bar("gap p99", concurrency, ours["gap_error_s"]["p99"],
                            GAP_P99_BARS_S[concurrency]))  # fmt: skip
        for name, theirs in errors.items():
            if name != OURS:
                bars.append(bar(f"TTFT median nearer to truth than {name}", concurrency,
                                abs(ours["ttft_error_s"]["median"]),
                                abs(theirs["ttft_error_s"]["median"])))  # fmt: skip
    return bars


def bar(name: str, concurrency: int, value_s: float | None, limit_s: float) -> dict[str, Any]:
    """Return one bar with its verdict."""
    met = None if value_s is None else value_s <= limit_s
    return {"bar": name, "concurrency": concurrency, "value_s": value_s, "limit_s": limit_s,
            "met": met}  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """Return the figures for people, in milliseconds."""
    lines = [
        "",
        f"{'errors in ms':34}{'first chunk':>15}{'gaps':>17}{'TTFT':>24}",
        f"{'':34}" + "".join(
            f"{name:>{width}}" for name, width in
            (("median", 8), ("p99", 7), ("p99", 10), ("max", 7), ("median", 10), ("p99", 7),
             ("max", 7))
        ),
    ]  # fmt: skip
    for level in figures["levels"]:
        for name, errors in level["errors"].items():
            first, gap, ttft = (errors[key] or {} for key in
                                ("first_chunk_error_s", "gap_error_s", "ttft_error_s"))  # fmt: skip
            about = f"c={level['concurrency']:<3} {name} ({errors['requests']})"
            lines.append(
                f"{about:34}{ms(first.get('median')):>8}{ms(first.get('p99')):>7}"
                f"{ms(gap.get('p99')):>10}{ms(gap.get('max')):>7}"
                f"{ms(ttft['median']):>10}{ms(ttft['p99']):>7}{ms(ttft['max']):>7}"
            )
    for name, fault in figures["faults"].items():
        lines += ["", f"{name} ({fault['model']})"]
        lines += [f"  {tool}: {outcome(found)}" for tool, found in fault["tools"].items()]
    lines += ["", "bars"]
    words = {True: "met", False: "MISSED", None: "no figure"}
    lines += [f"  c={b['concurrency']:<3} {b['bar']}: {ms(b['value_s'])} of {ms(b['limit_s'])} ms, "
              f"{words[b['met']]}" for b in figures["bars"]]  # fmt: skip
    return "\n".join(lines)


def outcome(found: dict[str, Any] | None) -> str:
    """Say in a line what a tool made of a fault."""
    if found is None:
        return "did not run"
    failures = ", ".join(f"{count} {reason}" for reason, count in found["failures"].items())
    return (f"{found['called_success']} of {found['requests']} called a success"
            f"{f' ({failures})' if failures else ''}; mean ITL {ms(found['mean_itl_s'])} ms; "
            f"longest gap in its record {ms(found['longest_gap_in_record_s'])} ms")  # fmt: skip


def ms(value_s: float | None) -> str:
    """Format seconds as milliseconds; a dash where there is no figure."""
    return "-" if value_s is None else f"{value_s * 1e3:.2f}"


def note(line: str) -> None:
    """Say what goes on, on stderr."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
