"""What makes a run's numbers doubtful, and what to do next.

A warning is ``{"code", "message"}``. The code is stable, the message is one line: what was seen,
the value, the next step. A warning never changes a number and never hides one.
Each rule is one small function over the evidence; where what it needs was not recorded, it is
silent (why a field was not recorded stands in ``environment.json``).
The rules about requests are here, those about the machine below them in ``noise``.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from shoestring.analysis import noise, stats
from shoestring.analysis.arrivals import arrivals
from shoestring.analysis.calibration import error_floor
from shoestring.analysis.evidence import Evidence, Warned, warning
from shoestring.analysis.samples import ITL, Sample, cached_share, metric_blocks
from shoestring.analysis.samples import early_stops as count_early_stops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shoestring.measure.records import Run

WATCHED = ("ttft_s", "tpot_s")
CV_LIMIT = 0.10
# With five blocks only a perfect order passes (chance: 1.7 %, both directions).
DRIFT_RANK = 0.95
DRIFT_CHANGE = 0.05
FLOOR_FACTOR = 10
CACHE_LIMIT = 0.05
LAG_SHARE = 0.10
DIALOGUE = "dialogue"


def run_warnings(run: Run, samples: Sequence[Sample]) -> list[Warned]:
    """Return all warnings about a run, in the order of ``RULES``."""
    evidence = Evidence(run, samples)
    return [found for rule in RULES for found in rule(evidence)]


def failed_requests(evidence: Evidence) -> Iterator[Warned]:
    """Some requests failed: latencies are of the others only."""
    failed = [sample for sample in evidence.samples if not sample.ok]
    if failed:
        reasons = sorted({sample.row["failure"]["reason"] for sample in failed})
        yield warning(
            "failures",
            f"{len(failed)} of {len(evidence.samples)} requests failed ({', '.join(reasons)}) and "
            "have no latencies: read their rows in requests.jsonl and the engine's log",
        )


def few_blocks(evidence: Evidence) -> Iterator[Warned]:
    """Fewer than five blocks of a case: no interval."""
    counts = {
        case: len({sample.row["block"] for sample in members if sample.ok})
        for case, members in evidence.cases.items()
    }
    few = {case: n for case, n in (counts or {"the run": 0}).items() if n < stats.MIN_BLOCKS}
    if few:
        lacking = "; ".join(f"{case} has {n}" for case, n in few.items())
        yield warning(
            "few_blocks",
            f"an interval needs {stats.MIN_BLOCKS} blocks with answers and is null below: "
            f"{lacking}. Set blocks in the suite to {stats.MIN_BLOCKS} or more, raise --requests, "
            "or resume the run",
        )


def unstable_blocks(evidence: Evidence) -> Iterator[Warned]:
    """The medians of the blocks differ by much."""
    for case, name, medians in _block_medians(evidence):
        spread = stats.coefficient_of_variation(medians)
        if spread is not None and spread >= CV_LIMIT:
            yield warning(
                "unstable",
                f"{name} of {case} varies by {spread:.0%} between blocks (limit {CV_LIMIT:.0%}): "
                "stop other programs, pin the engine's threads, and run again",
            )


def drifting_blocks(evidence: Evidence) -> Iterator[Warned]:
    """The medians of the blocks go one way."""
    for case, name, medians in _block_medians(evidence):
        rank, change = stats.spearman(medians), stats.theil_sen_change(medians)
        if len(medians) < stats.MIN_BLOCKS or rank is None or change is None:
            continue
        if abs(rank) >= DRIFT_RANK and abs(change) >= DRIFT_CHANGE:
            yield warning(
                "drift",
                f"{name} of {case} changed by {change:+.0%} from the first block to the last: "
                "look at temperature and frequency, let the machine cool, and warm up longer",
            )


def near_error_floor(evidence: Evidence) -> Iterator[Warned]:
    """A latency is so short that the client's own error counts."""
    for name, error in (("ttft_s", "ttft_error_s"), (ITL, "gap_error_p99_s")):
        for case, members in evidence.cases.items():
            values = [value for block in metric_blocks(members, name) for value in block]
            floor_s = error_floor(evidence.calibration, error, members[0].case[1])
            if not values or floor_s is None or median(values) >= FLOOR_FACTOR * abs(floor_s):
                continue
            yield warning(
                "near_error_floor",
                f"the median {name} of {case}, {median(values):.2g} s, is below "
                f"{FLOOR_FACTOR} times this session's own error of {abs(floor_s):.2g} s: use a "
                "longer prompt or a larger model, or free a core for the client",
            )


