"""The rows of a run as pandas frames, for figures, tables and notebooks.

Nothing is aggregated or left out here. None becomes NaN in columns of numbers and ``pd.NA`` in
columns of yes and no. Times in columns ``start_s``, ``end_s`` and ``t_s`` are seconds on the clock
of their session: compare them only within one session.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import pandas as pd

from shoestring.analysis.metrics import (
    NS_PER_S,
    RequestMetrics,
    request_gaps_s,
    request_metrics,
    text_times_ns,
)
from shoestring.analysis.samples import meets_limits, suite_limits
from shoestring.analysis.telemetry import gpu_totals

if TYPE_CHECKING:
    from shoestring.measure.records import Row, Run

METRIC_FIELDS = tuple(field.name for field in fields(RequestMetrics))
REQUEST_COLUMNS = (
    "id", "session", "phase", "block", "case", "concurrency", "status", "reason",
    "start_s", "end_s", *METRIC_FIELDS, "prompt_tokens_target", "good",
)  # fmt: skip
GAP_COLUMNS = ("id", "session", "case", "concurrency", "block", "index", "gap_s", "t_s")
TELEMETRY_COLUMNS = (
    "session", "t_s", "cpu_percent", "engine_cpu_percent", "engine_rss_bytes", "engine_processes",
    "available_memory_bytes", "temperature_c", "frequency_hz", "steal_percent", "swap_used_bytes",
    "engine_major_faults_per_s", "engine_swap_bytes", "engine_vram_bytes", "gpu_vram_used_bytes",
    "gpu_utilisation_percent", "gpu_power_w", "gpu_temperature_c",
)  # fmt: skip

TEXT = {"id", "phase", "case", "status", "reason"}
FLAGS = {"early_stop", "good"}
COUNTS = {"session", "block", "concurrency", "index"}


def request_frame(run: Run) -> pd.DataFrame:
    """Return one row a request, warm-ups and failures included, in the order of the record.

    Columns: ``REQUEST_COLUMNS``; ``start_s`` is the intended send, ``reason`` that of a failure,
    ``prompt_tokens_target`` the suite's length, ``good`` whether it met the suite's limits.
    """
    limits = suite_limits(run)
    targets = {case["name"]: case["prompt_tokens"] for case in run.config["suite"]["cases"]}
    return _frame([_request(row, limits, targets) for row in run.rows], REQUEST_COLUMNS)


def gap_frame(run: Run) -> pd.DataFrame:
    """Return one row a gap between two text chunks of the measured requests that ended well.

    Columns: ``GAP_COLUMNS``; ``index`` counts the gaps of a request from 0, ``t_s`` is when the
    gap ended. Gaps are between chunks (see ``metrics.request_gaps_s``).
    """
    rows = []
    for row in run.measured:
        ends_ns = text_times_ns(row)[1:]
        about = {key: row[key] for key in ("id", "session", "case", "concurrency", "block")}
        for index, gap_s in enumerate(request_gaps_s(row)):
            t_s = ends_ns[index] / NS_PER_S
            rows.append({**about, "index": index, "gap_s": gap_s, "t_s": t_s})
    return _frame(rows, GAP_COLUMNS)


def telemetry_frame(run: Run) -> pd.DataFrame:
    """Return one row a telemetry sample; columns: ``TELEMETRY_COLUMNS``.

    Those that begin with ``gpu_`` are of all GPUs together: sums of memory and power, the mean
    utilisation, the highest temperature; none where a GPU did not say.
    """
    rows = [
        {**sample, **gpu_totals(sample), "t_s": sample["t_ns"] / NS_PER_S}
        for sample in run.telemetry
    ]
    return _frame(rows, TELEMETRY_COLUMNS)


def _request(row: Row, limits: dict[str, float], targets: dict[str, int]) -> dict[str, Any]:
    metrics = request_metrics(row)
    return {
        **{key: row[key] for key in ("id", "session", "phase", "block", "case", "concurrency")},
        "status": row["status"],
        "reason": row["failure"]["reason"] if row["failure"] else None,
        "start_s": row["intended_ns"] / NS_PER_S,
        "end_s": row["end_ns"] / NS_PER_S,
        **asdict(metrics),
        "prompt_tokens_target": targets.get(row["case"]),
        "good": meets_limits(row, metrics, limits),
    }


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    # By name and not by content, so that a run without rows has the same columns and types.
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=_dtype(name)) for name in columns}
    )


def _dtype(name: str) -> Any:
    if name in TEXT:
        return "object"
    if name in FLAGS:
        return "boolean"
    return "int64" if name in COUNTS else "float64"
