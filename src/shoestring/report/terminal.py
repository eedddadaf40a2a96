"""Runs and comparisons as plain text for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from shoestring.report import words
from shoestring.report.tables import run_tables
from shoestring.report.tabular import Column, Estimate, Table, one_line, plain_text

if TYPE_CHECKING:
    from shoestring.measure.records import Run

# What fits on a terminal of 100 characters; the rest is in --json, --out and --html.
_SHOWN: Final = (
    "case", "concurrency", "ok", "failed", "ttft_median_s", "decode_tokens_per_s_median",
    "output_tokens_per_s_aggregate_median",
)  # fmt: skip


def run_text(run: Run, summary: dict[str, Any]) -> str:
    """Return a run for a terminal: verdict, a row a case, warnings."""
    problem = words.incomplete_line(run)
    lines = [f"{run.run_id}: {words.title(run)}"]
    if problem:
        lines.append(f"INCOMPLETE: {problem}")
    lines += [
        words.verdict(run, summary),
        "",
        plain_text(_narrow(run_tables(run, summary)["summary"])),
    ]
    lines += [f"warning: {line}" for line in words.warning_lines(summary)]
    return "\n".join(lines)


def comparison_text(comparison: dict[str, Any]) -> str:
    """Return a comparison for a terminal: what differs, then a verdict for each case and metric."""
    lines = [f"from {comparison['a']} to {comparison['b']}"]
    if comparison["reason"]:
        lines.append(f"NOT COMPARABLE: {comparison['reason']}")
    lines += [
        f"differs: {item['field']}: {item['a']} and {item['b']}"
        for item in comparison["differences"]
    ]
    lines += [line for case in comparison["cases"] for line in _answered(case, comparison)]
    lines += [f"only in {side}: {case}" for side in "ab" for case in comparison[f"only_in_{side}"]]
    columns = (
        Column("case", "Case"),
        Column("concurrency", "At once"),
        Column("metric", "Metric"),
        Column("a", "From"),
        Column("b", "To"),
        Column("ratio", "Ratio", estimate=True),
        Column("verdict", "Verdict"),
    )
    rows = tuple(
        (
            case["case"], case["concurrency"], name, metric["a"], metric["b"],
            Estimate(metric["ratio"], *(metric["ci95"] or (None, None))), metric["verdict"],
        )
        for case in comparison["cases"]
        for name, metric in case["metrics"].items()
    )  # fmt: skip
    lines = [one_line(line) for line in lines]
    return "\n".join([*lines, "", plain_text(Table("comparison", "Comparison", columns, rows))])


def _answered(case: dict[str, Any], comparison: dict[str, Any]) -> list[str]:
    """Say how many requests were answered: medians are of those alone."""
    name = f"{case['case']} at concurrency {case['concurrency']}"
    shares = [f"{one['ok']} of {one['ok'] + one['failed']}" for one in case["requests"].values()]
    lines = [f"answered: {name}: {' and '.join(shares)}"]
    reasons = {metric["reason"] for metric in case["metrics"].values()}
    own = sorted(filter(None, reasons - {comparison["reason"]}))
    return lines + [f"NOT COMPARABLE: {name}: {reason}" for reason in own]


def _narrow(table: Table) -> Table:
    chosen = [i for i, column in enumerate(table.columns) if column.key in _SHOWN]
    return replace(
        table,
        columns=tuple(table.columns[i] for i in chosen),
        rows=tuple(tuple(row[i] for i in chosen) for row in table.rows),
    )
