"""Tables of the second note's system: its own table beside ours, and what a gateway adds.

From plain data, as ``note-table.json`` and ``gateway-overhead.json`` hold it. Each
title ends with the file, the day and the machine; a table whose file is missing says so.
"""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from shoestring.analysis.stats import bootstrap_median_ci
from shoestring.models.outline import outline_of_shape
from shoestring.plan.current_models import count_parameters
from shoestring.report.tabular import Column, Estimate, Table
from shoestring.report.units import MISSING, SPACE, number, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.report.tabular import Value

Figures = dict[str, Any]
NOTE_TABLE: Final = "note-table"
OVERHEAD: Final = "gateway-overhead"
CROWD: Final = "gateway-crowd"
CAMPAIGN: Final = "gateway-campaign"
BENCHMARKS: Final = (NOTE_TABLE, OVERHEAD, CROWD, CAMPAIGN)
SHAPE: Final = "tipo-100m"
TYPES: Final = ("f32", "f16", "q8_0", "q4_k_m")
MEBIBYTE: Final = 1 << 20
NOTE_SIZE_MIB: Final = 191.46
NOTE_PARAMETERS: Final = 200e6
UNIT: Final = re.compile(r"(.*?), (s|bytes)(|: .*)")
"""In the name of a bar."""


def source_of(figures: Figures) -> str:
    """Return where figures come from: the file, the day, the machine."""
    machine = figures["machine"]
    cpu = machine["cpu"]
    return (
        f"{figures['benchmark']}.json, {figures['measured_utc'][:10]}, "
        f"{cpu['model']}, {number(cpu['cores_usable'])} cores"
    )


def not_measured(benchmark: str) -> str:
    """Return what is said where a file is missing."""
    return f"Not measured: benchmarks/{benchmark.replace('-', '_')}.py was not run."


def sourced(
    benchmark: str,
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[Value, ...]],
    figures: Figures | None,
) -> Table:
    """Return a table whose title ends with its source; without figures one that says so."""
    if figures is None:
        return Table(name, title, tuple(columns), (), not_measured(benchmark))
    empty = f"Not measured: this part of {benchmark} was left out."
    return Table(name, f"{title} ({source_of(figures)})", tuple(columns), tuple(rows), empty)


def median_of(values: Sequence[float]) -> Estimate:
    """Return the median of one value a block, with its interval where there are five."""
    middle = median(values) if values else None
    return estimate(middle, bootstrap_median_ci([[value] for value in values]))


def ratio_of(said: Mapping[str, Any] | None) -> Estimate | None:
    """Return a ratio as the benchmark tells it."""
    return None if said is None else estimate(said["median"], said["ci95"])


def estimate(
    middle: float | None, interval: Sequence[float] | None, scale: float = 1.0
) -> Estimate:
    """Return a median with its interval, each times the scale."""
    low, high = (None, None) if interval is None else (end * scale for end in interval)
    return Estimate(None if middle is None else middle * scale, low, high)


def note_table(figures: Figures | None) -> Table:
    """Return the note's own table, a column for each stack; its figures as it prints them."""
    summary, note = (figures["summary"], figures["note"]) if figures else ({}, {})
    columns = [Column("metric", "Metric"), Column("note", "The note, published on another machine")]
    columns += [Column(f"stack_{place}", name) for place, name in enumerate(summary)]
    told = list(summary.values())
    lines: list[tuple[str, str, list[str]]] = [
        ("Load time", f"{note.get('load_s')} s", [seconds(one["load_s"]) for one in told]),
        ("Start to first healthy answer", "", [seconds(one["ready_s"]) for one in told]),
        ("Memory (RSS)", f"{note.get('rss_mb')} MB", [_mib(one["rss_bytes"]) for one in told]),
        ("RSS less what imports took", "", [_mib(_loaded_bytes(one)) for one in told]),
        ("Model size", f"{note.get('size_mb')} MB", [_mib(one["weights_bytes"]) for one in told]),
        ("Mean time of an answer", f"{note.get('mean_inference_s')} s",
         [seconds(one["mean_request_s"]) for one in told]),
        ("Successful", str(note.get("successful")),
         [f"{one['successful']['ok']}/{one['successful']['of']}" for one in told]),
    ]  # fmt: skip
    rows = [(metric, theirs, *ours) for metric, theirs, ours in lines] if figures else []
    title = "The note's table"
    if figures is not None:
        title += (
            f": answers of {figures['answer_tokens']} tokens to {figures['prompt_tokens']} here, "
            "of an unknown length there"
        )
    return sourced(NOTE_TABLE, "note_table", title, columns, rows, figures)


