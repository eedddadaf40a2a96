"""What a run says in one paragraph, and where it comes from.

Each text is plain and one line, whatever a server or a suite put into it; the caller escapes it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from shoestring.analysis.machine import machine_facts
from shoestring.digests import file_sha256
from shoestring.measure.records import HASHED
from shoestring.report.tabular import one_line
from shoestring.report.units import number, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoestring.measure.records import Run
    from shoestring.report.comparison import Comparison

RANDOM_WEIGHTS = "shape:"


def title(run: Run) -> str:
    """Return the heading of a report: what was measured."""
    config = run.config
    model = public_name(config["model"]["name"])
    return one_line(
        f"{model} on the {config['engine']['name']} engine: suite {config['suite']['name']}"
    )


def verdict(run: Run, summary: dict[str, Any]) -> str:
    """Return the run in one paragraph: where, what, how fast, how sure, how good."""
    sentences = [_opening(run, summary)]
    if run.config["model"]["name"].startswith(RANDOM_WEIGHTS):
        sentences.append("The weights are random: speed and memory are real, the text is not.")
    cases = [case for case in summary["cases"] if case["metrics"]["ttft_s"]["median"] is not None]
    if not cases:
        sentences.append("No request was answered, so there is nothing to say about speed.")
        return one_line(" ".join(sentences))
    sentences.append(_speed(cases[0]))
    sentences += _busiest(cases)
    sentences += _limits(summary)
    return one_line(" ".join(sentences))


def comparison_verdict(comparison: Comparison) -> str:
    """Return in one paragraph what can be said of the runs against the first."""
    first, *others = comparison.members
    sentences = [
        f"{len(comparison.members)} runs, each held against {first.label}. "
        + ("They were made interleaved, block by block." if _interleaved(comparison)
           else "They were not all made interleaved: the ratios also hold what changed in between.")
    ]  # fmt: skip
    for member in others:
        found = (member.against_first or {}).get("cases")
        if not found:
            continue
        decode = [case["metrics"]["decode_tokens_per_s"] for case in found]
        ttft = [case["metrics"]["ttft_s"] for case in found]
        sentences.append(
            f"{member.label}: decode {_counted(decode)}; time to first token {_counted(ttft)}."
        )
    return one_line(" ".join(sentences))


def warning_lines(summary: dict[str, Any]) -> list[str]:
    """Return what makes the numbers doubtful, a line each."""
    return [one_line(str(warning["message"])) for warning in summary["warnings"]]


def incomplete_line(run: Run) -> str | None:
    """Return the one line of the INCOMPLETE banner, or None for a complete run."""
    if run.complete:
        return None
    done, planned = len(run.measured), len(run.config["requests"])
    return one_line(
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
    if config.get("interleaved_with"):
        facts.append(("Interleaved with", ", ".join(config["interleaved_with"])))
    facts += [(f"Session {session['session']}", _session(session)) for session in run.sessions]
    facts += [
        (name, f"sha256 {file_sha256(run.path / name)}")
        for name in HASHED
        if (run.path / name).is_file()
    ]
    return [(name, one_line(value)) for name, value in facts]


def case_labels(keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Name each case, given by name and concurrency: with ``-c4`` only where that is needed."""
    keys = list(keys)
    counts = Counter(name for name, _ in keys)
    told_apart = {f"{name}-c{count}" for name, count in keys if counts[name] > 1}
    return {
        (name, count): one_line(
            f"{name}-c{count}" if counts[name] > 1 or name in told_apart else name
        )
        for name, count in keys
    }


def public_name(name: str) -> str:
    """Return a model's name without the folder of a file, which is the user's own business."""
    scheme, _, rest = name.partition(":")
    if scheme == "file":
        file_name = re.split(r"[/\\]", rest)[-1]
        return f"file:{file_name}"
    # Some servers name a model by its path.
    return name.rpartition("/")[2] if name.startswith("/") else name


def _opening(run: Run, summary: dict[str, Any]) -> str:
    requests = summary["requests"]
    facts = machine_facts(run.sessions[0] if run.sessions else {})
    told = [facts[name] for name in ("GPUs", "CPU") if facts[name] not in ("none", "unknown")]
    where = told[0] if told else "a machine that was not recorded"
    if facts["cores"] != "unknown":
        where += f" ({facts['cores']} logical cores)"
    total = requests["ok"] + requests["failed"]
    return f"On {where}, {requests['ok']} of {total} requests were answered."


def _speed(case: dict[str, Any]) -> str:
    ttft, decode = case["metrics"]["ttft_s"], case["metrics"]["decode_tokens_per_s"]
    alone = "alone" if case["concurrency"] == 1 else f"{case['concurrency']} at once"
    between = ""
    if ttft["ci95"] is not None:
        low, high = ttft["ci95"]
        between = f" (95 % interval {seconds(low)} to {seconds(high)})"
    rest = decode["median"]
    after = "" if rest is None else f", and the rest at {number(rest)} tokens/s"
    return (
        f"In {case['case']}, {alone}, the first token came after {seconds(ttft['median'])}"
        f"{between}{after}."
    )


def _busiest(cases: list[dict[str, Any]]) -> list[str]:
    """The most requests at once; the concurrency of an open loop is only its limit."""
    closed = [case for case in cases if case["arrivals"] is None]
    busiest = max(closed, key=lambda case: int(case["concurrency"]), default=None)
    if busiest is None or busiest["concurrency"] == 1:
        return []
    rate = busiest["metrics"]["output_tokens_per_s_aggregate"]["median"]
    if rate is None:
        return []
    at_once = f"With {busiest['concurrency']} requests at once ({busiest['case']})"
    return [f"{at_once} all of them together got {number(rate)} tokens/s."]


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
        vram = summary["memory"]["vram_peak_bytes"]
        more = "" if vram is None else f" and {size(vram)} of VRAM"
        sentences.append(f"The engine held at most {size(peak)} of memory{more}.")
    joules = summary["energy"]["energy_j_per_output_token"]
    if joules is not None:
        source = summary["energy"]["source"]
        sentences.append(f"An output token took {number(joules)} J ({source}).")
    error_s = summary["calibration"]["ttft_error_s"]
    if error_s is None:
        sentences.append("The clock was not calibrated in this run.")
    else:
        side = "early" if error_s < 0 else "late"
        sentences.append(f"Our own clock was {side} by {seconds(abs(error_s))}.")
    return sentences


def _interleaved(comparison: Comparison) -> bool:
    ids = {member.run.run_id for member in comparison.members}
    told = [set(member.summary["interleaved_with"] or []) for member in comparison.members]
    return all(ids - {member.run.run_id} <= others
               for member, others in zip(comparison.members, told, strict=True))  # fmt: skip


def _counted(metrics: list[dict[str, Any]]) -> str:
    verdicts = Counter(metric["verdict"] if metric["comparable"] else "not comparable"
                       for metric in metrics)  # fmt: skip
    cases = "case" if len(metrics) == 1 else "cases"
    told = ", ".join(f"{verdict} in {n}" for verdict, n in verdicts.most_common())
    ratios = [m["ratio"] for m in metrics if m["comparable"] and m["ratio"] is not None]
    span = f" (ratios {number(min(ratios))} to {number(max(ratios))})" if ratios else ""
    return f"{told} of {len(metrics)} {cases}{span}"


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
