"""What the machine did while the requests ran: the third clock, energy and memory of GPUs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from shoestring.analysis.metrics import request_metrics
from shoestring.analysis.samples import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.analysis.samples import Sample
    from shoestring.measure.records import Row, Run

NO_ENERGY = "no source of energy was recorded"
# What a session may have said it could not read, in the order in which it explains most.
_ENERGY_FIELDS = ("energy", "gpus")


def gpu_totals(sample: Row) -> dict[str, float | None]:
    """Return a sample's readings of all GPUs together; None where one of them does not say."""
    gpus = sample.get("gpus") or []
    return {
        "gpu_vram_used_bytes": _together(gpus, "vram_used_bytes", sum),
        "gpu_utilisation_percent": _together(gpus, "utilisation_percent", fmean),
        "gpu_power_w": _together(gpus, "power_w", sum),
        "gpu_temperature_c": _together(gpus, "temperature_c", max),
    }


def session_samples(run: Run, session: int) -> list[Row]:
    """Return the telemetry of a session, in the order of its clock."""
    found = [sample for sample in run.telemetry if sample["session"] == session]
    return sorted(found, key=lambda sample: int(sample["t_ns"]))


def hardware_clock(run: Run, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what the machine did while these requests were in flight, as medians.

    Returns:
        ``engine_cores`` (busy cores of the engine), ``gpu_power_w``, ``gpu_utilisation_percent``
        and ``n``, the telemetry samples that fell into a request. None where nothing was read.
    """
    during = requests_telemetry(run, samples)
    cores = [s["engine_cpu_percent"] / 100 for s in during
             if s.get("engine_cpu_percent") is not None]  # fmt: skip
    gpus = [gpu_totals(sample) for sample in during]
    return {
        "engine_cores": median(cores) if cores else None,
        **{
            name: _median([one[name] for one in gpus])
            for name in ("gpu_power_w", "gpu_utilisation_percent")
        },
        "n": len(during),
    }


def requests_telemetry(run: Run, samples: Sequence[Sample]) -> list[Row]:
    """Return the telemetry that was taken while one of these requests was in flight."""
    found: list[Row] = []
    for session, members in grouped(samples, lambda sample: int(sample.row["session"])).items():
        known = session_samples(run, session)
        times = [sample["t_ns"] for sample in known]
        inside: set[int] = set()
        for member in members:
            first = bisect_left(times, member.row["intended_ns"])
            inside.update(range(first, bisect_right(times, member.row["end_ns"])))
        found += [known[position] for position in sorted(inside)]
    return found


def energy(run: Run) -> dict[str, Any]:
    """Return the energy of the sessions that measured it, a token and in all.

    The tokens are those of the same sessions: the energy was taken while their measured requests
    were sent. A session without a source is left out of both.
    """
    told = {s["session"]: s["energy"] for s in run.sessions if s.get("energy")}
    known = {session: one for session, one in told.items() if one.get("energy_j") is not None}
    if not known:
        return {
            "energy_j": None, "energy_j_per_output_token": None, "source": None, "seconds": None,
            "baseline_power_w": None, "sessions_measured": 0, "reason": _why_no_energy(run),
        }  # fmt: skip
    joules = sum(float(one["energy_j"]) for one in known.values())
    tokens = _output_tokens(run, set(known))
    sources = {one.get("source") for one in known.values()}
    return {
        "energy_j": joules,
        "energy_j_per_output_token": joules / tokens if tokens else None,
        "source": sources.pop() if len(sources) == 1 else "mixed",
        "seconds": _sum([one.get("seconds") for one in known.values()]),
        "baseline_power_w": _median([one.get("baseline_power_w") for one in known.values()]),
        "sessions_measured": len(known),
        "reason": _why_no_tokens(tokens),
    }


def _output_tokens(run: Run, sessions: set[int]) -> int | None:
    """All that was measured in these sessions; None where an answer was not counted."""
    rows = [row for row in run.measured if row["session"] in sessions]
    counts = [request_metrics(row).output_tokens for row in rows if row["status"] == "ok"]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _why_no_tokens(tokens: int | None) -> str | None:
    if tokens is None:
        return "the engine did not count the tokens of every answer"
    return None if tokens else "no request was answered"


def _why_no_energy(run: Run) -> str:
    """Give the reason of the first session that has one."""
    for session in run.sessions:
        telemetry = session.get("telemetry")
        said = (telemetry or {}).get("unavailable") or {}
        reasons = [said.get(name) for name in _ENERGY_FIELDS]
        reasons.append((session.get("machine") or {}).get("gpus_unavailable"))
        if telemetry is None:
            reasons.append("the session was cut before its energy was read")
        for reason in filter(None, reasons):
            return f"{NO_ENERGY}: {reason}"
    return NO_ENERGY


def _together(gpus: list[Row], name: str, join: Callable[[list[float]], float]) -> float | None:
    values = [gpu.get(name) for gpu in gpus]
    known = [float(value) for value in values if value is not None]
    return join(known) if known and len(known) == len(values) else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
