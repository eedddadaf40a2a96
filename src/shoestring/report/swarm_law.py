"""How many round trips a token costs, by what was measured and by what ought to be.

A star waits for each of N peers once a token: ``t = t0 + N * RTT``. In a chain each activation goes
half a round trip further, from the user to the first peer and from the last one back, too:
``t = t0 + (N + 1) / 2 * RTT``. What was measured is fitted by a line through the medians of each
block; its slope is the number of round trips.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from shoestring.report.service_tables import median_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoestring.report.tabular import Estimate


@dataclass(frozen=True)
class Line:
    """A token's time against the round trip, of one arm over so many peers.

    Attributes:
        peers: how many.
        arm: ``raw``, ``star`` or ``chain``.
        points: round trip and median time of a token, in seconds.
        round_trips: a token, fitted.
        ought: by the law.
        base_s: without a round trip, fitted.
    """

    peers: int
    arm: str
    points: tuple[tuple[float, float], ...]
    round_trips: Estimate
    ought: float
    base_s: Estimate


def law_round_trips(arm: str, peers: int) -> float:
    """Return how many round trips a token waits for."""
    return (peers + 1) / 2 if arm == "chain" else float(peers)


def fit_lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Fit each arm over each number of peers; one with a single round trip has no line."""
    lines = []
    for peers in dict.fromkeys(row["peers"] for row in rows):
        mine = sorted((row for row in rows if row["peers"] == peers), key=lambda row: row["rtt_s"])
        for arm in dict.fromkeys(arm for row in mine for arm in row["token_s"]):
            its = [row for row in mine if row["token_s"].get(arm)]
            if len({row["rtt_s"] for row in its}) > 1:
                lines.append(_fit(peers, arm, its))
    return lines


def _fit(peers: int, arm: str, rows: Sequence[Mapping[str, Any]]) -> Line:
    rtt_s = [row["rtt_s"] for row in rows]
    blocks = min(len(row["token_s"][arm]) for row in rows)
    fits = [
        np.polyfit(rtt_s, [row["token_s"][arm][block] for row in rows], 1)
        for block in range(blocks)
    ]
    return Line(
        peers=peers,
        arm=arm,
        points=tuple((row["rtt_s"], median(row["token_s"][arm])) for row in rows),
        round_trips=median_of([float(slope) for slope, _ in fits]),
        ought=law_round_trips(arm, peers),
        base_s=median_of([float(base) for _, base in fits]),
    )
