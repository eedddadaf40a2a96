"""Do our figures agree with those of the engines' own tools and clocks, taken in the same minutes?

- ``llama-bench`` (llama.cpp's own benchmark: no server, no sampler, no network) against what we
  measure through ``llama-server``: same file, threads, prompt length and depth of context.
- Ollama's own durations against our clock, by the same formula: decode (n - 1) / time, and
  load + prompt evaluation against TTFT.

Each round asks all of them, in an order that turns from round to round, so a drift of the machine
falls on all alike; both servers stay loaded and idle while the others work. A round gives one ratio
a figure, ours / theirs; given are the median of the rounds and its bootstrap interval. Bars say
which of these have to be 1, and how nearly; the last lines printed say which are met.

    python benchmarks/agreement.py [--rounds 12] [--requests 3] [--model pypi:gemma3-270m]
                                   [--json-out FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.analysis.metrics import timings
from shoestring.analysis.stats import bootstrap_median_ci
from shoestring.engines.discovery import find_program
from shoestring.engines.opening import open_engine
from shoestring.engines.protocol import Prompt
from shoestring.hardware.cores import usable_cores
from shoestring.measure.prompting import make_prompt
from shoestring.measure.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.analysis.metrics import RequestMetrics
    from shoestring.engines.protocol import Engine

SUITE = Path(__file__).with_name("agreement.toml")
BARS = {
    "llama-server prefill / llama-bench prefill": 0.02,
    "llama-server decode / llama-bench decode": 0.02,
    "ollama decode / ollama own decode": 0.01,
    "ollama e2e_s / ollama own total_s": 0.01,
}
"""How far from 1 a median may be. Two tools that ran after each other agree, too, where 1 is in the
interval; two clocks of the same request have no such excuse."""
OTHER_TOOL = "llama-bench"


def main() -> None:
    """Take all rounds and write the ratios."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument(
        "--requests", type=int, default=3, help="of each engine in a round, which takes the median"
    )
    arguments.add_argument("--model", default="pypi:gemma3-270m")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/agreement.json")
    )
    given = arguments.parse_args()
    if min(given.rounds, given.requests) < 1:
        arguments.error("--rounds and --requests: at least 1")
    for program in ("llama-bench", "llama-server", "ollama"):
        if find_program(program) is None:
            arguments.error(f"{program} is missing: make engines")
    (case,) = load_suite(str(SUITE)).cases
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        room = case.prompt_tokens + case.output_tokens + 64
        server, ollama = (
            stack.enter_context(open_engine(given.model, engine=name, context=room))
            for name in ("llama-server", "ollama")
        )
        versions = {"llama-server": server.version(), "ollama": ollama.version()}
        steps: list[Callable[[int], dict[str, float]]] = [
            lambda _number: bench(given.model, case.prompt_tokens, case.output_tokens),
            lambda number: ask(server, "llama-server", case, number, given.requests),
            lambda number: ask(ollama, "ollama", case, number, given.requests),
        ]
        for number in range(given.rounds):
            seen: dict[str, float] = {}
            turn = number % len(steps)
            for step in (*steps[turn:], *steps[:turn]):
                seen |= step(number)
            rounds.append(seen)
            print(number + 1, {name: round(value, 4) for name, value in seen.items()}, flush=True)
    ratios = compare(rounds)
    bars = judge(ratios)
    write_result(
        given.json_out,
        "agreement",
        {"model": given.model, "engines": versions, "prompt_tokens": case.prompt_tokens,
         "output_tokens": case.output_tokens, "requests_a_round": given.requests,
         "bars": bars, "ratios": ratios, "rounds": rounds},
    )  # fmt: skip
    for name, bar in bars.items():
        said = "met" if bar["met"] else "missed"
        print(f"{said:7} {name}: median {ratios[name]['median']}, 95 % {ratios[name]['ci95']}")


