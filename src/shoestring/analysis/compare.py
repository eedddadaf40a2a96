"""Two runs as one JSON object: what ``shoestring compare --json`` prints.

For each case that both runs have, and each metric, the ratio of the medians, b / a, with a
bootstrap interval in which the blocks of each run are resampled by themselves. A verdict is given
only if the whole interval lies on one side of 1. Each interval is of 95 % by itself: among twenty
comparisons of equal runs, one "difference" is expected.

Nothing is refused silently: what differs between the runs is listed, and where suite or model
differ each metric says ``comparable: false`` with the reason. So it does where the success rates of
a case differ (their Wilson intervals do not overlap): a failure has no latency, so a run that drops
its slow requests would look fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoestring.analysis import stats
from shoestring.analysis.machine import machine_facts
from shoestring.analysis.samples import (
    REQUEST_METRICS,
    Sample,
    by_case,
    measured_samples,
    metric_blocks,
)
from shoestring.errors import BadRunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run

FASTER = "faster"
SLOWER = "slower"
NO_DIFFERENCE = "no difference shown"
TOO_FEW_BLOCKS = "too few blocks"


def compare_runs(a: Run, b: Run) -> dict[str, Any]:
    """Compare run b with run a.

    Returns:
        ``a``, ``b`` (run ids), ``comparable``, ``reason``, ``differences`` (field, a, b),
        ``cases`` (case, concurrency, requests, metrics), ``only_in_a``, ``only_in_b``. Requests
        are ``{"a": {"ok", "failed"}, "b": ...}``. A metric is
        ``{"a", "b", "ratio", "ci95", "verdict", "comparable", "reason"}`` with a and b as medians;
        "faster" means that b is faster than a.

    Raises:
        BadRunError: the runs have no case in common, so there is nothing to compare.
    """
    cases_a, cases_b = (by_case(run, measured_samples(run)) for run in (a, b))
    common = [case for case in cases_a if case in cases_b]
    if not common:
        raise BadRunError(
            f"{a.run_id} and {b.run_id} have no case in common: {_names(list(cases_a))} against "
            f"{_names(list(cases_b))}; compare two runs of one suite"
        )
    differences = _differences(a, b)
    reason = _reason(a, b, differences)
    seed = int(a.config["seed"])
    result = {
        "a": a.run_id,
        "b": b.run_id,
        "comparable": reason is None,
        "reason": reason,
        "differences": differences,
        "cases": [
            {
                "case": case[0],
                "concurrency": case[1],
                **_case(cases_a[case], cases_b[case], reason, seed),
            }
            for case in common
        ],
        "only_in_a": [_name(case) for case in cases_a if case not in cases_b],
        "only_in_b": [_name(case) for case in cases_b if case not in cases_a],
    }
    rounded: dict[str, Any] = stats.round_significant(result)
    return rounded


def _case(
    a: Sequence[Sample], b: Sequence[Sample], reason: str | None, seed: int
) -> dict[str, Any]:
    requests = {"a": _outcomes(a), "b": _outcomes(b)}
    reasons = [said for said in (reason, _unlike_success(requests)) if said]
    verdict = {"comparable": not reasons, "reason": "; ".join(reasons) or None}
    metrics = {name: {**_metric(a, b, name, seed), **verdict} for name in REQUEST_METRICS}
    return {"requests": requests, "metrics": metrics}


def _outcomes(samples: Sequence[Sample]) -> dict[str, int]:
    ok = sum(sample.ok for sample in samples)
    return {"ok": ok, "failed": len(samples) - ok}


def _unlike_success(requests: dict[str, dict[str, int]]) -> str | None:
    """Latencies are of those that ended well: of unlike shares, they are of unlike requests."""
    counts = [(one["ok"], one["ok"] + one["failed"]) for one in requests.values()]
    intervals = [stats.wilson_interval(ok, of) for ok, of in counts]
    (low_a, high_a), (low_b, high_b) = (interval or (0.0, 1.0) for interval in intervals)
    if low_a <= high_b and low_b <= high_a:
        return None
    (ok_a, of_a), (ok_b, of_b) = counts
    return f"the success rates differ: {ok_a} of {of_a} against {ok_b} of {of_b}"


def _metric(a: Sequence[Sample], b: Sequence[Sample], name: str, seed: int) -> dict[str, Any]:
    blocks_a, blocks_b = metric_blocks(a, name), metric_blocks(b, name)
    median_a, median_b = (
        stats.percentile([value for block in blocks for value in block], 50)
        for blocks in (blocks_a, blocks_b)
    )
    ci95 = stats.bootstrap_ratio_ci(blocks_b, blocks_a, seed=seed)
    ratio = None if median_b is None or not median_a else median_b / median_a
    verdict = _verdict(name, ci95)
    return {"a": median_a, "b": median_b, "ratio": ratio, "ci95": ci95, "verdict": verdict}


def _verdict(name: str, ci95: stats.Interval | None) -> str:
    if ci95 is None:
        return TOO_FEW_BLOCKS
    low, high = ci95
    if low <= 1 <= high:
        return NO_DIFFERENCE
    larger_is_faster = "_per_s" in name
    return FASTER if (low > 1) == larger_is_faster else SLOWER


def _differences(a: Run, b: Run) -> list[dict[str, Any]]:
    facts_a, facts_b = _facts(a), _facts(b)
    return [
        {"field": name, "a": facts_a[name], "b": facts_b[name]}
        for name in facts_a
        if facts_a[name] != facts_b[name]
    ]


def _facts(run: Run) -> dict[str, Any]:
    suite, model, engine = (run.config[part] for part in ("suite", "model", "engine"))
    facts = {
        "suite": suite["name"],
        "suite sha256": suite.get("sha256"),
        "model": model["name"],
        "model sha256": model.get("sha256"),
        "engine": engine["name"],
        "engine options": engine.get("options"),
        "base_url": engine.get("base_url"),
        "requests": len(run.config["requests"]),
        "status": "complete" if run.complete else "incomplete",
    }
    told = [machine_facts(session) for session in run.sessions]
    for name in machine_facts({}):
        facts[name] = " / ".join(sorted({session[name] for session in told})) or None
    ours = {(session.get("versions") or {}).get("shoestring") for session in run.sessions}
    facts["shoestring version"] = " / ".join(sorted(one or "unknown" for one in ours)) or None
    return facts


def _reason(a: Run, b: Run, differences: Sequence[dict[str, Any]]) -> str | None:
    """Other machines and engines are what one compares; another suite or model is another task."""
    parts = [part for part in ("suite", "model") if not _same_content(a, b, part)]
    unlike = [one["field"] for one in differences if one["field"].split()[0] in parts]
    return f"the runs differ in {', '.join(unlike)}" if unlike else None


def _same_content(a: Run, b: Run, part: str) -> bool:
    """Say whether the files are known to be the same; then their names do not matter.

    Runs that were made interleaved were made on one model, whatever each engine calls it; only two
    unlike hashes say otherwise.
    """
    hashes = {a.config[part].get("sha256"), b.config[part].get("sha256")}
    if None not in hashes:
        return len(hashes) == 1
    return part == "model" and (_interleaved(a, b) or _variants(a, b))


def _variants(a: Run, b: Run) -> bool:
    """Say whether both are variants of one alias of the gateway (``ALIAS@VARIANT``).

    Who names them so has set them beside each other to have them compared.
    """
    (alias, mark, _), (other, other_mark, _) = (
        run.config["model"]["name"].partition("@") for run in (a, b)
    )
    return bool(mark and other_mark) and alias == other


def _interleaved(a: Run, b: Run) -> bool:
    pairs = ((a, b), (b, a))
    return all(other.run_id in (one.config.get("interleaved_with") or []) for one, other in pairs)


def _name(case: tuple[str, int]) -> str:
    return f"{case[0]} at concurrency {case[1]}"


def _names(cases: Sequence[tuple[str, int]]) -> str:
    return ", ".join(_name(case) for case in cases) or "none"