def pace_table(figures: Figures | None) -> Table:
    """Return each stack's time of an answer, and how much faster it is than the note's stacks.

    A ratio is that of two medians of one round; shown is the median over the rounds, with its
    interval where there are five.
    """
    blocks = figures["blocks"] if figures else []
    theirs = list(dict.fromkeys(one["stack"] for one in blocks if one["service"] is not None))
    columns = [
        Column("stack", "Stack"),
        Column("request_median_s", "Answer, median (s)", estimate=True),
        *(Column(f"faster_than_{place}", f"Times as fast as {name}", estimate=True)
          for place, name in enumerate(theirs)),
        Column("successful", "Successful (%)", 100.0, estimate=True),
    ]  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for name, said in (figures["summary"] if figures else {}).items():
        right = said["successful"]
        rows.append(
            (name, estimate(said["median_request_s"]["value"], said["median_request_s"]["ci95"]),
             *(_faster(blocks, name, other) for other in theirs),
             estimate(right["ok"] / right["of"] if right["of"] else None, right["ci95"]))
        )  # fmt: skip
    return sourced(NOTE_TABLE, "note_pace", "Times of an answer", columns, rows, figures)


def size_table() -> Table:
    """Return what the shape's weights take in each type, counted from its tensors."""
    columns = (
        Column("type", "Type"),
        Column("parameters", "Parameters"),
        Column("bytes_a_parameter", "Bytes a parameter"),
        Column("weights_mib", "Weights (MiB)"),
        Column("note", "The note"),
    )
    count, _ = count_parameters(SHAPE)
    two_bytes = 2 * count / MEBIBYTE
    said = f"{NOTE_SIZE_MIB} MB, {NOTE_PARAMETERS / 1e6:.0f} M parameters, full precision"
    rows: list[tuple[Value, ...]] = [
        ("two bytes each", count, 2, f"{two_bytes:.2f}", said),
        ("four bytes each (fp32)", count, 4, f"{2 * two_bytes:.2f}", ""),
    ]
    for kind in TYPES:
        weights = outline_of_shape(f"{SHAPE}:{kind}").file_bytes
        row = (f"GGUF {kind}", count, weights / count, f"{weights / MEBIBYTE:.2f}", "")
        rows.append(row)
    return Table("note_sizes", f"{SHAPE}: its weights, counted", columns, tuple(rows))


def arithmetic_table(figures: Figures | None) -> Table:
    """Return the note's claims that arithmetic alone can judge."""
    columns = (Column("claim", "Claim"), Column("verdict", "Verdict"), Column("why", "Why"))
    claims = figures["arithmetic"]["claims"] if figures else []
    rows = [(one["claim"], "holds" if one["holds"] else "wrong", one["why"]) for one in claims]
    return sourced(NOTE_TABLE, "note_arithmetic", "The note's arithmetic", columns, rows, figures)


def bars_table(figures: Figures | None, benchmark: str) -> Table:
    """Return what was to be reached, what was, and the verdict.

    A bar is named ``WHAT, UNIT`` or ``WHAT, UNIT: WHERE``; without a unit its figure is a number.
    """
    columns = (
        Column("bar", "Bar"),
        Column("limit", "To be reached"),
        Column("value", "Measured"),
        Column("verdict", "Verdict"),
    )
    verdicts = {True: "met", False: "missed", None: "no figure"}
    rows = []
    for one in figures["bars"] if figures else []:
        named = UNIT.fullmatch(one["bar"])
        bar = one["bar"] if named is None else named[1] + named[3]
        told = number if named is None else {"s": seconds, "bytes": _mib}[named[2]]
        limit = f"{one['sense']} {told(one['limit'])}"
        rows.append((bar, limit, told(one["value"]), verdicts[one["met"]]))
    return sourced(benchmark, f"{benchmark}_bars", "Bars", columns, rows, figures)


