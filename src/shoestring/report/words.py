"""What a run says in one paragraph, and where it comes from. Plain text; the caller escapes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.measure.records import HASHED, file_sha256
from shoestring.report.units import number, seconds, size

if TYPE_CHECKING:
    from shoestring.measure.records import Run


def title(run: Run) -> str:
    """Return the heading of a report: what was measured."""
    config = run.config
    model = public_name(config["model"]["name"])
    return f"{model} on the {config['engine']['name']} engine: suite {config['suite']['name']}"


def verdict(run: Run, summary: dict[str, Any]) -> str:
    """Return the run in one paragraph: where, what, how fast, how sure, how good."""
    sentences = [_opening(run, summary)]
    cases = [case for case in summary["cases"] if case["metrics"]["ttft_s"]["median"] is not None]
    if not cases:
        sentences.append("No request was answered, so there is nothing to say about speed.")
        return " ".join(sentences)
    sentences.append(_speed(cases[0]))
    busiest = max(cases, key=lambda case: int(case["concurrency"]))
    rate = busiest["metrics"]["output_tokens_per_s_aggregate"]["median"]
    if busiest["concurrency"] > 1 and rate is not None:
        sentences.append(
            f"With {busiest['concurrency']} requests at once ({busiest['case']}) all of them "
            f"together got {number(rate)} tokens/s."
        )
    sentences += _limits(summary)
    return " ".join(sentences)


def warning_lines(summary: dict[str, Any]) -> list[str]:
    """Return what makes the numbers doubtful, a line each."""
    return [str(warning["message"]) for warning in summary["warnings"]]


def incomplete_line(run: Run) -> str | None:
    """Return the one line of the INCOMPLETE banner, or None for a complete run."""
    if run.complete:
        return None
    done, planned = len(run.measured), len(run.config["requests"])
    return (
        f"{run.incomplete_reason}: {done} of {planned} planned requests were made. "
        "Every number below is of those alone."
    )


def provenance(run: Run) -> list[tuple[str, str]]:
    """Return where every number comes from, as names and values, without any local path."""
    config = run.config
    model, engine, suite = config["model"], config["engine"], config["suite"]
    facts = [
        ("Run", run.run_id),
        ("Status", "complete" if run.complete else f"incomplete: {run.incomplete_reason}"),
        ("Suite", f"{suite['name']}, sha256 {suite.get('sha256') or 'unknown'}"),
        ("Model", f"{public_name(model['name'])}, sha256 {model.get('sha256') or 'not told'}"),
        ("Engine", f"{engine['name']}{_options(engine)}"),
        ("Seed", str(config["seed"])),
    ]
    facts += [(f"Session {session['session']}", _session(session)) for session in run.sessions]
    facts += [
        (name, f"sha256 {file_sha256(run.path / name)}")
        for name in HASHED
        if (run.path / name).is_file()
    ]
    return facts


def public_name(name: str) -> str:
    """Return a model's name without the folder of a file, which is the user's own business."""
    scheme, _, rest = name.partition(":")
    return f"{scheme}:{rest.rpartition('/')[2]}" if scheme == "file" else name


def _opening(run: Run, summary: dict[str, Any]) -> str:
    requests = summary["requests"]
    machine = (run.sessions[0].get("machine") or {}) if run.sessions else {}
    cpu = machine.get("cpu") or {}
    cores = cpu.get("cores_logical")
    gpus = ", ".join(str(gpu.get("name")) for gpu in machine.get("gpus") or [])
    where = gpus or cpu.get("model") or "a machine that was not recorded"
    if cores:
        where += f" ({cores} logical cores)"
    total = requests["ok"] + requests["failed"]
    return f"On {where}, {requests['ok']} of {total} requests were answered."


def _speed(case: dict[str, Any]) -> str:
    ttft, decode = case["metrics"]["ttft_s"], case["metrics"]["decode_tokens_per_s"]
    alone = "alone" if case["concurrency"] == 1 else f"{case['concurrency']} at once"
    between = ""
    if ttft["ci95"] is not None:
        low, high = ttft["ci95"]
        between = f" (95 % interval {seconds(low)} to {seconds(high)})"
    return (
        f"In {case['case']}, {alone}, the first token came after {seconds(ttft['median'])}"
        f"{between}, and the rest at {number(decode['median'])} tokens/s."
    )


def _limits(summary: dict[str, Any]) -> list[str]:
    sentences = []
    goodput, peak = summary["goodput"], summary["memory"]["ram_peak_bytes"]
    if goodput["fraction"] is not None:
        limits = ", ".join(
            f"{name.removesuffix('_s').upper()} {seconds(limit)}"
            for name, limit in goodput["limits"].items()
        )
        share = number(goodput["fraction"] * 100)
        sentences.append(f"{share} % of all requests met the limits ({limits}).")
    if peak is not None:
        sentences.append(f"The engine held at most {size(peak)} of memory.")
    error_s = summary["calibration"]["ttft_error_s"]
    if error_s is None:
        sentences.append("The clock was not calibrated in this run.")
    else:
        sentences.append(f"Our own clock was late by {seconds(error_s)}.")
    return sentences


def _session(session: dict[str, Any]) -> str:
    versions, commit = session.get("versions") or {}, session.get("commit") or {}
    sha = commit.get("sha")
    parts = [
        f"{session.get('started_utc') or '?'} to {session.get('ended_utc') or 'killed'}",
        *(f"{name} {version}" for name, version in sorted(versions.items()) if version),
        f"commit {sha}{' with changes' if commit.get('dirty') else ''}" if sha else "no commit",
    ]
    return ", ".join(parts)


def _options(engine: dict[str, Any]) -> str:
    options = engine.get("options") or {}
    return "".join(f", {name} {options[name]}" for name in sorted(options))
