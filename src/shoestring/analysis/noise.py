"""The noise of the machine itself: rules about what was seen beside the requests.

Each is one small function over the evidence, as in ``warnings``, and silent where the telemetry
that it needs was not recorded.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean, median
from typing import TYPE_CHECKING

from shoestring.analysis.evidence import Evidence, Warned, warning
from shoestring.analysis.machine import machine_facts
from shoestring.analysis.sessions import interruptions
from shoestring.analysis.telemetry import requests_telemetry, session_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoestring.measure.records import Row, Run

FREQUENCY_CHANGE = 0.05
TEMPERATURE_RISE_C = 10.0
BUSY_PERCENT = 15.0
STEAL_PERCENT = 2.0
SWAP_GROWTH_BYTES = 16 * 2**20
FAULTS_PER_S = 10.0
THROTTLED_SHARE = 0.05
# Of the causes that are recorded, these hold a clock at its best: that of a group of GPUs, and the
# highest that the voltage allows.
NO_THROTTLING = {"sync boost", "reliability"}
MIN_TELEMETRY = 25


def frequency_drift(evidence: Evidence) -> Iterator[Warned]:
    """The CPU's frequency changed while the session ran."""
    for session, first, last in _ends(evidence.run, "frequency_hz"):
        change = last / first - 1
        if abs(change) >= FREQUENCY_CHANGE:
            yield warning(
                "frequency_drift",
                f"the CPU frequency changed by {change:+.0%} during session {session}: set the "
                "performance governor, or let the machine cool between runs",
            )


def temperature_drift(evidence: Evidence) -> Iterator[Warned]:
    """The machine became hot while the session ran."""
    for session, first, last in _ends(evidence.run, "temperature_c"):
        if last - first >= TEMPERATURE_RISE_C:
            yield warning(
                "temperature_drift",
                f"the temperature rose from {first:.0f} to {last:.0f} °C during session {session}: "
                "warm up longer, or improve the cooling",
            )


def busy_machine(evidence: Evidence) -> Iterator[Warned]:
    """Others than the engine used the CPU; what the host took away is named by itself."""
    for session in evidence.run.sessions:
        cores = ((session.get("machine") or {}).get("cpu") or {}).get("cores_logical")
        others = [
            sample["cpu_percent"]
            - (sample.get("steal_percent") or 0.0)
            - sample["engine_cpu_percent"] / cores
            for sample in session_samples(evidence.run, session["session"])
            if cores and _both(sample, "cpu_percent", "engine_cpu_percent")
        ]
        if len(others) >= MIN_TELEMETRY and median(others) >= BUSY_PERCENT:
            yield warning(
                "busy_machine",
                f"programs other than the engine used {median(others):.0f} % of the CPU in session "
                f"{session['session']} (limit {BUSY_PERCENT:.0f} %): stop them and run again",
            )


def stolen_time(evidence: Evidence) -> Iterator[Warned]:
    """The host gave the processor to other guests."""
    for session, samples in _by_session(evidence.run):
        steal = _values(samples, "steal_percent")
        if len(steal) >= MIN_TELEMETRY and median(steal) >= STEAL_PERCENT:
            yield warning(
                "stolen_time",
                f"the host took {median(steal):.1f} % of the CPU away in session {session} (limit "
                f"{STEAL_PERCENT:.0f} %): other guests compete for it; run at another hour, or on "
                "a machine of your own",
            )


def swapping(evidence: Evidence) -> Iterator[Warned]:
    """Memory went to disk while the session ran."""
    for session, samples in _by_session(evidence.run):
        engine = max(_values(samples, "engine_swap_bytes"), default=0)
        used = _values(samples, "swap_used_bytes")
        grown = max(used) - used[0] if used else 0
        said = [f"{engine / 1e6:.0f} MB of the engine were in swap"] if engine > 0 else []
        if grown > SWAP_GROWTH_BYTES:
            said.append(f"the machine's swap grew by {grown / 1e6:.0f} MB")
        if said:
            yield warning(
                "swapping",
                f"in session {session} {' and '.join(said)}: the model does not fit beside what "
                "else runs; stop other programs, take a smaller quantisation or context",
            )


def page_faults(evidence: Evidence) -> Iterator[Warned]:
    """Weights were read from disk again while requests ran."""
    during = requests_telemetry(evidence.run, evidence.samples)
    for session in evidence.run.sessions:
        mine = [sample for sample in during if sample["session"] == session["session"]]
        faults = _values(mine, "engine_major_faults_per_s")
        # The mean: faults come in bursts, between which the median is 0.
        if len(faults) >= MIN_TELEMETRY and fmean(faults) > FAULTS_PER_S:
            yield warning(
                "page_faults",
                f"the engine read {fmean(faults):.0f} pages a second from disk while requests of "
                f"session {session['session']} ran (limit {FAULTS_PER_S:.0f}): its weights do not "
                "stay in memory; free some, switch mmap off, or take a smaller quantisation",
            )


