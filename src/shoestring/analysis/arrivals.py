"""Did an open loop send when it was meant to?

In an open loop requests leave at planned moments, whether earlier ones have ended or not. Two
things can spoil it: a client that is late, and the limit of requests in flight, at which the next
one has to wait and the loop becomes a closed one. Latencies count from the intended send, so they
hold the delay; what they no longer stand for is the planned rate.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.analysis.metrics import NS_PER_S
from shoestring.analysis.samples import grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.analysis.samples import Sample
    from shoestring.measure.records import Row

CLOSED = "closed"


def arrivals(case: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Describe how the requests of a case were sent; None for a closed loop.

    Args:
        case: of the suite.
        samples: the measured requests of the case, failures included.

    Returns:
        ``kind`` (constant, poisson), ``rate_per_s`` (of the suite), ``planned_per_s`` and
        ``achieved_per_s`` ((n - 1) requests over the time from the first to the last, as planned
        and as sent, over all batches), ``lag_s`` (``median`` and ``max`` of send minus intended
        send), ``in_flight_limit``, and ``limited``: how many requests were due while the limit was
        in flight, and so had to wait.
    """
    kind = case.get("arrival") or CLOSED
    if kind == CLOSED:
        return None
    batches = list(grouped(samples, lambda s: (s.row["session"], s.row["block"])).values())
    rows = [[sample.row for sample in batch] for batch in batches]
    sent = [[row for row in batch if row.get("sent_ns") is not None] for batch in rows]
    lags = [_s(row["sent_ns"] - row["intended_ns"]) for batch in sent for row in batch]
    limit = case.get("concurrency")
    return {
        "kind": kind,
        "rate_per_s": case.get("rate_per_s"),
        "planned_per_s": _rate([[row["intended_ns"] for row in batch] for batch in rows]),
        "achieved_per_s": _rate([[row["sent_ns"] for row in batch] for batch in sent]),
        "lag_s": {"median": median(lags) if lags else None, "max": max(lags, default=None)},
        "in_flight_limit": limit,
        "limited": None if limit is None else sum(_limited(batch, int(limit)) for batch in rows),
    }


def _rate(batches: Sequence[Sequence[int]]) -> float | None:
    steps = sum(len(times) - 1 for times in batches if len(times) > 1)
    span_ns = sum(max(times) - min(times) for times in batches if len(times) > 1)
    return steps / _s(span_ns) if span_ns else None


def _limited(rows: Sequence[Row], limit: int) -> int:
    """Count the requests that were due while as many others as may be held a slot."""

    def held(other: Row, t_ns: int) -> bool:
        began_ns = other["intended_ns"] if other.get("sent_ns") is None else other["sent_ns"]
        return bool(began_ns <= t_ns < other["end_ns"])

    return sum(
        sum(held(other, row["intended_ns"]) for other in rows if other is not row) >= limit
        for row in rows
    )


def _s(ns: int) -> float:
    return float(ns / NS_PER_S)
