"""How far plans are to be believed: predictions beside what was published and measured.

Speeds are held against published rows, each of a device that was left out of the fit; memory and
this machine's calibration against files of ``results/benchmarks``; the fifth note's rules against
the same rows as ours.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadRunError
from shoestring.plan.published_speeds import judged_rows, samples_of
from shoestring.plan.speed_fit import DECODE_NOISE, PRIORS, leave_out
from shoestring.plan.speed_published import decode_times, describe_errors, judge_baseline
from shoestring.report.drawing import Drawing
from shoestring.report.style import PAGE_IN, new_figure, series_styles, styled
from shoestring.report.tabular import Column, Table
from shoestring.report.units import GIBIBYTE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoestring.plan.planner import Plan


def read_figures(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what a benchmark of the planner wrote; None: it was not run.

    Raises:
        BadRunError: the file is not one of it.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRunError(f"{path} cannot be read: run benchmarks/{name} again") from error
    if not isinstance(found, dict) or found.get("benchmark") != name:
        raise BadRunError(f"{path} is no result of {name}: run the benchmark again")
    return found


def speed_errors() -> tuple[Table, Drawing]:
    """Return how far decode is off on devices that the fit has not seen, by driver."""
    samples = samples_of(judged_rows())
    errors = leave_out(decode_times(samples), PRIORS, DECODE_NOISE)
    plain = judge_baseline(samples, lambda one: one.device)
    by_driver: dict[str, list[tuple[float, float]]] = {}
    for one, error in zip(samples, errors, strict=True):
        assert one.decode_s is not None
        by_driver.setdefault(one.chip.driver, []).append((1 / one.decode_s, error))
    columns = (
        Column("driver", "Driver"),
        Column("rows", "Rows"),
        Column("median", "Median error (%)", 100.0),
        Column("p90", "90th percentile (%)", 100.0),
        Column("largest", "Largest (%)", 100.0),
    )
    named = {driver: [error for _, error in points] for driver, points in by_driver.items()}
    rows = [
        _errors_row(name, values)
        for name, values in (*sorted(named.items()), ("all", errors), ("one constant", plain))
    ]
    table = Table("plan_speed_errors", "Decode on devices left out", columns, tuple(rows))
    return table, _draw_speeds(by_driver)


def memory_table(figures: Mapping[str, Any] | None) -> Table:
    """Return how far each tool's memory is off from what llama-server really held."""
    columns = (
        Column("tool", "Tool"),
        Column("against", "Against"),
        Column("cases", "Cases"),
        Column("median", "Median error (%)", 100.0),
        Column("worst", "Worst, signed (%)", 100.0),
    )
    rows = tuple(
        (
            tool,
            truth.removesuffix("_bytes"),
            held["cases"],
            held["median_error"],
            held["worst_error"],
        )
        for tool, said in (figures or {"tools": {}})["tools"].items()
        for truth in ("reserved_bytes", "resident_bytes")
        for held in (said[truth],)
    )
    return Table("plan_memory_errors", "Predicted memory beside the server's own", columns, rows,
                 "benchmarks/planner_memory.py was not run.")  # fmt: skip


def here_table(figures: Mapping[str, Any] | None) -> Table:
    """Return this project's machine: each shape predicted by a calibration without it."""
    here = (figures or {}).get("here") or {"rows": (), "errors": {}}
    columns = (
        Column("shape", "Shape"),
        Column("decode_tokens_per_s", "Measured decode (tokens/s)"),
        Column("decode_error", "Predicted from all others, off by (%)", 100.0),
        Column("decode_error_calibration", "Predicted from a calibration, off by (%)", 100.0),
        Column("prefill_tokens_per_s", "Measured prefill (tokens/s)"),
        Column("prefill_error", "Predicted from all others, off by (%)", 100.0),
    )
    rows = tuple(
        (row["shape"], row["decode_tokens_per_s"], said["decode"], said["decode_from_calibration"],
         row["prefill_tokens_per_s"], said["prefill"])
        for row in here["rows"]
        for said in (here["errors"][row["shape"]],)
    )  # fmt: skip
    return Table("plan_here", "Calibrated on a machine, and held against it", columns, rows,
                 "benchmarks/planner_speed.py --measure was not run.")  # fmt: skip


def plan_table(plan: Plan) -> Table:
    """Return what each device holds."""
    columns = (
        Column("device", "Device"),
        Column("layers", "Layers"),
        Column("weights_bytes", "Weights (GiB)", 1 / GIBIBYTE),
        Column("cache_bytes", "KV cache (GiB)", 1 / GIBIBYTE),
        Column("compute_bytes", "Buffers (GiB)", 1 / GIBIBYTE),
        Column("total_bytes", "In all (GiB)", 1 / GIBIBYTE),
        Column("free_bytes", "Free before (GiB)", 1 / GIBIBYTE),
    )
    rows = tuple(
        (placed.name, _layers(placed.layers, output=placed.output), placed.weights_bytes,
         placed.cache_bytes, placed.compute_bytes, placed.total_bytes, placed.free_bytes)
        for placed in plan.placed
    )  # fmt: skip
    return Table("plan", f"{plan.ask.model}", columns, rows, "; ".join(plan.rejected))


def ways_table(plan: Plan, others: Mapping[str, Plan]) -> Table:
    """Return the best split beside other ways and others' plans, by the model of speed."""
    columns = (
        Column("way", "Way"),
        Column("layers", "Layers in RAM and on each device"),
        Column("fits", "Fits"),
        Column("token_s", "A token (ms)", 1e3),
        Column("reason", "Beside the best"),
    )
    rows = [("the plan", plan.split, "")]
    rows += [(name, other.split, " ".join(other.rejected)) for name, other in others.items()]
    rows += [(way.name, way.split, way.reason) for way in plan.alternatives]
    table = tuple(
        (name, " + ".join(str(end - first) for first, end in split.runs),
         "yes" if split.fits else "no", split.token_s, reason)
        for name, split, reason in rows
        if split is not None
    )  # fmt: skip
    return Table("plan_ways", "Ways to lay it out", columns, table, "; ".join(plan.rejected))


def _errors_row(name: str, errors: list[float]) -> tuple[str | int | float, ...]:
    said = describe_errors(errors)
    return (name, said["n"], said["median"], said["p90"], said["largest"])


def _draw_speeds(by_driver: Mapping[str, list[tuple[float, float]]]) -> Drawing:
    styles = series_styles(sorted(by_driver))
    with styled():
        figure = new_figure(PAGE_IN, 3.2)
        axes = figure.subplots()
        axes.axhspan(-25, 25, alpha=0.08, linewidth=0)
        for driver, points in sorted(by_driver.items()):
            style = styles[driver] | {"linestyle": "none", "markersize": 4}
            speeds, errors = zip(*points, strict=True)
            axes.plot(speeds, [100 * error for error in errors], label=driver, **style)
        axes.axhline(0, linewidth=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("published decode (tokens/s)")
        axes.set_ylabel("predicted speed is off by (%)")
        axes.set_title("Each point is a device that the fit has not seen")
        figure.legend(loc="outside lower center", ncols=4)
    count = sum(map(len, by_driver.values()))
    return Drawing(
        figure,
        f"{count} published speeds and how far the prediction without their device is off",
        "Above zero: predicted faster than published. The band is 25 % to either side.",
    )


def _layers(run: tuple[int, int], *, output: bool) -> str:
    first, end = run
    words = [f"{first} to {end - 1}"] if end > first else []
    return ", ".join([*words, *(["output"] if output else [])]) or "none"
