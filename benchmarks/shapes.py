"""What a synthetic model costs to make, and whether real engines take it.

For each shape, in an empty cache each time: wall time and peak memory of `shoestring models get`,
as a user runs it. Then llama-server decodes greedily (how many of the tokens differ?), and Ollama
is given the file and asked for as many (it ends an answer that repeats itself early). Each figure
that has a bar is held to it, and printed as met or missed.

    python benchmarks/shapes.py [--shapes llama-3.2-1b:q4_k_m ...] [--times 3] [--json-out FILE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from results import write_result
from shoestring.engines.discovery import find_program
from shoestring.engines.ollama import OllamaEngine
from shoestring.engines.protocol import Patience, Prompt
from shoestring.models.fetch import resolve_model
from shoestring.testing.greedy import CONTEXT, PROMPT, decode_greedily

TOKENS = 300
DISTINCT = 200
"""So many of the tokens have to differ, or greedy decoding has fallen into a loop."""
BARS = {
    "llama-3.2-1b:q4_k_m": {"wall_s": 5.0},
    "llama-3.1-8b:q4_k_m": {"wall_s": 30.0, "peak_rss_bytes": 6e9},
}
"""What making a shape may cost at most."""
PATIENCE = Patience(stall_s=600, request_s=1800)


def main() -> None:
    """Make each shape, have it decoded, and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--shapes", nargs="+", default=list(BARS), metavar="NAME:QUANT")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--json-out", type=Path, default=Path("results/benchmarks/shapes.json"))
    given = arguments.parse_args()
    if given.times < 1:
        arguments.error(f"--times {given.times}: at least 1")
    for program in ("llama-server", "ollama"):
        if find_program(program) is None:
            arguments.error(f"{program} is missing: make engines")
    figures = {}
    for name in given.shapes:
        made = measure(name, given.times)
        figures[name] = {**made, "bars": judge(name, made)}
        print(name, figures[name], flush=True)
    write_result(given.json_out, "shapes", {"tokens_asked": TOKENS, "shapes": figures})
    for name, made in figures.items():
        for what, bar in made["bars"].items():
            print(f"{'met' if bar['met'] else 'missed':7} {name}: {what} {bar}")


def measure(name: str, times: int) -> dict[str, Any]:
    """Make a shape some times; ask both engines for an answer of the last one."""
    made = []
    for number in range(times):
        with tempfile.TemporaryDirectory() as folder:
            made.append(make(name, Path(folder)))
            if number == times - 1:
                asked = ask(name, Path(folder))
    return {
        "made": made,
        "wall_s": median(one["wall_s"] for one in made),
        "peak_rss_bytes": max(one["peak_rss_bytes"] for one in made),
        **asked,
    }


def judge(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Say of each bar of a shape whether it is met; a figure that is missing meets none."""
    bars: dict[str, Any] = {
        figure: {"at_most": limit, "met": made[figure] <= limit}
        for figure, limit in BARS.get(name, {}).items()
    }
    for engine, figure, least in (
        ("llama-server", "distinct", DISTINCT),
        ("llama-server", "tokens", TOKENS),
        ("ollama", "tokens", TOKENS),
    ):
        met = (made[engine][figure] or 0) >= least
        bars[f"{engine} {figure}"] = {"at_least": least, "met": met}
    return bars


def make(name: str, cache: Path) -> dict[str, float]:
    """Run ``shoestring models get`` in an empty cache; return its wall time and peak memory."""
    begun_s = time.perf_counter()
    command = [str(Path(sys.executable).parent / "shoestring"), "models", "get", f"shape:{name}"]
    child = subprocess.Popen(
        command, env=os.environ | {"SHOESTRING_CACHE": str(cache)}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: status {child.returncode}")
    return {
        "wall_s": time.perf_counter() - begun_s,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def ask(name: str, cache: Path) -> dict[str, Any]:
    """Have llama-server and Ollama decode as many tokens greedily."""
    program = find_program("llama-server")
    assert program is not None
    model = resolve_model(f"shape:{name}", cache=cache)
    said = decode_greedily(program, model.path, TOKENS)
    with OllamaEngine(
        model, store=cache / "ollama", endpoint="completions", context=CONTEXT
    ) as ollama:
        answer = ollama.generate(Prompt(PROMPT, TOKENS), patience=PATIENCE)
    return {
        "file_bytes": model.file_bytes,
        "sha256": model.sha256,
        "llama-server": {
            "tokens": len(said["tokens"]),
            "distinct": len(set(said["tokens"])),
            "stop": said["stop_type"],
            "decode_tokens_per_s": said["timings"]["predicted_per_second"],
        },
        "ollama": {
            "tokens": answer.usage.completion_tokens if answer.usage else None,
            "stop": answer.finish_reason,
            "failure": answer.failure.detail if answer.failure else None,
        },
    }


if __name__ == "__main__":
    main()
