"""The error floor of the client's own clock, as each session measured it against known truth.

Before it measures anything, a session times the built-in truth server, whose chunks carry their
own send stamps. What the client adds is the floor: a latency below ten times its floor is as much
about the client as about the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.measure.records import Run

ERRORS = ("ttft_error_s", "ttft_error_p99_s", "gap_error_p99_s")


def worst_calibration(run: Run) -> dict[str, Any]:
    """Return the largest error over the sessions, overall and by concurrency.

    ``reason`` says why the errors are null, and is null where they are known.
    """
    known = [session["calibration"] for session in run.sessions if session.get("calibration")]
    levels = [level for one in known for level in one.get("by_concurrency") or []]
    return {
        **_worst(known),
        "sessions_calibrated": len(known),
        "by_concurrency": [
            {"concurrency": count, **_worst([x for x in levels if x["concurrency"] == count])}
            for count in sorted({level["concurrency"] for level in levels})
        ],
        "reason": None if known else "no session was calibrated against the truth server",
    }


def error_floor(calibration: dict[str, Any], name: str, concurrency: int) -> float | None:
    """Return an error at a concurrency: of the next level calibrated, else the highest, else any.

    Args:
        calibration: what ``worst_calibration`` returned.
        name: one of ``ERRORS``.
        concurrency: of the case.
    """
    known = [level for level in calibration["by_concurrency"] if level[name] is not None]
    above = [level for level in known if level["concurrency"] >= concurrency]
    if above:
        return float(above[0][name])
    value = known[-1][name] if known else calibration[name]
    return None if value is None else float(value)


def _worst(calibrations: list[dict[str, Any]]) -> dict[str, Any]:
    worst: dict[str, Any] = {}
    for name in ERRORS:
        errors = [one[name] for one in calibrations if one.get(name) is not None]
        # The sign is kept: a negative error means that the client's stamp came too early.
        worst[name] = max(errors, key=abs) if errors else None
    return worst