def throttling(evidence: Evidence) -> Iterator[Warned]:
    """A GPU lowered its clock for heat or power."""
    for session, samples in _by_session(evidence.run):
        told = [sample for sample in samples if _throttle(sample) is not None]
        throttled = [causes for sample in told if (causes := _throttle(sample))]
        if len(told) < MIN_TELEMETRY or len(throttled) <= THROTTLED_SHARE * len(told):
            continue
        counts = Counter(cause for causes in throttled for cause in causes)
        named = ", ".join(f"{name} {n / len(told):.0%}" for name, n in counts.most_common())
        yield warning(
            "throttling",
            f"a GPU was throttled in {len(throttled) / len(told):.0%} of the samples of session "
            f"{session} ({named}): improve the cooling or raise the power limit, and warm up "
            "until the clock is steady",
        )


def vram_spill(evidence: Evidence) -> Iterator[Warned]:
    """A part of the model lies in RAM although there is a GPU."""
    for session in evidence.run.sessions:
        told = (session.get("memory") or {}).get("engine_reported") or {}
        total, vram = told.get("total_bytes"), told.get("vram_bytes")
        has_gpu = bool((session.get("machine") or {}).get("gpus")) or bool(vram)
        if total and vram is not None and total > vram and has_gpu:
            yield warning(
                "vram_spill",
                f"the engine holds {vram / 1e9:.2f} of {total / 1e9:.2f} GB in VRAM in session "
                f"{session['session']}, the rest in RAM, where each token waits for it: take a "
                "smaller quantisation, context or number of parallel requests",
            )


def engine_gone(evidence: Evidence) -> Iterator[Warned]:
    """The engine died or was away while it was being measured."""
    found = interruptions(evidence.run)
    if found and found["count"]:
        down = "an unknown time" if found["down_s"] is None else f"{found['down_s']:.3g} s"
        reasons = ", ".join(f"{reason} {n}" for reason, n in found["reasons"].items())
        mend = (
            "requests after it met a cold engine; read engine.log"
            if found["restarted"]
            else "look at the server's own log and at the network"
        )
        yield warning(
            "engine_gone",
            f"the engine was gone ({reasons}), {down} in all; of {found['count']} times it came "
            f"back {found['recovered']}: {mend}, and run again",
        )


def unlike_sessions(evidence: Evidence) -> Iterator[Warned]:
    """Sessions of one run were on unlike machines or engines."""
    told = [machine_facts(session) for session in evidence.run.sessions]
    unlike = [name for name in machine_facts({}) if len({facts[name] for facts in told}) > 1]
    if unlike:
        yield warning(
            "unlike_sessions",
            f"the sessions of this run differ in {', '.join(unlike)}, so its numbers mix machines: "
            "run the suite again in one place",
        )


RULES: tuple[Callable[[Evidence], Iterator[Warned]], ...] = (
    frequency_drift,
    temperature_drift,
    busy_machine,
    stolen_time,
    swapping,
    page_faults,
    throttling,
    vram_spill,
    engine_gone,
    unlike_sessions,
)


def _by_session(run: Run) -> Iterator[tuple[int, list[Row]]]:
    for session in run.sessions:
        yield session["session"], session_samples(run, session["session"])


def _values(samples: list[Row], name: str) -> list[float]:
    return [float(sample[name]) for sample in samples if sample.get(name) is not None]


def _throttle(sample: Row) -> set[str] | None:
    """Return what held a sample's GPUs back; None where none told."""
    told = [gpu["throttle"] for gpu in sample.get("gpus") or [] if gpu.get("throttle") is not None]
    if not told:
        return None
    return {str(cause) for causes in told for cause in causes} - NO_THROTTLING


def _both(sample: Row, first: str, second: str) -> bool:
    return sample.get(first) is not None and sample.get(second) is not None


def _ends(run: Run, name: str) -> Iterator[tuple[int, float, float]]:
    """Yield the median of the first and of the last fifth of a sensor, session by session."""
    for session in run.sessions:
        values = [
            s[name] for s in session_samples(run, session["session"]) if s.get(name) is not None
        ]
        fifth = len(values) // 5
        if len(values) >= MIN_TELEMETRY:
            yield session["session"], median(values[:fifth]), median(values[-fifth:])
