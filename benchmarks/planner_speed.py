"""How far predicted speeds are off: on published rows, and on this machine after a calibration.

Published rows: each device is left out of the fit in turn, under all its labels; beside it stands a
plain median efficiency of the generation. Sources that no fit uses are predicted as a check.

This machine: every shape is run as a calibration runs it, in turns, so that noise meets them all.
Then each is predicted by a calibration on all others, and those that a calibration does not run by
one on those that it does. Wait until the machine is quiet: two threads on two busy cores lose a
factor. Without --measure the rows of the last time are judged again.

    python benchmarks/planner_speed.py [--measure] [--times 3] [--engine llama-server]
        [--json-out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from results import write_result
from shoestring.measure.speed_trials import CALIBRATION, CONTEXT, SpeedTrial, measure_speed
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.published_speeds import (
    JUDGED_SOURCE,
    judged_rows,
    published_rows,
    samples_of,
)
from shoestring.plan.speed_constants import load_constants
from shoestring.plan.speed_fit import (
    DECODE_NOISE,
    PREFILL_NOISE,
    PRIORS,
    error_of,
    fit_constants,
    leave_out,
)
from shoestring.plan.speed_here import Measured, decode_rows, fit_here, prefill_rows
from shoestring.plan.speed_published import (
    decode_times,
    describe_errors,
    judge_baseline,
    prefill_times,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.plan.published_speeds import Sample

BARS = {
    "decode_median": 0.09, "decode_p90": 0.25, "prefill_median": 0.20, "here_median": 0.08,
    "here_from_calibration_median": 0.08,
}  # fmt: skip
SHAPES = (
    *CALIBRATION, "tinyllama-1.1b/8:q4_k_m", "qwen2.5-0.5b:q8_0", "qwen3-0.6b:q4_0",
    "qwen3-0.6b:f16", "gemma-3-1b:q4_0", "llama-3.2-1b:q5_k_m", "tinyllama-1.1b:q3_k_m",
    "qwen2.5-1.5b:q4_k_m", "tinyllama-1.1b:f16", "qwen3-1.7b:q8_0", "llama-3.2-3b:q4_k_m",
    "qwen2.5-3b:q5_k_m", "phi-3-mini:q4_k_m",
)  # fmt: skip


def main() -> None:
    """Judge, print, and write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--measure", action="store_true")
    arguments.add_argument("--times", type=int, default=3)
    arguments.add_argument("--engine", default="llama-server")
    arguments.add_argument(
        "--json-out", type=Path, default=Path("results/benchmarks/planner-speed.json")
    )
    given = arguments.parse_args()
    here = measure(given.times, given.engine) if given.measure else last_time(given.json_out)
    figures = {"bars": BARS, "published": judge_published(), "other_sources": judge_others()}
    if here is not None:
        figures["here"] = {**here, **judge_here(here["rows"])}
    figures["met"] = judge_bars(figures)
    write_result(given.json_out, "planner-speed", figures)
    for bar, (figure, met) in figures["met"].items():
        shown = "not measured" if figure is None else f"{figure:.1%}"
        print(f"{'met' if met else 'missed':7} {bar}: {shown}, at most {BARS[bar]:.0%}")


def judge_bars(figures: dict[str, Any]) -> dict[str, tuple[float | None, bool]]:
    """Hold the figures against the bars; what was not measured meets none."""
    said, here = figures["published"], figures.get("here")
    found = {
        "decode_median": said["decode"]["median"],
        "decode_p90": said["decode"]["p90"],
        "prefill_median": said["prefill"]["median"],
        "here_median": here and here["decode"]["median"],
        "here_from_calibration_median": here and here["decode_from_calibration"]["median"],
    }
    return {bar: (value, value is not None and value <= BARS[bar]) for bar, value in found.items()}


def judge_published() -> dict[str, Any]:
    """Return the errors on devices that the fit has not seen, in all and by kind."""
    samples = samples_of(judged_rows())
    decode, prefill = decode_times(samples), prefill_times(samples)
    errors = leave_out(decode, PRIORS, DECODE_NOISE)
    prompts = [one for one in samples if one.prefill_s is not None]
    prompt_errors = leave_out(prefill, PRIORS, PREFILL_NOISE)
    label = {id(row): one.label for row, one in zip(decode, samples, strict=True)}
    by_label = leave_out(decode, PRIORS, DECODE_NOISE, lambda row: label[id(row)])
    return {
        "rows": len(samples),
        "devices": len({one.device for one in samples}),
        "labels": len({one.label for one in samples}),
        "decode": describe_errors(errors),
        "decode_by_label": describe_errors(by_label),
        "decode_baseline": describe_errors(judge_baseline(samples, lambda one: one.device)),
        "decode_baseline_by_label": describe_errors(judge_baseline(samples, lambda one: one.label)),
        "prefill": describe_errors(prompt_errors),
        "decode_by_generation": by_generation(samples, errors),
        "prefill_by_generation": by_generation(prompts, prompt_errors),
        "worst": [
            {"device": one.device, "driver": one.chip.driver, "error": error}
            for error, one in sorted(
                zip(errors, samples, strict=True), key=lambda pair: -abs(pair[0])
            )[:12]
        ],
    }


