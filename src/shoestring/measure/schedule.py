"""The order of a run: every request by name, before the first is sent.

Blocks are interleaved: each holds every case once, in an order shuffled by the seed.
In an open loop each request also has the moment at which it is meant to leave. Those moments come
from seed, block and case alone, so that a resumed run keeps them.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.measure.suite import Case, Suite


@dataclass(frozen=True)
class Planned:
    """One request that will be sent; ``id`` is unique in the run.

    ``concurrency`` is what it will really see: never more than its batch has requests; in an open
    loop it is the most that may be in flight. ``arrival_s`` is when it is meant to leave, in
    seconds since its batch began; None in a closed loop, where it leaves when a slot is free.
    """

    id: str
    block: int
    case: str
    concurrency: int
    arrival_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as ``config.json`` holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """The requests of one case in one block: they share ``concurrency`` slots."""

    block: int
    case: Case
    requests: tuple[Planned, ...]
    concurrency: int


def plan_batches(suite: Suite, requests: int | None = None) -> list[Batch]:
    """Return every batch of the suite in the order in which they are sent.

    Args:
        suite: what is asked.
        requests: so many in all instead of the suite's, dealt evenly over blocks and cases.
    """
    rng = random.Random(suite.seed)
    cells = []
    for block in range(1, suite.blocks + 1):
        cases = list(suite.cases)
        rng.shuffle(cases)
        cells += [(block, case) for case in cases]
    counts = [case.requests_per_block for _, case in cells]
    if requests is not None:
        each, more = divmod(requests, len(cells))
        counts = [each + (number < more) for number in range(len(cells))]
    return [
        Batch(block, case, _requests(suite, block, case, count), min(case.concurrency, count))
        for (block, case), count in zip(cells, counts, strict=True)
        if count
    ]


def _requests(suite: Suite, block: int, case: Case, count: int) -> tuple[Planned, ...]:
    concurrency = min(case.concurrency, count)
    rng = random.Random(f"{suite.seed}/{block}/{case.name}/arrivals")
    return tuple(
        Planned(f"b{block}-{case.name}-{number:04d}", block, case.name, concurrency, arrival_s)
        for number, arrival_s in enumerate(_arrivals(case, count, rng), start=1)
    )


def _arrivals(case: Case, count: int, rng: random.Random) -> list[float | None]:
    """Return when each request leaves, to the nanosecond: evenly, or by exponential gaps.

    More requests begin with the same moments as fewer.
    """
    rate_per_s = case.rate_per_s
    if rate_per_s is None:
        return [None] * count
    if case.arrival == "constant":
        return [round(number / rate_per_s, 9) for number in range(count)]
    return [round(at, 9) for at in accumulate(rng.expovariate(rate_per_s) for _ in range(count))]