def bench(model: str, prompt_tokens: int, output_tokens: int) -> dict[str, float]:
    """Run ``llama-bench`` once: prefill of the prompt, decode behind a prompt of that length."""
    from shoestring.models.fetch import resolve_model
    from shoestring.paths import cache_dir

    program = find_program("llama-bench")
    assert program is not None
    path = resolve_model(model, cache=cache_dir()).path
    said = [
        json.loads(
            subprocess.run(
                [program, "-m", path, "-t", str(usable_cores()), "-r", "1", "-o", "json", *test],
                check=True, capture_output=True,
            ).stdout
        )[0]
        for test in (["-p", str(prompt_tokens), "-n", "0"],
                     ["-p", "0", "-n", str(output_tokens), "-d", str(prompt_tokens)])
    ]  # fmt: skip
    return {"llama-bench prefill": said[0]["avg_ts"], "llama-bench decode": said[1]["avg_ts"]}


def ask(engine: Engine, name: str, case: Any, round_number: int, requests: int) -> dict[str, float]:
    """Ask an engine some times; return medians of our figures and of its own."""
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(requests):
        text = make_prompt(case, f"r{round_number}-{number}", 1, engine.count_tokens).text
        made = engine.generate(Prompt(text, case.output_tokens, fixed_length=True))
        if made.failure is not None:
            raise SystemExit(f"{name}: {made.failure.detail}")
        for figure, value in figures_of(timings(made)).items():
            figures[f"{name} {figure}"].append(value)
    return {figure: median(values) for figure, values in figures.items()}


def figures_of(made: RequestMetrics) -> dict[str, float]:
    """Name the figures that are compared; those that an engine does not tell are left out."""
    load_s, prompt_s = made.native_load_s, made.native_prompt_s
    figures = {
        "prefill": made.prefill_tokens_per_s,
        "decode": made.decode_tokens_per_s,
        "own prefill": made.native_prefill_tokens_per_s,
        "own decode": made.native_decode_tokens_per_s,
        "ttft_s": made.ttft_s,
        "own prompt_s": prompt_s,
        "own load + prompt_s": None if load_s is None or prompt_s is None else load_s + prompt_s,
        "e2e_s": made.e2e_s,
        "own total_s": made.native_total_s,
        "output tokens": made.output_tokens,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def compare(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Return ours / theirs for each pair: median of the rounds, interval, extremes."""
    pairs = [
        ("llama-server prefill", "llama-bench prefill"),
        ("llama-server own prefill", "llama-bench prefill"),
        ("llama-server decode", "llama-bench decode"),
        ("llama-server own decode", "llama-bench decode"),
        ("llama-server decode", "llama-server own decode"),
        ("ollama decode", "ollama own decode"),
        ("ollama ttft_s", "ollama own load + prompt_s"),
        ("ollama e2e_s", "ollama own total_s"),
    ]
    compared = {}
    for ours, theirs in pairs:
        ratios = [seen[ours] / seen[theirs] for seen in rounds if {ours, theirs} <= seen.keys()]
        ci95 = bootstrap_median_ci([[ratio] for ratio in ratios])
        compared[f"{ours} / {theirs}"] = {
            "rounds": len(ratios),
            "median": median(ratios) if ratios else None,
            "ci95": ci95,
            "min": min(ratios, default=None),
            "max": max(ratios, default=None),
            "one_is_inside": None if ci95 is None else ci95[0] <= 1 <= ci95[1],
        }
    return compared


def judge(ratios: dict[str, Any]) -> dict[str, Any]:
    """Say of each bar whether it is met; one that could not be taken is not."""
    bars = {}
    for name, tolerance in BARS.items():
        ratio = ratios[name]
        near = ratio["median"] is not None and abs(ratio["median"] - 1) <= tolerance
        held = OTHER_TOOL in name and ratio["one_is_inside"] is True
        bars[name] = {"tolerance": tolerance, "met": near or held}
    return bars


if __name__ == "__main__":
    main()
