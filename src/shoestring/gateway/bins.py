"""The last quarter of an hour in bins of 5 s: what the dashboard's charts show.

A request counts in the bin in which it ended. Percentiles are taken from the raw times to first
token of a bin (type 7, as everywhere in the project) before these are forgotten. Output tokens are
told when an answer ends; they are spread evenly over the time in which it was made, so that a long
answer is no peak at its end.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

BIN_S = 5.0
BINS = 180
RAW_TTFTS = 2_000
"""Kept of one bin; of more, a fair sample of this size stands for all."""


@dataclass(frozen=True)
class Gauges:
    """What stands at one moment; None: not known."""

    queue_waiting: int | None
    active_requests: int | None
    model_memory_bytes: int | None
    gateway_memory_bytes: int | None


@dataclass(frozen=True)
class Series:
    """The last bins that are over, oldest first; lists of one length.

    ``t_utc_s`` is where a bin begins. A rate is 0 where nothing happened; a percentile is None
    where no answer ended, a gauge where none was read.
    """

    t_utc_s: list[float]
    requests_per_s: list[float]
    errors_per_s: list[float]
    ttft_p50_s: list[float | None]
    ttft_p90_s: list[float | None]
    output_tokens_per_s: list[float]
    queue_waiting: list[int | None]
    active_requests: list[int | None]
    model_memory_bytes: list[int | None]
    gateway_memory_bytes: list[int | None]


@dataclass
class _Bin:
    index: int
    t_utc_s: float
    requests: int = 0
    errors: int = 0
    output_tokens: float = 0.0
    ttfts: list[float] = field(default_factory=list)
    ttfts_seen: int = 0
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    gauges: Gauges = Gauges(None, None, None, None)

    def close(self) -> None:
        self.ttfts.sort()
        self.ttft_p50_s = percentile(self.ttfts, 0.5)
        self.ttft_p90_s = percentile(self.ttfts, 0.9)
        self.ttfts.clear()


class Bins:
    """The bins of the last quarter of an hour.

    Args:
        clock: monotonic, in seconds.
        utc: seconds since 1970, for people only.
        chance: picks the sample of a bin with very many answers.
    """

    def __init__(
        self, clock: Callable[[], float], utc: Callable[[], float], chance: random.Random
    ) -> None:
        self._clock = clock
        self._utc = utc
        self._chance = chance
        self._bins: deque[_Bin] = deque(maxlen=BINS + 1)  # the last is not over yet
        self._open(self._index())

    def add(self, *, failed: bool) -> None:
        """Count a request that has just ended."""
        bin_ = self._now()
        bin_.requests += 1
        bin_.errors += failed

    def add_ttft(self, ttft_s: float) -> None:
        """Keep it, or by chance instead of another: every answer is as likely to stay."""
        bin_ = self._now()
        bin_.ttfts_seen += 1
        if len(bin_.ttfts) < RAW_TTFTS:
            bin_.ttfts.append(ttft_s)
            return
        place = self._chance.randrange(bin_.ttfts_seen)
        if place < RAW_TTFTS:
            bin_.ttfts[place] = ttft_s

    def add_tokens(self, tokens: int, lasted_s: float) -> None:
        """Give each bin its share of an answer that ends now.

        Args:
            tokens: of the answer.
            lasted_s: how long they were made; what lies before the oldest bin is left out.
        """
        open_ = self._now()
        end_s = self._clock()
        start_s = end_s - lasted_s
        if lasted_s <= 0 or open_.index * BIN_S <= start_s:
            open_.output_tokens += tokens
            return
        for bin_ in reversed(self._bins):
            from_s = bin_.index * BIN_S
            if from_s + BIN_S <= start_s:
                break
            overlap_s = min(end_s, from_s + BIN_S) - max(start_s, from_s)
            bin_.output_tokens += tokens * overlap_s / lasted_s

    def sample(self, gauges: Gauges) -> None:
        """Keep what stands now; of several in one bin the last stays."""
        self._now().gauges = gauges

    def series(self) -> Series:
        """Return all bins but the one that is not over."""
        self._now()
        over = list(self._bins)[:-1]
        return Series(
            t_utc_s=[bin_.t_utc_s for bin_ in over],
            requests_per_s=[bin_.requests / BIN_S for bin_ in over],
            errors_per_s=[bin_.errors / BIN_S for bin_ in over],
            ttft_p50_s=[bin_.ttft_p50_s for bin_ in over],
            ttft_p90_s=[bin_.ttft_p90_s for bin_ in over],
            output_tokens_per_s=[bin_.output_tokens / BIN_S for bin_ in over],
            queue_waiting=[bin_.gauges.queue_waiting for bin_ in over],
            active_requests=[bin_.gauges.active_requests for bin_ in over],
            model_memory_bytes=[bin_.gauges.model_memory_bytes for bin_ in over],
            gateway_memory_bytes=[bin_.gauges.gateway_memory_bytes for bin_ in over],
        )

    def _index(self) -> int:
        return math.floor(self._clock() / BIN_S)

    def _open(self, index: int) -> None:
        # Told when the bin opens, so that a later step of the wall clock does not move it.
        age_s = self._clock() - index * BIN_S
        self._bins.append(_Bin(index, round(self._utc() - age_s, 3)))

    def _now(self) -> _Bin:
        """Return the bin of this moment, with empty ones for those in which nothing happened."""
        now = self._index()
        if now > self._bins[-1].index:
            self._bins[-1].close()
            for index in range(max(self._bins[-1].index + 1, now - BINS), now + 1):
                self._open(index)
        return self._bins[-1]


def percentile(values: list[float], share: float) -> float | None:
    """Return a percentile between order statistics (type 7); None without values.

    Args:
        values: sorted.
        share: 0.9 for the 90th.
    """
    if not values:
        return None
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)