def by_generation(samples: Sequence[Sample], errors: Sequence[float]) -> dict[str, Any]:
    """Return the errors of each driver and generation."""
    kinds: dict[str, list[float]] = defaultdict(list)
    devices: dict[str, set[str]] = defaultdict(set)
    for one, error in zip(samples, errors, strict=True):
        kind = f"{one.chip.driver} {one.chip.generation}"
        kinds[kind].append(error)
        devices[kind].add(one.device)
    return {
        kind: {"devices": len(devices[kind]), **describe_errors(kinds[kind])}
        for kind in sorted(kinds)
    }


def judge_others() -> dict[str, Any]:
    """Return the errors on GPUs of sources that the fit does not use; many are user data."""
    samples = samples_of(judged_rows())
    decode = fit_constants(decode_times(samples), PRIORS, DECODE_NOISE)
    prefill = fit_constants(prefill_times(samples), PRIORS, PREFILL_NOISE)
    by_source: dict[str, list[Any]] = defaultdict(list)
    for row in published_rows():
        if not row["source"].startswith(JUDGED_SOURCE) and "[suspect" not in row["source"]:
            by_source[row["source"].split(" ")[0].split("#")[0].split("@")[0]].append(row)
    found = {}
    for source, rows in sorted(by_source.items()):
        used = samples_of(rows)
        answers = [error_of(row, decode) for row in decode_times(used)]
        prompts = [error_of(row, prefill) for row in prefill_times(used)]
        if answers:
            found[source] = {
                "decode": describe_errors(answers),
                "prefill": describe_errors(prompts) if prompts else None,
            }
    return found


def measure(times: int, engine: str) -> dict[str, Any]:
    """Run every shape in turns, as a calibration does, and keep the best of each."""
    best: dict[str, SpeedTrial] = {}
    loads = []
    for turn in range(times):
        for shape in SHAPES:
            loads.append(os.getloadavg()[0])
            new = measure_speed(shape, engine=engine, say=lambda _: None)
            old = best.get(shape, new)
            best[shape] = replace(
                new,
                decode_tokens_per_s=max(old.decode_tokens_per_s, new.decode_tokens_per_s),
                prefill_tokens_per_s=max(old.prefill_tokens_per_s, new.prefill_tokens_per_s),
            )
            print(turn, best[shape], file=sys.stderr, flush=True)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    rows = [asdict(trial) for trial in best.values()]
    turns = dict.fromkeys(best, times)
    return {"rows": rows, "turns": turns, "day": day, "load_median": median(loads)}


def last_time(path: Path) -> dict[str, Any] | None:
    """Return what was measured here before; None: nothing was."""
    if not path.exists():
        return None
    here = json.loads(path.read_text(encoding="utf-8")).get("here")
    return here and {name: here[name] for name in ("rows", "turns", "day", "load_median")}


def judge_here(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the errors of calibrations on shapes that they were not made of."""
    known = [
        Measured(
            row["shape"],
            outline_of_shape(row["shape"]),
            Settings(context=CONTEXT),
            row["prompt_tokens"],
            row["decode_tokens_per_s"],
            row["prefill_tokens_per_s"],
        )
        for row in rows
    ]
    decode, prefill = {}, {}
    for left in known:
        others = [row for row in known if row is not left]
        decode[left.name], prefill[left.name] = errors_here(others, [left])[left.name]
    from_calibration: dict[str, Any] = {}
    from_calibration |= errors_here(
        [row for row in known if row.name in CALIBRATION],
        [row for row in known if row.name not in CALIBRATION],
    )
    return {
        "shapes": len(known),
        "decode": describe_errors(list(decode.values())),
        "prefill": describe_errors(list(prefill.values())),
        "decode_from_calibration": describe_errors([one for one, _ in from_calibration.values()]),
        "prefill_from_calibration": describe_errors([one for _, one in from_calibration.values()]),
        "errors": {
            name: {
                "decode": decode[name], "prefill": prefill[name],
                "decode_from_calibration": from_calibration.get(name, (None, None))[0],
                "prefill_from_calibration": from_calibration.get(name, (None, None))[1],
            }
            for name in decode
        },
    }  # fmt: skip


def errors_here(
    known: Sequence[Measured], wanted: Sequence[Measured]
) -> dict[str, tuple[float, float]]:
    """Return how far a calibration on some shapes is off on others."""
    fit = fit_here(known, load_constants().processor, "this machine", "today")
    return {
        row.name: (error_of(answer, fit.values), error_of(prompt, fit.values))
        for row, answer, prompt in zip(
            wanted, decode_rows(wanted), prefill_rows(wanted), strict=True
        )
    }


if __name__ == "__main__":
    main()
