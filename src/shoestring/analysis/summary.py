"""One run as one JSON object: what ``shoestring report --json`` prints.

The shape is fixed by the design; every field is defined in ``docs/metrics.md``. At the top level
the measured requests of all cases are pooled, which mixes prompt lengths and loads: it answers
"how was this run", not "how fast is this machine". ``cases`` is the honest view.

All floats are rounded to six significant digits, so that the same run gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.analysis import stats
from shoestring.analysis.arrivals import arrivals
from shoestring.analysis.calibration import worst_calibration
from shoestring.analysis.metrics import token_source
from shoestring.analysis.samples import (
    MORE_METRICS,
    REQUEST_METRICS,
    Sample,
    by_case,
    cached_share,
    early_stops,
    measured_samples,
    metric_blocks,
    span_s,
    suite_limits,
)
from shoestring.analysis.sessions import first_said, interruptions, memory
from shoestring.analysis.structured import structured_valid
from shoestring.analysis.telemetry import energy, hardware_clock
from shoestring.analysis.warnings import run_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.measure.records import Run


ASKED = ("prompt", "turns", "thinking", "fixed_length")
"""What the suite asks of a case beside lengths and load."""
NATIVE = ("decode_tokens_per_s", "prefill_tokens_per_s", "load_s", "prompt_s", "total_s")


def summarise(run: Run) -> dict[str, Any]:
    """Summarise a run, whole or cut.

    Returns:
        The object that ``report --json`` prints; it holds JSON values only and no NaN.

    Raises:
        BadRunError: the suite limits something that no request has.
    """
    samples = measured_samples(run)
    ok = sum(sample.ok for sample in samples)
    scope = _Scope(suite_limits(run), int(run.config["seed"]))
    summary = {
        "run_id": run.run_id,
        "status": "complete" if run.complete else "incomplete",
        "incomplete_reason": run.incomplete_reason,
        "requests": {
            "ok": ok,
            "failed": len(samples) - ok,
            "warmup": len(run.rows) - len(samples),
            "planned": len(run.config["requests"]),
        },
        "failures": _failures(samples),
        "metrics": _metrics(samples, scope, _load_blocks(run)),
        "success_rate": {
            "value": ok / len(samples) if samples else None,
            "ci95": stats.wilson_interval(ok, len(samples)),
        },
        "cases": _cases(run, samples, scope),
        "goodput": _goodput(samples, scope),
        "native": _native(samples, scope),
        "residual_s": distribution(metric_blocks(samples, "residual_s"), scope.seed),
        "cached_share": cached_share(samples),
        "token_counts": _token_counts(run, samples),
        "load_s": first_said(run, "load_s"),
        "cold_start": first_said(run, "cold_start"),
        "memory": memory(run),
        "energy": energy(run),
        "interruptions": interruptions(run),
        "calibration": worst_calibration(run),
        "sessions": len(run.sessions),
        "interleaved_with": run.config.get("interleaved_with"),
        "warnings": run_warnings(run, samples),
        "environment": _environment(run),
    }
    rounded: dict[str, Any] = stats.round_significant(summary)
    return rounded


def distribution(blocks: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    """Describe the values of a metric, given by block.

    Returns:
        ``n``, ``mean``, ``median``, ``p90`` (from 64 values), ``p99`` (from 662), ``max`` and
        ``ci95``, the interval of the median over blocks (from five).
    """
    values = sorted(value for block in blocks for value in block)
    return {
        "n": len(values),
        "mean": stats.mean(values),
        "median": stats.percentile(values, 50),
        "p90": stats.percentile(values, 90),
        "p99": stats.percentile(values, 99),
        "max": values[-1] if values else None,
        "ci95": stats.bootstrap_median_ci(blocks, seed=seed),
    }


@dataclass(frozen=True)
class _Scope:
    limits: dict[str, float]
    seed: int


def _failures(samples: Sequence[Sample]) -> dict[str, int]:
    reasons = Counter(sample.row["failure"]["reason"] for sample in samples if not sample.ok)
    return dict(sorted(reasons.items()))


def _metrics(
    samples: Sequence[Sample], scope: _Scope, load_blocks: list[list[float]] | None
) -> dict[str, Any]:
    names = [(name, metric_blocks(samples, name)) for name in REQUEST_METRICS]
    if load_blocks is not None:
        names.append(("load_s", load_blocks))
    names += [(name, metric_blocks(samples, name)) for name in MORE_METRICS]
    return {name: distribution(blocks, scope.seed) for name, blocks in names}


def _load_blocks(run: Run) -> list[list[float]]:
    """One load a session, so a session is its block."""
    return [[session["load_s"]] for session in run.sessions if session.get("load_s") is not None]


def _cases(run: Run, samples: Sequence[Sample], scope: _Scope) -> list[dict[str, Any]]:
    targets = {case["name"]: case for case in run.config["suite"]["cases"]}
    cases = []
    for (name, concurrency), members in by_case(run, samples).items():
        target = targets.get(name, {})
        ok = sum(sample.ok for sample in members)
        cases.append(
            {
                "case": name,
                "concurrency": concurrency,
                "prompt_tokens": target.get("prompt_tokens"),
                "output_tokens": target.get("output_tokens"),
                **{name: target.get(name) for name in ASKED},
                "requests": {"ok": ok, "failed": len(members) - ok},
                "metrics": _metrics(members, scope, None),
                "goodput": _goodput(members, scope),
                "native": _native(members, scope),
                "residual_s": distribution(metric_blocks(members, "residual_s"), scope.seed),
                "hardware": hardware_clock(run, members),
                "cached_share": cached_share(members),
                "structured_valid": structured_valid(target, members),
                "arrivals": arrivals(target, members),
            }
        )
    return cases


def _goodput(samples: Sequence[Sample], scope: _Scope) -> dict[str, Any]:
    """Count the good answers among all requests: a failure is not good, nor is an unknown."""
    limited = bool(scope.limits)
    good = sum(sample.good is True for sample in samples)
    duration_s = span_s(samples)
    return {
        "limits": scope.limits,
        "good": good if limited else None,
        "of": len(samples),
        "unknown": sum(sample.good is None for sample in samples) if limited else None,
        "fraction": good / len(samples) if limited and samples else None,
        "ci95": stats.wilson_interval(good, len(samples)) if limited else None,
        "good_requests_per_s": good / duration_s if limited and duration_s > 0 else None,
    }


def _native(samples: Sequence[Sample], scope: _Scope) -> dict[str, Any]:
    return {
        name: distribution(metric_blocks(samples, f"native_{name}"), scope.seed) for name in NATIVE
    }


def _token_counts(run: Run, samples: Sequence[Sample]) -> dict[str, Any]:
    ok = [sample for sample in samples if sample.ok]
    sources = {token_source(sample.row) for sample in ok}
    return {
        "source": sources.pop() if len(sources) == 1 else ("mixed" if sources else None),
        "early_stops": early_stops(run, samples),
        "discrepancies": sum(bool(sample.metrics.token_discrepancy) for sample in ok),
    }


def _environment(run: Run) -> dict[str, Any]:
    suite = run.config["suite"]
    return {
        "suite": {"name": suite["name"], "sha256": suite.get("sha256")},
        "model": run.config["model"],
        "engine": run.config["engine"],
        "sessions": [
            {
                key: session.get(key)
                for key in ("session", "started_utc", "ended_utc", "machine", "versions", "commit")
            }
            for session in run.sessions
        ],
    }