def ttft_table(figures: Figures | None) -> Table:
    """Return TTFT through each gateway, and what it adds to that without one."""
    columns = (
        Column("concurrency", "At once"),
        Column("arm", "Through"),
        Column("requests", "Requests"),
        Column("failed", "Failed"),
        Column("ttft_median_s", "TTFT, median (ms)", 1e3),
        Column("ttft_p99_s", "p99 (ms)", 1e3),
        Column("added_median_s", "Added, median (ms)", 1e3, estimate=True),
        Column("added_p99_s", "Added, p99 (ms)", 1e3),
    )
    rows = [
        (level["concurrency"], arm, said["requests"], said["failed"], said["ttft_s"]["median"],
         said["ttft_s"]["p99"], *_added(arm, said["added_s"]))
        for level in (figures or {}).get("ttft", [])
        for arm, said in level["arms"].items()
    ]  # fmt: skip
    return sourced(OVERHEAD, "gateway_ttft", "TTFT before the known-truth server", columns, rows,
                  figures)  # fmt: skip


def rates_table(figures: Figures | None) -> Table:
    """Return how much passes through: tokens of a real engine, answers out of the cache."""
    columns = (
        Column("what", "What"),
        Column("arm", "Through"),
        Column("rate_per_s", "A second, median", estimate=True),
        Column("against", "Against"),
        Column("ratio", "Ratio by blocks", estimate=True),
    )
    rows: list[tuple[Value, ...]] = []
    passed = (figures or {}).get("throughput", {})
    what = f"output tokens, {passed.get('model')}, {passed.get('slots')} streams"
    rows += [
        (what, arm, median_of(values), "direct" if arm in passed["ratio_to_direct"] else "",
         ratio_of(passed["ratio_to_direct"].get(arm)))
        for arm, values in passed.get("output_tokens_per_s", {}).items()
    ]  # fmt: skip
    cached = (figures or {}).get("cached", {})
    for kind, arms in cached.get("answers_per_s", {}).items():
        ratio = ratio_of(cached["ratio_to_litellm"].get(kind))
        rows += [
            (f"cached {kind}, {cached['concurrency']} at once", arm, median_of(values),
             "" if arm == "litellm" else "litellm", None if arm == "litellm" else ratio)
            for arm, values in arms.items()
        ]  # fmt: skip
    return sourced(OVERHEAD, "gateway_rates", "What passes through", columns, rows, figures)


def memory_table(figures: Figures | None) -> Table:
    """Return the peak resident set of each gateway after each part."""
    columns = (
        Column("arm", "Gateway"),
        Column("part", "After the part"),
        Column("peak_bytes", "Peak of a worker (MiB)", 1 / MEBIBYTE),
    )
    rows = [
        (arm, part, peak)
        for part, arms in (figures or {}).get("peak_memory_bytes", {}).items()
        for arm, peak in arms.items()
    ]
    return sourced(OVERHEAD, "gateway_memory", "Memory", columns, rows, figures)


def _faster(blocks: Sequence[Mapping[str, Any]], name: str, other: str) -> Estimate | None:
    """Return how many times as fast a stack is as another, round by round."""
    mine, theirs = _medians(blocks, name), _medians(blocks, other)
    ratios = [theirs[number] / mine[number] for number in mine.keys() & theirs.keys()]
    if name == other or not ratios:
        return None
    return median_of(ratios)


def _medians(blocks: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    """Return the median time of a stack's right answers in each round that has one."""
    times = {
        block["block"]: [one["request_s"] for one in block["requests"] if one["ok"]]
        for block in blocks
        if block["stack"] == name
    }
    return {number: median(values) for number, values in times.items() if values}


def _added(arm: str, said: Mapping[str, Any]) -> tuple[Estimate | None, float | None]:
    if arm == "direct":  # nothing is added to nothing
        return None, None
    return estimate(said["median"], said["median_ci95"]), said["p99"]


def _loaded_bytes(one: Mapping[str, Any]) -> int | None:
    rss, imported = one["rss_bytes"], one["imported_rss_bytes"]
    return None if rss is None or imported is None else rss - imported


def _mib(value_bytes: float | None) -> str:
    return MISSING if value_bytes is None else f"{number(value_bytes / MEBIBYTE)}{SPACE}MiB"
