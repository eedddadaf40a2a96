"""What the sessions of a run recorded: of their engine and its memory, and of their own end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.measure.records import Run

Session = dict[str, Any]
SAMPLED = "largest telemetry sample"
KILLED, DONE = "killed", "done"


def first_said(run: Run, name: str) -> Any:
    """Return a field of the first session that has it: the coldest state that the run has seen."""
    return next((s[name] for s in run.sessions if s.get(name) is not None), None)


def measured_requests(run: Run, session: Session) -> int:
    """Count the rows of a session, warm-ups left out."""
    return sum(row["session"] == session["session"] for row in run.measured)


def end_reason(run: Run, session: Session) -> str | None:
    """Return why a session ended; None where its shoestring was too old to say.

    One that could not write its end was killed. The manifest speaks of the last session.
    """
    if session.get("end_reason") is not None:
        return str(session["end_reason"])
    if session.get("ended_utc") is None:
        return KILLED
    if run.manifest is None or session["session"] != run.sessions[-1]["session"]:
        return None
    return DONE if run.complete else run.incomplete_reason


def memory(run: Run) -> dict[str, Any]:
    """Return the largest memory over the sessions, of RAM and VRAM, and where it was read.

    ``engine_reported`` is what the engine itself said, of the session in which it was largest.
    """
    ram, ram_source = _largest_peak(run, "ram_peak_bytes", "ram_peak_source", "engine_rss_bytes")
    vram, vram_source = _largest_peak(run, "vram_peak_bytes", "vram_source", "engine_vram_bytes")
    limits = [_memory(session).get("vram_limit_bytes") for session in run.sessions]
    told = [_memory(session).get("engine_reported") for session in run.sessions]
    return {
        "vram_peak_bytes": vram,
        "vram_limit_bytes": max((limit for limit in limits if limit is not None), default=None),
        "vram_source": vram_source,
        "ram_peak_bytes": ram,
        "ram_peak_source": ram_source,
        "model_file_bytes": run.config["model"].get("file_bytes"),
        "engine_reported": max(
            (one for one in told if one), key=lambda one: one.get("total_bytes") or 0, default=None
        ),
    }


def interruptions(run: Run) -> dict[str, Any] | None:
    """Return how often the engine died or refused and came back; None where nobody watched."""
    watched = [s["interruptions"] for s in run.sessions if s.get("interruptions") is not None]
    if not watched:
        return None
    found = [one for session in watched for one in session]
    down = [one.get("down_s") for one in found]
    known = [seconds for seconds in down if seconds is not None]
    return {
        "count": len(found),
        "down_s": sum(known) if len(known) == len(down) else None,
        "recovered": sum(bool(one.get("recovered")) for one in found),
        "restarted": sum(bool(one.get("restarted")) for one in found),
        "reasons": dict(sorted(Counter(str(one.get("reason")) for one in found).items())),
    }


def _largest_peak(run: Run, name: str, source: str, sampled: str) -> tuple[int | None, str | None]:
    peaks = [_peak(run, session, name, source, sampled) for session in run.sessions]
    known = [(value, said) for value, said in peaks if value is not None]
    return max(known, key=lambda found: found[0], default=(None, None))


def _peak(
    run: Run, session: Session, name: str, source: str, sampled: str
) -> tuple[int | None, str | None]:
    """Return a session's peak and its source; a killed session has only its telemetry."""
    told = _memory(session)
    if told.get(name) is not None:
        return told[name], told.get(source)
    values = [
        sample[sampled]
        for sample in run.telemetry
        if sample["session"] == session["session"] and sample.get(sampled) is not None
    ]
    return (max(values), SAMPLED) if values else (None, None)


def _memory(session: Session) -> dict[str, Any]:
    return session.get("memory") or {}
