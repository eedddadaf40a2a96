"""What was thrown at the gateway, and what came of it: the crowd that never reads, the campaign.

From plain data, as ``gateway-crowd.json`` and ``gateway-campaign.json`` hold it.
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Final

from shoestring.report.service_tables import (
    CAMPAIGN,
    CROWD,
    MEBIBYTE,
    Figures,
    not_measured,
    sourced,
)
from shoestring.report.tabular import Column, Table
from shoestring.report.units import SPACE, number

if TYPE_CHECKING:
    from shoestring.report.tabular import Value

OUTCOMES: Final = {
    "answered": "Answered rightly",
    "refused": "Refused, clearly",
    "left": "Client left",
    "stream error": "Error told in the stream",
    "no answer": "No answer",
    "cut": "Cut",
    "hang": "Hung",
    "wrong": "Wrong",
}
"""What can become of a request; those from ``no answer`` on have to be excused by a fault."""


def crowd_table(figures: Figures | None) -> Table:
    """Return how honest streams fared without those who never read, with them and after them."""
    columns = (
        Column("phase", "Clients that never read"),
        Column("requests", "Honest streams"),
        Column("failed", "Failed"),
        Column("ttft_median_s", "TTFT, median (ms)", 1e3),
        Column("ttft_p99_s", "p99 (ms)", 1e3),
        Column("ttft_max_s", "Most (ms)", 1e3),
        Column("resident_bytes", "Gateway's memory (MiB)", 1 / MEBIBYTE),
    )
    names = {"without": "not yet there", "with": "there", "after": "gone again"}
    rows = [
        (names.get(name, name), one["requests"], one["failed"], one["ttft_s"]["median"],
         one["ttft_s"]["p99"], one["ttft_s"]["max"], one["resident_bytes"])
        for name, one in (figures["phases"] if figures else {}).items()
    ]  # fmt: skip
    said = "The crowd"
    if figures is not None:
        said = f"{figures['connections']} connections, {figures['unread']} never read"
    return sourced(CROWD, "gateway_crowd", said, columns, rows, figures)


def outcomes_table(figures: Figures | None) -> Table:
    """Return what became of each kind of request, and of all together."""
    kinds: dict[str, dict[str, int]] = figures["outcomes"] if figures else {}
    # One that is not known here is shown by its own name: none is left out of the sum.
    unknown = {name: name for counts in kinds.values() for name in counts if name not in OUTCOMES}
    headings = OUTCOMES | unknown
    columns = (
        Column("kind", "Kind"),
        Column("asked", "Asked"),
        *(Column(outcome.replace(" ", "_"), heading) for outcome, heading in headings.items()),
    )
    rows: list[tuple[Value, ...]] = [
        (kind, sum(counts.values()), *(counts.get(outcome, 0) for outcome in headings))
        for kind, counts in kinds.items()
    ]
    if kinds:
        sums = (sum(counts.get(outcome, 0) for counts in kinds.values()) for outcome in headings)
        rows.append(("all", sum(sum(counts.values()) for counts in kinds.values()), *sums))
    said = "The campaign"
    if figures is not None:
        said = f"{number(figures['seconds'])} s of load by {figures['clients']} clients"
    return sourced(CAMPAIGN, "campaign_outcomes", said, columns, rows, figures)


def limits_table(figures: Figures | None) -> Table:
    """Return the most that two replicas let through together, by what the engine saw."""
    columns = (
        Column("limit", "Limit"),
        Column("value", "Set to"),
        Column("allowed_above", "Allowed above"),
        Column("most", "Most that was seen"),
        Column("most_redis_up", "Most away from outages of Redis"),
        Column("verdict", "Verdict"),
    )
    verdicts = {True: "kept", False: "exceeded", None: "no figure"}
    rows = [
        (name, one["limit"], one["allowed_above"], one["most"], one["most_redis_up"],
         verdicts[one["kept"]])
        for name, one in (figures["limits"] if figures else {}).items()
    ]  # fmt: skip
    return sourced(
        CAMPAIGN, "campaign_limits", "Limits of two replicas together", columns, rows, figures
    )


def faults_table(figures: Figures | None) -> Table:
    """Return for each kind of fault how long it lasted, and how soon answers came again."""
    columns = (
        Column("kind", "Fault"),
        Column("times", "Times"),
        Column("down_median_s", "Down, median (s)"),
        Column("end_max_s", "Ended in order within (s)"),
        Column("answered_after_max_s", "Answered again after, most (ms)", 1e3),
        Column("never_answered", "Never answered again"),
        Column("seen_in_metrics", "Seen in the metrics"),
    )
    faults = figures["faults"] if figures else []
    rows = []
    for kind in dict.fromkeys(one["kind"] for one in faults):
        mine = [one for one in faults if one["kind"] == kind]
        known = {
            key: [one[key] for one in mine if one[key] is not None]
            for key in ("end_s", "answered_after_s", "seen_in_metrics")
        }
        seen = known["seen_in_metrics"]
        rows.append(
            (kind, len(mine), median(one["down_s"] for one in mine),
             max(known["end_s"], default=None), max(known["answered_after_s"], default=None),
             len(mine) - len(known["answered_after_s"]),
             f"{sum(seen)} of {len(seen)}" if seen else "")
        )  # fmt: skip
    return sourced(CAMPAIGN, "campaign_faults", "Faults", columns, rows, figures)


def crowd_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Say what those who never read cost."""
    if figures is None:
        return [("the crowd", not_measured(CROWD))]
    taken = figures["unread_taken_bytes"]
    bounds = [figures["connection_bound_bytes"], figures["unread_bound_bytes"]]
    connection, unread = (f"{number(bound / 1024)} KiB" for bound in bounds)
    return [
        ("streams that nobody reads", f"{figures['unread_begun']} of {figures['unread']} began"),
        ("sent by the engine, of each",
         f"{_mib(taken['median'])} (median), {_mib(taken['max'])} (most), with kernel's buffers"),
        ("the stated bound", f"{connection} a connection, {unread} a client that never reads"),
        ("the gateway grew by", _mib(figures["growth_bytes"])),
    ]  # fmt: skip


def campaign_facts(figures: Figures | None) -> list[tuple[str, str]]:
    """Say what was wrong, and what was lost to which fault."""
    if figures is None:
        return [("the campaign", not_measured(CAMPAIGN))]
    wrong = "; ".join(figures["wrong"]) or "nothing"
    lost = ", ".join(f"{count} ({reason})" for reason, count in figures["reset"].items())
    peaks = figures["peak_memory_bytes"].items()
    refused = Counter[str]()
    for reason, count in figures["refusals"].items():
        refused[reason.partition(": ")[2]] += count
    return [
        ("wrong", wrong),
        ("connections of a replica itself that were lost with it", lost or "none"),
        ("answers out of the cache", number(figures["cache_hits"])),
        (
            "refused",
            ", ".join(f"{count} by {reason}" for reason, count in refused.most_common()) or "none",
        ),
        ("peak memory", ", ".join(f"replica {name} {_mib(peak)}" for name, peak in peaks)),
        ("still at work after the load", ", ".join(figures["left_over"]) or "nothing"),
    ]


def _mib(value_bytes: float | None) -> str:
    return "not known" if value_bytes is None else f"{number(value_bytes / MEBIBYTE)}{SPACE}MiB"
