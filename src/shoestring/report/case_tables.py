"""Tables with a row a case that explain its latencies: clocks, answers, arrivals."""

from __future__ import annotations

from typing import Any

from shoestring.report.tabular import Column, Estimate, Table, Value

NOTHING = "No request was measured."


def clocks(cases: list[dict[str, Any]]) -> Table:
    """Return what client, engine and hardware tell of the same requests."""
    columns = (
        Column("case", "Case"),
        Column("concurrency", "At once"),
        Column("ttft_median_s", "TTFT, client (ms)", 1e3, estimate=True),
        Column("native_load_median_s", "Load, engine (ms)", 1e3, estimate=True),
        Column("native_prompt_median_s", "Prefill, engine (ms)", 1e3, estimate=True),
        Column("residual_median_s", "Residual (ms)", 1e3, estimate=True),
        Column("decode_tokens_per_s_median", "Decode, client (tokens/s)", estimate=True),
        Column("native_decode_tokens_per_s_median", "Decode, engine (tokens/s)", estimate=True),
        Column("engine_cores", "Busy cores"),
        Column("gpu_power_w", "GPU power (W)"),
        Column("cached_share", "Prompt from cache (%)", 100.0),
    )
    rows = tuple(
        (
            case["case"], case["concurrency"], _median(case["metrics"]["ttft_s"]),
            _median(case["native"]["load_s"]), _median(case["native"]["prompt_s"]),
            _median(case["residual_s"]), _median(case["metrics"]["decode_tokens_per_s"]),
            _median(case["native"]["decode_tokens_per_s"]), case["hardware"]["engine_cores"],
            case["hardware"]["gpu_power_w"], case["cached_share"],
        )
        for case in cases
    )  # fmt: skip
    return Table(
        "clocks", "Three clocks: what client, engine and hardware tell, medians", columns, rows,
        NOTHING,
    )  # fmt: skip


def answers(cases: list[dict[str, Any]]) -> Table:
    """Return what the answers were: of which kind, how much reasoning, how many are JSON."""
    columns = (
        Column("case", "Case"),
        Column("concurrency", "At once"),
        Column("prompt", "Prompt"),
        Column("thinking", "Thinking"),
        Column("reasoning_share_median", "Reasoning (% of text)", 100.0, estimate=True),
        Column("first_reasoning_median_s", "First reasoning (ms)", 1e3, estimate=True),
        Column("first_answer_median_s", "First answer (ms)", 1e3, estimate=True),
        Column("structured_valid", "Valid JSON (%)", 100.0, estimate=True),
    )
    rows = tuple(_answers(case) for case in cases)
    return Table("answers", "What the answers were, medians", columns, rows, NOTHING)


def arrivals(cases: list[dict[str, Any]]) -> Table:
    """Return how the open loops were sent; a closed loop has no row."""
    columns = (
        Column("case", "Case"),
        Column("arrival", "Arrival"),
        Column("rate_per_s", "Suite (requests/s)"),
        Column("planned_per_s", "Planned (requests/s)"),
        Column("achieved_per_s", "Sent (requests/s)"),
        Column("lag_median_s", "Late, median (ms)", 1e3),
        Column("lag_max_s", "Late, most (ms)", 1e3),
        Column("in_flight_limit", "In flight, at most"),
        Column("limited", "Waited at that"),
    )
    rows = tuple(
        (
            case["case"], sent["kind"], sent["rate_per_s"], sent["planned_per_s"],
            sent["achieved_per_s"], sent["lag_s"]["median"], sent["lag_s"]["max"],
            sent["in_flight_limit"], sent["limited"],
        )
        for case in cases
        if (sent := case["arrivals"])
    )  # fmt: skip
    return Table(
        "arrivals", "Open loops: the rate that was planned and the rate that was sent", columns,
        rows, "Every case was a closed loop.",
    )  # fmt: skip


def _answers(case: dict[str, Any]) -> tuple[Value, ...]:
    thinking, valid = case["thinking"], case["structured_valid"]
    metrics = case["metrics"]
    json_share = (
        Estimate(valid["value"], *(valid["ci95"] or (None, None)))
        if valid
        else Estimate(None, None, None)
    )
    return (
        case["case"], case["concurrency"], case["prompt"],
        None if thinking is None else ("on" if thinking else "off"),
        _median(metrics["reasoning_share"]), _median(metrics["first_reasoning_s"]),
        _median(metrics["first_answer_s"]), json_share,
    )  # fmt: skip


def _median(metric: dict[str, Any]) -> Estimate:
    return Estimate(metric["median"], *(metric["ci95"] or (None, None)))