def no_calibration(evidence: Evidence) -> Iterator[Warned]:
    """A session did not time the truth server."""
    known, sessions = evidence.calibration["sessions_calibrated"], len(evidence.run.sessions)
    if known < sessions or not sessions:
        lacking = f"{sessions - known} of {sessions} sessions have no calibration"
        yield warning(
            "no_calibration",
            f"{lacking if sessions else 'no session is recorded'}, so the client's own error is "
            "unknown: run again without interrupting the start",
        )


def few_samples(evidence: Evidence) -> Iterator[Warned]:
    """A percentile is null because there are too few answers."""
    for q in (90, 99):
        floor = stats.PERCENTILE_FLOORS[q]
        counts = {case: sum(s.ok for s in members) for case, members in evidence.cases.items()}
        lacking = [f"{case} has {n} ({floor - n} more)" for case, n in counts.items() if n < floor]
        if lacking:
            yield warning(
                f"few_samples_p{q}",
                f"p{q} of ttft_s, tpot_s and e2e_s needs {floor} answers a case and "
                f"is null below: {'; '.join(lacking)}. "
                "Raise requests_per_block in the suite or --requests",
            )


def early_stops(evidence: Evidence) -> Iterator[Warned]:
    """Answers ended before their limit although the engine was asked to go on."""
    stopped = count_early_stops(evidence.run, evidence.samples)
    if stopped:
        yield warning(
            "early_stops",
            f"{stopped} answers ended before their token limit, so answers differ in length: "
            "compare e2e_s only at equal length, or make the engine ignore end-of-text",
        )


def token_discrepancies(evidence: Evidence) -> Iterator[Warned]:
    """The engine contradicts itself about how many tokens it made."""
    # A failure was cut at some point, where the two counts need not agree.
    ok = [sample.metrics for sample in evidence.samples if sample.ok]
    found = [metrics.token_discrepancy for metrics in ok if metrics.token_discrepancy]
    if found:
        yield warning(
            "token_discrepancies",
            f"usage and native timings differ in {len(found)} answers, by up to "
            f"{max(found, key=abs):+d} tokens; rates use usage: check the engine's version",
        )


def unknown_tokens(evidence: Evidence) -> Iterator[Warned]:
    """Nobody counted the output tokens of some answers."""
    unknown = sum(s.ok and s.metrics.output_tokens is None for s in evidence.samples)
    if unknown:
        yield warning(
            "unknown_tokens",
            f"the engine sent no token count for {unknown} answers, so they have no tpot_s and no "
            "rates: use an engine or a version that sends usage at the end of a stream",
        )


def prefix_cache(evidence: Evidence) -> Iterator[Warned]:
    """Prompts came from the prefix cache, so prefill was not measured whole."""
    # A dialogue sends its own past again: that the cache holds it is what is measured there.
    fresh = [
        sample
        for members in evidence.cases.values()
        if evidence.asked(members).get("prompt") != DIALOGUE
        for sample in members
    ]
    share = cached_share(fresh)
    if share is not None and share > CACHE_LIMIT:
        yield warning(
            "prefix_cache",
            f"{share:.0%} of the prompt tokens came from the engine's prefix cache (limit "
            f"{CACHE_LIMIT:.0%}), so ttft_s is too good: turn prompt caching off in the engine",
        )


def late_sends(evidence: Evidence) -> Iterator[Warned]:
    """An open loop did not send at its planned rate."""
    for case, members in evidence.cases.items():
        sent = arrivals(evidence.asked(members), members)
        if sent is None:
            continue
        lag_s, planned = sent["lag_s"]["median"], sent["planned_per_s"]
        said = []
        if lag_s is not None and planned and lag_s > LAG_SHARE / planned:
            said.append(f"half of its requests left {lag_s:.2g} s late or later")
        if sent["limited"]:
            said.append(
                f"{sent['limited']} requests had to wait at {sent['in_flight_limit']} in flight"
            )
        if said:
            yield warning(
                "late_sends",
                f"{case} was to send {planned or 0:.3g} requests/s and sent "
                f"{sent['achieved_per_s'] or 0:.3g}; {' and '.join(said)}: latencies hold that "
                "wait, and the loop was not open while it lasted; lower rate_per_s, raise "
                "concurrency, or free a core for the client",
            )


RULES: tuple[Callable[[Evidence], Iterator[Warned]], ...] = (
    failed_requests,
    few_blocks,
    unstable_blocks,
    drifting_blocks,
    near_error_floor,
    no_calibration,
    few_samples,
    early_stops,
    token_discrepancies,
    unknown_tokens,
    prefix_cache,
    late_sends,
    *noise.RULES,
)


def _block_medians(evidence: Evidence) -> Iterator[tuple[str, str, list[float]]]:
    for case, members in evidence.cases.items():
        for name in WATCHED:
            yield case, name, [median(block) for block in metric_blocks(members, name)]
