"""What one request looked like to a client, and how far that is from the truth.

A client reports a TTFT and, where it keeps them, the arrival of each chunk. The known-truth server
wrote down when it had the whole request and when it sent each token, on the same monotonic clock:

- first chunk: arrival of the first token minus the moment at which it was sent;
- gap: |(gap between two arrivals) - (gap between the same two sends)|;
- TTFT: reported TTFT minus (first token sent - request received). It holds the client's own
  connecting and sending, which a user of that client takes for the server's time.

Sending, kernel and scheduler count as the client's error: these are upper bounds. Seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import TYPE_CHECKING, Any

from shoestring.analysis.stats import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Truth = dict[int, list[int]]
"""When each token was sent, by the moment at which the server had the whole request (ns)."""


@dataclass(frozen=True)
class Sample:
    """One request as its client saw it.

    Attributes:
        received_ns: the server's own stamp of it, by which the truth is found; None where no
            answer came.
        failure: None where the client calls it a success, else the reason that it gives.
        ttft_s: as reported.
        mean_itl_s: the mean gap that the client reports for it; None where it reports none.
        arrivals_ns: of its tokens, on the monotonic clock; empty where the client keeps none.
    """

    received_ns: int | None
    failure: str | None
    ttft_s: float | None
    mean_itl_s: float | None
    arrivals_ns: tuple[int, ...] = ()

    @property
    def longest_gap_s(self) -> float | None:
        """The longest gap that its client's record holds."""
        return max((gap / 1e9 for gap in _gaps(self.arrivals_ns)), default=None)


def read_truth(log: Path) -> Truth:
    """Read the server's log."""
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return {line["received_ns"]: line["token_sent_ns"] for line in lines}


def drop_warmup(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Leave out the first ``count`` answers, by the order in which the server had the requests."""
    answered = [sample for sample in samples if sample.received_ns is not None]
    return sorted(answered, key=lambda sample: sample.received_ns or 0)[count:]


def describe_errors(samples: Sequence[Sample], truth: Truth) -> dict[str, Any]:
    """Reduce the samples of one client at one concurrency to the errors of its clock."""
    ttfts, firsts, gaps = [], [], []
    for sample in samples:
        if sample.received_ns is None or sample.ttft_s is None:
            continue
        sent_ns = truth[sample.received_ns]
        ttfts.append(sample.ttft_s - (sent_ns[0] - sample.received_ns) / 1e9)
        if sample.arrivals_ns:
            firsts.append((sample.arrivals_ns[0] - sent_ns[0]) / 1e9)
            pairs = zip(_gaps(sample.arrivals_ns), _gaps(sent_ns), strict=True)
            gaps += [abs(ours - theirs) / 1e9 for ours, theirs in pairs]
    return {
        "requests": len(ttfts),
        "ttft_error_s": _spread(ttfts),
        "first_chunk_error_s": _spread(firsts),
        "gap_error_s": _spread(gaps),
    }


def describe_outcome(samples: Sequence[Sample]) -> dict[str, Any]:
    """Say what a client makes of misbehaving streams."""
    failures = [sample.failure for sample in samples if sample.failure is not None]
    itls = [sample.mean_itl_s for sample in samples if sample.mean_itl_s is not None]
    longest = [gap for sample in samples if (gap := sample.longest_gap_s) is not None]
    return {
        "requests": len(samples),
        "called_success": len(samples) - len(failures),
        "failures": {reason: failures.count(reason) for reason in sorted(set(failures))},
        "mean_itl_s": mean(itls) if itls else None,
        "longest_gap_in_record_s": max(longest, default=None),
    }


def _gaps(stamps_ns: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(stamps_ns)]


def _spread(values: list[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    return {"median": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
