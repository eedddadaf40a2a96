"""The measured rows with their metrics, sorted by case and block.

A block is one pass over all cases. It is the unit of the intervals: what is drawn is a block, not
a request. Warm-ups are not here. Failed requests are here, because they count in the success rate,
in goodput and in the time that a block took; their latencies are None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from shoestring.analysis.metrics import NS_PER_S, RequestMetrics, request_gaps_s, request_metrics
from shoestring.errors import BadRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shoestring.measure.records import Row, Run

Key = TypeVar("Key")

ITL = "itl_s"
AGGREGATE = "output_tokens_per_s_aggregate"

# The order of DESIGN's JSON, then what explains it. `load_s` is of a session, not of a request.
REQUEST_METRICS = (
    "ttft_s", "tpot_s", ITL, "e2e_s", "decode_tokens_per_s", AGGREGATE, "prefill_tokens_per_s",
)  # fmt: skip
LIMITED = ("ttft_s", "tpot_s", "e2e_s")
"""What a suite may limit: the times of a request, of which less is better."""
MORE_METRICS = (
    "first_chunk_s", "first_reasoning_s", "first_answer_s", "schedule_lag_s", "reasoning_share",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One measured request: its row, its metrics, and the raw gaps between its chunks."""

    row: Row
    metrics: RequestMetrics
    gaps_s: tuple[float, ...]
    good: bool | None

    @property
    def ok(self) -> bool:
        """Whether the answer came whole."""
        return bool(self.row["status"] == "ok")

    @property
    def case(self) -> tuple[str, int]:
        """The case and its concurrency: what may be pooled without mixing loads."""
        return str(self.row["case"]), int(self.row["concurrency"])


def measured_samples(run: Run) -> list[Sample]:
    """Return the measured requests of a run, failures included, warm-ups not."""
    limits = suite_limits(run)
    samples = []
    for row in run.measured:
        metrics = request_metrics(row)
        good = meets_limits(row, metrics, limits)
        samples.append(Sample(row, metrics, tuple(request_gaps_s(row)), good))
    return samples


def suite_limits(run: Run) -> dict[str, float]:
    """Return the limits under which the suite calls a request good, by metric; may be empty.

    Raises:
        BadRunError: a limit is of something else than ``LIMITED``, or is no number.
    """
    limits = dict(run.config["suite"].get("limits") or {})
    for name, limit in limits.items():
        if name not in LIMITED or not isinstance(limit, int | float):
            raise BadRunError(
                f"{run.path}: the suite limits {name} to {limit!r}: give seconds for one of "
                f"{', '.join(LIMITED)}"
            )
    return limits


def meets_limits(row: Row, metrics: RequestMetrics, limits: dict[str, float]) -> bool | None:
    """Say whether a request met every limit.

    A failure met none. One that exceeds a limit is not good. None where nothing is exceeded but a
    limited metric is unknown (an answer of one token has no TPOT), where there is no limit, and
    for a warm-up.
    """
    if row["phase"] != "measure" or not limits:
        return None
    if row["status"] != "ok":
        return False
    values = {name: getattr(metrics, name) for name in limits}
    if any(value is not None and value > limits[name] for name, value in values.items()):
        return False
    return None if None in values.values() else True


def early_stops(run: Run, samples: Iterable[Sample]) -> int:
    """Count the answers that ended before their limit where the engine was asked to go on.

    A case whose ``fixed_length`` is false lets an answer end where it likes; runs that do not say
    are of the first kind.
    """
    free = {case["name"] for case in run.config["suite"]["cases"]
            if case.get("fixed_length") is False}  # fmt: skip
    return sum(
        sample.ok and bool(sample.metrics.early_stop) and sample.row["case"] not in free
        for sample in samples
    )


def by_case(run: Run, samples: Iterable[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """Sort samples by case and concurrency, in the order of the suite."""
    groups = grouped(samples, lambda sample: sample.case)
    names = [case["name"] for case in run.config["suite"]["cases"]]
    order = {name: position for position, name in enumerate(names)}
    return dict(
        sorted(groups.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0]))
    )


def metric_blocks(samples: Sequence[Sample], name: str) -> list[list[float]]:
    """Return the values of a metric, one list a block, in the order of the blocks.

    Blocks without a value are left out.
    """
    blocks = grouped(samples, lambda sample: int(sample.row["block"]))
    values = [_block_values(blocks[block], name) for block in sorted(blocks)]
    return [block for block in values if block]


def span_s(samples: Iterable[Sample]) -> float:
    """Return how long the requests took together: first intended send to last end.

    Summed over blocks, cases and sessions: between them the engine was not under this load, and
    the clocks of two sessions cannot be compared.
    """
    windows = grouped(
        samples, lambda sample: (sample.row["session"], sample.row["block"], *sample.case)
    )
    return sum(_window_s(window) for window in windows.values())


def cached_share(samples: Iterable[Sample]) -> float | None:
    """Return cached / all prompt tokens, over the answers of which both are known."""
    cached = prompt = 0
    for sample in samples:
        metrics = sample.metrics
        if sample.ok and metrics.cached_tokens is not None and metrics.prompt_tokens is not None:
            cached += metrics.cached_tokens
            prompt += metrics.prompt_tokens
    return cached / prompt if prompt else None


def grouped(samples: Iterable[Sample], key: Callable[[Sample], Key]) -> dict[Key, list[Sample]]:
    """Sort samples into lists by a key, in the order in which the keys appear."""
    groups: dict[Key, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return groups


def _window_s(samples: Sequence[Sample]) -> float:
    start_ns = min(sample.row["intended_ns"] for sample in samples)
    end_ns = max(sample.row["end_ns"] for sample in samples)
    return float((end_ns - start_ns) / NS_PER_S)


def _block_values(samples: Sequence[Sample], name: str) -> list[float]:
    if name == ITL:
        return [gap_s for sample in samples for gap_s in sample.gaps_s]
    if name == AGGREGATE:
        cases = grouped(samples, lambda sample: sample.case).values()
        return [rate for case in cases if (rate := _aggregate_rate(case)) is not None]
    values = (getattr(sample.metrics, name) for sample in samples if sample.ok)
    return [float(value) for value in values if value is not None]


def _aggregate_rate(samples: Sequence[Sample]) -> float | None:
    """Output tokens of the good answers over the time of all, failures included."""
    tokens = [sample.metrics.output_tokens for sample in samples if sample.ok]
    known = [count for count in tokens if count is not None]
    duration_s = span_s(samples)
    if not tokens or len(known) < len(tokens) or duration_s <= 0:
        return None
    return sum(known) / duration_s
