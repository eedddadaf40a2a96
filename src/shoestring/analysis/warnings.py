"""What makes a run's numbers doubtful, and what to do next.

A warning is ``{"code", "message"}``. The code is stable, the message is one line: what was seen,
the value, the next step. A warning never changes a number and never hides one.
Each rule is one small function over the evidence; where what it needs was not recorded, it is
silent (why a field was not recorded stands in ``environment.json``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from shoestring.analysis import stats
from shoestring.analysis.calibration import error_floor, worst_calibration
from shoestring.analysis.machine import machine_facts
from shoestring.analysis.samples import ITL, Sample, by_case, cached_share, metric_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shoestring.measure.records import Row, Run

Warned = dict[str, str]

WATCHED = ("ttft_s", "tpot_s")
CV_LIMIT = 0.10
# With five blocks only a perfect order passes (chance: 1.7 %, both directions).
DRIFT_RANK = 0.95
DRIFT_CHANGE = 0.05
FLOOR_FACTOR = 10
CACHE_LIMIT = 0.05
FREQUENCY_CHANGE = 0.05
TEMPERATURE_RISE_C = 10.0
BUSY_PERCENT = 15.0
MIN_TELEMETRY = 25


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    run: Run
    samples: Sequence[Sample]

    @cached_property
    def cases(self) -> dict[str, list[Sample]]:
        """The samples of each case, by a name for people."""
        return {
            f"{name} at concurrency {concurrency}": members
            for (name, concurrency), members in by_case(self.run, self.samples).items()
        }

    @cached_property
    def calibration(self) -> dict[str, Any]:
        """The worst error floor over the sessions."""
        return worst_calibration(self.run)


def run_warnings(run: Run, samples: Sequence[Sample]) -> list[Warned]:
    """Return all warnings about a run, in the order of ``RULES``."""
    evidence = Evidence(run, samples)
    return [warning for rule in RULES for warning in rule(evidence)]


def failed_requests(evidence: Evidence) -> Iterator[Warned]:
    """Some requests failed: latencies are of the others only."""
    failed = [sample for sample in evidence.samples if not sample.ok]
    if failed:
        reasons = sorted({sample.row["failure"]["reason"] for sample in failed})
        yield _warning(
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
        yield _warning(
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
            yield _warning(
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
            yield _warning(
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
            yield _warning(
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
        yield _warning(
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
            yield _warning(
                f"few_samples_p{q}",
                f"p{q} of ttft_s, tpot_s and e2e_s needs {floor} answers a case and "
                f"is null below: {'; '.join(lacking)}. "
                "Raise requests_per_block in the suite or --requests",
            )


def early_stops(evidence: Evidence) -> Iterator[Warned]:
    """Answers ended before their limit: cases are of unequal lengths."""
    stopped = sum(bool(sample.metrics.early_stop) for sample in evidence.samples)
    if stopped:
        yield _warning(
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
        yield _warning(
            "token_discrepancies",
            f"usage and native timings differ in {len(found)} answers, by up to "
            f"{max(found, key=abs):+d} tokens; rates use usage: check the engine's version",
        )


def unknown_tokens(evidence: Evidence) -> Iterator[Warned]:
    """Nobody counted the output tokens of some answers."""
    unknown = sum(s.ok and s.metrics.output_tokens is None for s in evidence.samples)
    if unknown:
        yield _warning(
            "unknown_tokens",
            f"the engine sent no token count for {unknown} answers, so they have no tpot_s and no "
            "rates: use an engine or a version that sends usage at the end of a stream",
        )


def prefix_cache(evidence: Evidence) -> Iterator[Warned]:
    """Prompts came from the prefix cache, so prefill was not measured whole."""
    share = cached_share(evidence.samples)
    if share is not None and share > CACHE_LIMIT:
        yield _warning(
            "prefix_cache",
            f"{share:.0%} of the prompt tokens came from the engine's prefix cache (limit "
            f"{CACHE_LIMIT:.0%}), so ttft_s is too good: turn prompt caching off in the engine",
        )


def frequency_drift(evidence: Evidence) -> Iterator[Warned]:
    """The CPU's frequency changed while the session ran."""
    for session, first, last in _ends(evidence.run, "frequency_hz"):
        change = last / first - 1
        if abs(change) >= FREQUENCY_CHANGE:
            yield _warning(
                "frequency_drift",
                f"the CPU frequency changed by {change:+.0%} during session {session}: set the "
                "performance governor, or let the machine cool between runs",
            )


def temperature_drift(evidence: Evidence) -> Iterator[Warned]:
    """The machine became hot while the session ran."""
    for session, first, last in _ends(evidence.run, "temperature_c"):
        if last - first >= TEMPERATURE_RISE_C:
            yield _warning(
                "temperature_drift",
                f"the temperature rose from {first:.0f} to {last:.0f} °C during session {session}: "
                "warm up longer, or improve the cooling",
            )


def busy_machine(evidence: Evidence) -> Iterator[Warned]:
    """Others than the engine used the CPU."""
    for session in evidence.run.sessions:
        cores = ((session.get("machine") or {}).get("cpu") or {}).get("cores_logical")
        others = [
            sample["cpu_percent"] - sample["engine_cpu_percent"] / cores
            for sample in _telemetry(evidence.run, session)
            if cores and _both(sample, "cpu_percent", "engine_cpu_percent")
        ]
        if len(others) >= MIN_TELEMETRY and median(others) >= BUSY_PERCENT:
            yield _warning(
                "busy_machine",
                f"programs other than the engine used {median(others):.0f} % of the CPU in session "
                f"{session['session']} (limit {BUSY_PERCENT:.0f} %): stop them and run again",
            )


def unlike_sessions(evidence: Evidence) -> Iterator[Warned]:
    """Sessions of one run were on unlike machines or engines."""
    told = [machine_facts(session) for session in evidence.run.sessions]
    unlike = [name for name in machine_facts({}) if len({facts[name] for facts in told}) > 1]
    if unlike:
        yield _warning(
            "unlike_sessions",
            f"the sessions of this run differ in {', '.join(unlike)}, so its numbers mix machines: "
            "run the suite again in one place",
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
    frequency_drift,
    temperature_drift,
    busy_machine,
    unlike_sessions,
)


def _warning(code: str, message: str) -> Warned:
    return {"code": code, "message": message}


def _block_medians(evidence: Evidence) -> Iterator[tuple[str, str, list[float]]]:
    for case, members in evidence.cases.items():
        for name in WATCHED:
            yield case, name, [median(block) for block in metric_blocks(members, name)]


def _telemetry(run: Run, session: dict[str, Any]) -> list[Row]:
    return [sample for sample in run.telemetry if sample["session"] == session["session"]]


def _both(sample: Row, first: str, second: str) -> bool:
    return sample.get(first) is not None and sample.get(second) is not None


def _ends(run: Run, name: str) -> Iterator[tuple[int, float, float]]:
    """Yield the median of the first and of the last fifth of a sensor, session by session."""
    for session in run.sessions:
        values = [s[name] for s in _telemetry(run, session) if s.get(name) is not None]
        fifth = len(values) // 5
        if len(values) >= MIN_TELEMETRY:
            yield session["session"], median(values[:fifth]), median(values[-fifth:])
