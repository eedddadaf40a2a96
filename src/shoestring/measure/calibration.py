"""How far our own clock is off: the same client against a server whose truth is known.

Every chunk of that server carries the time at which it was sent, taken just before the write, on
the same monotonic clock. The errors, in seconds:

- first chunk: our stamp of the first token minus the server's;
- gap: (our gap between two tokens) minus (the server's gap between the same two).

They hold server, kernel, scheduler and client: they are upper bounds of the client's own error,
and the floor below which a figure of this session means nothing.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.protocol import Patience, Prompt
from shoestring.errors import InterruptedRunError, ShoestringError
from shoestring.measure.loop import Ask, Stop, closed_loop
from shoestring.measure.prompting import PromptText
from shoestring.measure.schedule import Planned
from shoestring.truth.process import running_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoestring.engines.protocol import Generation
    from shoestring.engines.transport import Cancellation

SESSION_MODEL = "truth-ttft5-itl2-n16"
SESSION_REQUESTS = 48
P99_FLOOR = 662
"""Fewest samples for a p99 at 99 % confidence (mlcommons/endpoints, early stopping)."""


@dataclass(frozen=True)
class ClockError:
    """Errors at one concurrency, in seconds; a p99 is None below ``P99_FLOOR`` samples.

    Attributes:
        ttft_error_s: median of the first-chunk errors.
        ttft_error_p99_s: their 99th percentile.
        gap_error_p99_s: 99th percentile of the absolute gap errors.
    """

    concurrency: int
    requests: int
    ttft_error_s: float
    ttft_error_p99_s: float | None
    gap_error_p99_s: float | None


def calibrate(
    concurrencies: Iterable[int], stop: Stop, cancellation: Cancellation
) -> dict[str, Any]:
    """Measure the session's floor at each concurrency; about a second each.

    Returns:
        The ``calibration`` object of ``environment.json``: the worst of all, and each.
    """
    with running_server() as server:
        errors = [
            clock_error(
                collect(
                    server.base_url,
                    SESSION_MODEL,
                    SESSION_REQUESTS,
                    concurrency,
                    stop,
                    cancellation,
                ),
                concurrency,
            )
            for concurrency in sorted(set(concurrencies))
            if not stop.asked
        ]
    if not errors:
        raise InterruptedRunError("the calibration was interrupted")
    worst: dict[str, Any] = {
        name: max((asdict(error)[name] for error in errors), key=lambda value: value or 0.0)
        for name in ("ttft_error_s", "ttft_error_p99_s", "gap_error_p99_s")
    }
    return {
        "requests": sum(error.requests for error in errors),
        **worst,
        "by_concurrency": [asdict(error) for error in errors],
    }


def collect(
    base_url: str,
    model: str,
    requests: int,
    concurrency: int,
    stop: Stop,
    cancellation: Cancellation,
) -> list[Generation]:
    """Ask the known-truth server ``requests`` times and return what arrived.

    Raises:
        ShoestringError: a request failed, which on loopback it must not.
    """
    engine = OpenAIEngine(base_url, model, api_key="")
    text = PromptText("now", None)
    asks = [
        Ask(Planned(f"k{number}", 0, "calibration", concurrency), Prompt(text.text, 100_000), text)
        for number in range(requests)
    ]
    answers = closed_loop(engine, asks, concurrency, Patience(10.0, 60.0), stop, cancellation)
    with closing(answers):
        generations = [answer.recording.read() for answer in answers]
    failed = [g.failure for g in generations if g.failure is not None]
    if failed:
        raise ShoestringError(f"the clock could not be calibrated: {failed[0].detail}")
    return generations


def clock_error(generations: Sequence[Generation], concurrency: int) -> ClockError:
    """Reduce stamped generations to the errors of the clock."""
    firsts: list[float] = []
    gaps: list[float] = []
    for generation in generations:
        stamps = [(t["arrived_ns"], t["sent_ns"]) for t in generation.truth]
        firsts.append((stamps[0][0] - stamps[0][1]) / 1e9)
        for (a0, s0), (a1, s1) in pairwise(stamps):
            gaps.append(abs((a1 - a0) - (s1 - s0)) / 1e9)
    return ClockError(
        concurrency=concurrency,
        requests=len(generations),
        ttft_error_s=median(firsts),
        ttft_error_p99_s=_p99(firsts),
        gap_error_p99_s=_p99(gaps),
    )


def _p99(values: list[float]) -> float | None:
    if len(values) < P99_FLOOR:
        return None
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]
