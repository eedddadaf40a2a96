"""The tables of a run, from its summary and its sessions.

``summary``, ``tails``, ``goodput``, ``clocks``, ``answers`` have a row a case, ``arrivals`` one an
open loop; ``run`` a row for each quantity of the
run as a whole; ``failures`` a row for each case and
reason, ``sessions`` one for each life of the harness, ``cold_start`` one for each span,
``calibration`` one for each session and concurrency.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from shoestring.analysis.machine import machine_facts
from shoestring.analysis.sessions import end_reason, measured_requests
from shoestring.analysis.stats import PERCENTILE_FLOORS
from shoestring.report import case_tables
from shoestring.report.tabular import Column, Estimate, Table

if TYPE_CHECKING:
    from shoestring.measure.records import Run


def run_tables(run: Run, summary: dict[str, Any]) -> dict[str, Table]:
    """Return all tables of a run by name, in the order in which a report shows them."""
    cases = summary["cases"]
    tables = (
        _summary(cases),
        _tails(cases),
        _goodput(cases),
        case_tables.clocks(cases),
        case_tables.answers(cases),
        case_tables.arrivals(cases),
        _run(summary),
        _failures(run),
        _cold_start(run),
        _calibration(run),
        _sessions(run),
    )
    return {table.name: table for table in tables}


def _summary(cases: list[dict[str, Any]]) -> Table:
    columns = (
        Column("case", "Case"),
        Column("prompt_tokens", "Prompt (tokens)"),
        Column("output_tokens", "Output (tokens)"),
        Column("concurrency", "At once"),
        Column("ok", "OK"),
        Column("failed", "Failed"),
        Column("ttft_median_s", "TTFT (ms)", 1e3, estimate=True),
        Column("tpot_median_s", "TPOT (ms)", 1e3, estimate=True),
        Column("e2e_median_s", "e2e (s)", estimate=True),
        Column("prefill_tokens_per_s_median", "Prefill (tokens/s)", estimate=True),
        Column("decode_tokens_per_s_median", "Decode, each (tokens/s)", estimate=True),
        Column("output_tokens_per_s_aggregate_median", "Output, all (tokens/s)", estimate=True),
    )
    rows = tuple(
        (
            case["case"], case["prompt_tokens"], case["output_tokens"], case["concurrency"],
            case["requests"]["ok"], case["requests"]["failed"],
            *(_estimate(case, name) for name in (
                "ttft_s", "tpot_s", "e2e_s", "prefill_tokens_per_s", "decode_tokens_per_s",
                "output_tokens_per_s_aggregate",
            )),
        )
        for case in cases
    )  # fmt: skip
    return Table(
        "summary", "Medians by case, with 95 % intervals over blocks", columns, rows,
        "No request was measured.",
    )  # fmt: skip


def _tails(cases: list[dict[str, Any]]) -> Table:
    metrics = (("ttft_s", "TTFT"), ("itl_s", "Gap"), ("e2e_s", "e2e"))
    columns = [Column("case", "Case"), Column("concurrency", "At once")]
    for metric, heading in metrics:
        stem = metric.removesuffix("_s")
        columns += [
            Column(f"{stem}_{part}{'' if part == 'n' else '_s'}",
                   f"{heading} {part}{'' if part == 'n' else ' (ms)'}",
                   1.0 if part == "n" else 1e3)
            for part in ("n", "p90", "p99", "max")
        ]  # fmt: skip
    rows = tuple(
        (
            case["case"], case["concurrency"],
            *(case["metrics"][m][part] for m, _ in metrics for part in ("n", "p90", "p99", "max")),
        )
        for case in cases
    )  # fmt: skip
    floors = ", ".join(f"p{q} from {PERCENTILE_FLOORS[q]} values" for q in (90, 99))
    return Table(
        "tails", f"Tails by case ({floors})", tuple(columns), rows, "No request was measured."
    )


def _goodput(cases: list[dict[str, Any]]) -> Table:
    columns = (
        Column("case", "Case"),
        Column("concurrency", "At once"),
        Column("ttft_limit_s", "TTFT limit (s)"),
        Column("tpot_limit_s", "TPOT limit (s)"),
        Column("good", "Good"),
        Column("of", "Of"),
        Column("good_fraction", "Good (%)", 100.0, estimate=True),
        Column("good_requests_per_s", "Good (requests/s)"),
    )
    rows = tuple(
        (
            case["case"], case["concurrency"], goodput["limits"].get("ttft_s"),
            goodput["limits"].get("tpot_s"), goodput["good"], goodput["of"],
            _interval(goodput["fraction"], goodput["ci95"]),
            goodput["good_requests_per_s"],
        )
        for case in cases
        for goodput in (case["goodput"],)
    )  # fmt: skip
    return Table(
        "goodput", "Requests within the suite's limits; failures count as not good", columns, rows,
        "No request was measured.",
    )  # fmt: skip


def _run(summary: dict[str, Any]) -> Table:
    columns = (
        Column("quantity", "Quantity"),
        Column("value", "Value", estimate=True),
        Column("unit", "Unit"),
    )
    rate, counts = summary["success_rate"], summary["token_counts"]
    metrics, native = summary["metrics"], summary["native"]
    used, gone = summary["energy"], summary["interruptions"] or {}
    rows = (
        ("Answered of all requests", _interval(rate["value"], rate["ci95"]), "fraction"),
        ("Decode, as the client saw it", _median(metrics["decode_tokens_per_s"]), "tokens/s"),
        ("Decode, as the engine says", _median(native["decode_tokens_per_s"]), "tokens/s"),
        ("Prefill, as the client saw it", _median(metrics["prefill_tokens_per_s"]), "tokens/s"),
        ("Prefill, as the engine says", _median(native["prefill_tokens_per_s"]), "tokens/s"),
        ("TTFT beyond the engine's prefill", _median(summary["residual_s"]), "s"),
        ("Prompt tokens from the cache", _interval(summary["cached_share"], None), "fraction"),
        ("Answers shorter than asked", _interval(counts["early_stops"], None), "requests"),
        ("Token counts that disagree", _interval(counts["discrepancies"], None), "requests"),
        ("Energy", _interval(used["energy_j"], None), "J"),
        ("Energy of an output token", _interval(used["energy_j_per_output_token"], None), "J"),
        ("Peak VRAM", _interval(summary["memory"]["vram_peak_bytes"], None), "bytes"),
        ("Times the engine was gone", _interval(gone.get("count"), None), "times"),
        ("Time without the engine", _interval(gone.get("down_s"), None), "s"),
    )
    return Table("run", "The run as a whole, all cases together", columns, rows)


def _failures(run: Run) -> Table:
    failed = [row for row in run.rows if row["failure"]]
    counts = Counter((row["phase"], row["case"], row["failure"]["reason"]) for row in failed)
    examples: dict[tuple[str, str, str], str] = {}
    for row in failed:
        key = (row["phase"], row["case"], row["failure"]["reason"])
        examples.setdefault(key, row["failure"].get("detail") or "")
    columns = (
        Column("phase", "Phase"),
        Column("case", "Case"),
        Column("reason", "Reason"),
        Column("requests", "Requests"),
        Column("first_detail", "The first one said"),
    )
    rows = tuple((*key, counts[key], examples[key]) for key in sorted(counts))
    return Table("failures", "Failed requests", columns, rows, "No request failed.")


def _cold_start(run: Run) -> Table:
    columns = (
        Column("session", "Session"),
        Column("span", "Span"),
        Column("start_s", "Start (s)"),
        Column("end_s", "End (s)"),
        Column("duration_s", "Duration (s)"),
    )
    rows = tuple(
        (
            session["session"], span["name"], span["start_s"], span["end_s"],
            span["end_s"] - span["start_s"],
        )
        for session in run.sessions
        for span in session.get("cold_start") or []
    )  # fmt: skip
    return Table(
        "cold_start", "Cold start", columns, rows,
        "No cold start was timed: the engine was not started by this run.",
    )  # fmt: skip


def _calibration(run: Run) -> Table:
    columns = (
        Column("session", "Session"),
        Column("concurrency", "At once"),
        Column("requests", "Requests"),
        Column("ttft_error_s", "TTFT error, median (ms)", 1e3),
        Column("ttft_error_p99_s", "TTFT error, p99 (ms)", 1e3),
        Column("gap_error_p99_s", "Gap error, p99 (ms)", 1e3),
    )
    rows = tuple(
        (
            session["session"], part.get("concurrency"), part.get("requests"),
            part.get("ttft_error_s"), part.get("ttft_error_p99_s"), part.get("gap_error_p99_s"),
        )
        for session in run.sessions
        for part in (session.get("calibration") or {}).get("by_concurrency") or []
    )  # fmt: skip
    return Table(
        "calibration", "Error of our own clock against a server whose truth is known",
        columns, rows, "The clock was not calibrated.",
    )  # fmt: skip


def _sessions(run: Run) -> Table:
    columns = (
        Column("session", "Session"),
        Column("started_utc", "Started"),
        Column("ended_utc", "Ended"),
        Column("end_reason", "Ended because"),
        Column("requests", "Requests"),
        Column("platform", "Platform"),
        Column("cpu", "Processor"),
        Column("cores_logical", "Cores"),
        Column("memory_bytes", "RAM (GB)", 1e-9),
        Column("gpus", "GPUs"),
        Column("engine", "Engine"),
        Column("shoestring", "shoestring"),
        Column("python", "Python"),
        Column("load_s", "Load (s)"),
        Column("ram_peak_bytes", "Peak RAM (MB)", 1e-6),
        Column("vram_peak_bytes", "Peak VRAM (MB)", 1e-6),
    )
    rows = tuple(_session(run, session) for session in run.sessions)
    return Table("sessions", "Sessions and machines", columns, rows, "No session was recorded.")


def _session(run: Run, session: dict[str, Any]) -> tuple[Any, ...]:
    machine, versions = session.get("machine") or {}, session.get("versions") or {}
    facts, memory = machine_facts(session), session.get("memory") or {}
    return (
        session["session"], session.get("started_utc"), session.get("ended_utc"),
        end_reason(run, session), measured_requests(run, session),
        facts["platform"], facts["CPU"], facts["cores"], machine.get("memory_bytes"),
        facts["GPUs"], versions.get("engine"), versions.get("shoestring"), versions.get("python"),
        session.get("load_s"), memory.get("ram_peak_bytes"),
        memory.get("vram_peak_bytes"),
    )  # fmt: skip


def _estimate(case: dict[str, Any], name: str) -> Estimate:
    return _median(case["metrics"][name])


def _median(metric: dict[str, Any]) -> Estimate:
    return _interval(metric["median"], metric["ci95"])


def _interval(value: float | None, ci95: list[float] | None) -> Estimate:
    return Estimate(value, *(ci95 or (None, None)))
