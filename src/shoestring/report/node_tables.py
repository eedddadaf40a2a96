"""Tables of a node's campaigns: starts, variation of its sessions, faults, what Open WebUI costs.

From plain data, as ``results/benchmarks/node-*.json`` hold it.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.report.tabular import Column, Estimate, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def start_table(starts: Mapping[str, Sequence[Sequence[dict[str, Any]]]]) -> Table:
    """Return a row for each kind of start and step: how long it took.

    Args:
        starts: the starts of each kind ("cold", "warm"), each with its spans.
    """
    columns = (
        Column("kind", "Start"),
        Column("step", "Step"),
        Column("n", "Times"),
        Column("start_median_s", "Begins after (s)"),
        Column("duration_median_s", "Takes, median (s)"),
        Column("duration_min_s", "Least (s)"),
        Column("duration_max_s", "Most (s)"),
    )
    rows = tuple(
        (
            kind, name, len(spans), median(span["start_s"] for span in spans),
            median(took), min(took), max(took),
        )
        for kind, told in starts.items()
        for name, spans in _by_step(told).items()
        for took in ([span["end_s"] - span["start_s"] for span in spans],)
    )  # fmt: skip
    return Table("node_starts", "Starts of a node, step by step", columns, rows,
                 "No start of a node was timed.")  # fmt: skip


def repeatability_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each case and metric: variation between sessions beside that within one.

    Args:
        rows: of ``analysis.repeatability.session_repeatability``.
    """
    columns = (
        Column("case", "Case"),
        Column("metric", "Metric"),
        Column("sessions", "Sessions"),
        Column("values", "Requests"),
        Column("mean", "Mean"),
        Column("within_sd", "Within (sd)"),
        Column("between_sd", "Between (sd)"),
        Column("within_share", "Within (%)", 100.0),
        Column("between_share", "Between (%)", 100.0),
        Column("intraclass_correlation", "Intraclass correlation"),
        Column("reason", "Not known because"),
    )
    told = tuple(
        (row["case"], row["metric"], *(row["repeatability"][column.key] for column in columns[2:]))
        for row in rows
    )
    return Table(
        "node_sessions", "Variation between sessions beside that within one", columns, told,
        "No session was measured.",
    )  # fmt: skip


def fault_table(rounds: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each part that was killed: what came of the runs, and of the node.

    Args:
        rounds: of ``node-faults.json``.
    """
    columns = (
        Column("kind", "Killed"),
        Column("rounds", "Rounds"),
        Column("ready_median_s", "Ready again after, median (s)"),
        Column("ready_max_s", "Most (s)"),
        Column("planned", "Requests planned"),
        Column("rows", "Rows"),
        Column("twice", "Twice"),
        Column("missing", "Missing"),
        Column("failed", "Failed, with a reason"),
        Column("orphans", "Left running"),
    )
    kinds = dict.fromkeys(one["kind"] for one in rounds)
    rows = tuple(
        (
            kind, len(mine), median(one["ready_s"] for one in mine),
            max(one["ready_s"] for one in mine),
            *(sum(one[column.key] for one in mine) for column in columns[4:]),
        )
        for kind in kinds
        for mine in ([one for one in rounds if one["kind"] == kind],)
    )  # fmt: skip
    return Table("node_faults", "Parts of a node, killed while it was measured", columns, rows,
                 "Nothing was killed.")  # fmt: skip


def open_webui_table(beside: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each case and metric: with Open WebUI on top, and without it.

    Args:
        beside: of ``node-webui.json``.
    """
    columns = (
        Column("case", "Case"),
        Column("metric", "Metric"),
        Column("with", "With Open WebUI"),
        Column("without", "Without"),
        Column("ratio", "With / without", estimate=True),
    )
    rows = tuple(
        (
            row["case"], row["metric"], row["with"], row["without"],
            Estimate(row["ratio"], *(row["ci95"] or (None, None))),
        )
        for row in beside
    )  # fmt: skip
    return Table(
        "node_webui", "What is measured with Open WebUI on top, and without it", columns, rows,
        "Nothing was compared.",
    )  # fmt: skip


def _by_step(starts: Sequence[Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    steps: dict[str, list[dict[str, Any]]] = {}
    for spans in starts:
        for span in spans:
            steps.setdefault(span["name"], []).append(span)
    return steps
