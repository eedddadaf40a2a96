import copy
import json
import math
import statistics
from dataclasses import replace

import pytest

from shoestring.analysis.metrics import request_gaps_s, request_metrics
from shoestring.analysis.summary import summarise

DESIGN = (
    "run_id", "status", "requests", "failures", "metrics", "success_rate", "memory", "calibration",
    "environment", "incomplete_reason", "cases", "goodput", "native", "residual_s", "cached_share",
    "token_counts", "load_s", "cold_start", "warnings", "sessions",
)  # fmt: skip
METRICS = [
    "ttft_s", "tpot_s", "itl_s", "e2e_s", "decode_tokens_per_s", "output_tokens_per_s_aggregate",
    "prefill_tokens_per_s", "load_s",
]  # fmt: skip
PARTS = ["n", "mean", "median", "p90", "p99", "max", "ci95"]


def _change(run, **changes):
    """Return the run with the same changes in each measured row."""
    rows = [row if row["phase"] == "warmup" else {**row, **changes} for row in run.rows]
    return replace(run, rows=tuple(rows))


def _sessions(run, *changes):
    session = run.sessions[0]
    sessions = [{**session, "session": i, **c} for i, c in enumerate(changes, start=1)]
    return replace(run, environment={**run.environment, "sessions": sessions})


def test_summary_has_the_shape_of_the_design(run):
    """No field is missing, metrics come in order, and all of it is strict JSON."""
    summary = summarise(run)
    assert set(DESIGN) <= set(summary)
    assert list(summary["metrics"])[:8] == METRICS
    assert all(list(metric) == PARTS for metric in summary["metrics"].values())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_same_run_gives_the_same_bytes(run):
    """Nothing random, no clock, no order of hashing."""
    assert json.dumps(summarise(run)) == json.dumps(summarise(run))


def test_pooled_metrics_are_over_measured_requests_that_ended_well(make_run):
    """Median, mean, n and max are those of the raw rows; warm-ups and failures are out."""
    run = make_run(failures=3)
    values = [request_metrics(row).ttft_s for row in run.measured if row["status"] == "ok"]
    metric = summarise(run)["metrics"]["ttft_s"]
    assert metric["n"] == 67
    assert metric["median"] == pytest.approx(statistics.median(values), rel=1e-5)
    assert metric["mean"] == pytest.approx(statistics.mean(values), rel=1e-5)
    assert metric["max"] == pytest.approx(max(values), rel=1e-5)
    assert metric["ci95"][0] <= metric["median"] <= metric["ci95"][1]


def test_the_known_truth_of_the_synthetic_run_is_found(run):
    """TTFT is 4 ms a prompt token, gaps are 20 ms times the root of the concurrency."""
    cases = {case["case"]: case["metrics"] for case in summarise(run)["cases"]}
    assert list(cases) == ["chat-128", "chat-128-c4", "context-1024"]
    assert cases["chat-128"]["ttft_s"]["median"] == pytest.approx(0.512, rel=0.05)
    assert cases["context-1024"]["ttft_s"]["median"] == pytest.approx(4.096, rel=0.05)
    assert cases["chat-128"]["itl_s"]["median"] == pytest.approx(0.020, rel=0.02)
    assert cases["chat-128-c4"]["tpot_s"]["median"] == pytest.approx(0.040, rel=0.02)
    assert cases["chat-128"]["decode_tokens_per_s"]["median"] == pytest.approx(50, rel=0.02)
    assert cases["chat-128"]["prefill_tokens_per_s"]["median"] == pytest.approx(248, rel=0.05)


def test_percentiles_keep_their_floors(run):
    """70 requests give a p90 and no p99; 2,170 gaps give both; a case of 20 gives neither."""
    summary = summarise(run)
    pooled, case = summary["metrics"], summary["cases"][0]["metrics"]
    assert pooled["ttft_s"]["p90"] is not None
    assert pooled["ttft_s"]["p99"] is None
    assert pooled["itl_s"]["p99"] is not None
    assert case["ttft_s"]["p90"] is None


def test_fewer_than_five_blocks_have_no_interval(make_run):
    """Four blocks give medians and null intervals."""
    metric = summarise(make_run(blocks=4))["metrics"]["ttft_s"]
    assert metric["median"] is not None
    assert metric["ci95"] is None


def test_itl_keeps_a_stall_that_tpot_hides(run):
    """One gap of 1.5 s among 31 is the maximum of the gaps and a mere nuance in TPOT."""
    rows = list(run.rows)
    events = rows[1]["events"]
    late = [[t + 1_500_000_000 * (i > 20), kind, size] for i, (t, kind, size) in enumerate(events)]
    rows[1] = {**rows[1], "events": late}
    metrics = summarise(replace(run, rows=tuple(rows)))["metrics"]
    assert metrics["itl_s"]["max"] > 1.5
    assert metrics["tpot_s"]["max"] < 0.1


def test_aggregate_throughput_is_one_sample_a_block(run):
    """Tokens of a block over its first intended send to its last end."""
    block = [r for r in run.measured if r["block"] == 1 and r["case"] == "context-1024"]
    span_s = (block[-1]["end_ns"] - block[0]["intended_ns"]) / 1e9
    blocks = {r["block"] for r in run.measured}
    one = replace(run, rows=tuple(block))
    metric = summarise(one)["metrics"]["output_tokens_per_s_aggregate"]
    assert metric["n"] == 1
    assert metric["median"] == pytest.approx(2 * 32 / span_s, rel=1e-5)
    case = summarise(run)["cases"][2]["metrics"]["output_tokens_per_s_aggregate"]
    assert case["n"] == len(blocks)


def test_a_block_cut_by_a_resume_does_not_mix_two_clocks(run):
    """The windows of both sessions are added, whatever their origins are."""
    a, b = [r for r in run.measured if r["block"] == 1 and r["case"] == "context-1024"]
    shift = 10**12
    moved = {
        **b,
        "session": 2,
        "intended_ns": b["intended_ns"] + shift,
        "end_ns": b["end_ns"] + shift,
    }
    summary = summarise(replace(run, rows=(a, moved)))
    span_s = sum((r["end_ns"] - r["intended_ns"]) / 1e9 for r in (a, b))
    metric = summary["metrics"]["output_tokens_per_s_aggregate"]
    assert metric["median"] == pytest.approx(64 / span_s, rel=1e-5)


def test_the_time_of_failures_counts_and_their_tokens_do_not(run):
    """A failed request lowers aggregate throughput; a block of failures has none."""
    a, b = [r for r in run.measured if r["block"] == 1 and r["case"] == "context-1024"]
    span_s = (b["end_ns"] - a["intended_ns"]) / 1e9
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    half = summarise(replace(run, rows=(a, {**b, **failed})))
    metric = half["metrics"]["output_tokens_per_s_aggregate"]
    assert metric["median"] == pytest.approx(32 / span_s, rel=1e-5)
    none = summarise(replace(run, rows=({**a, **failed}, {**b, **failed})))
    assert none["metrics"]["output_tokens_per_s_aggregate"]["n"] == 0
    assert none["success_rate"]["value"] == 0


def test_unknown_tokens_give_no_throughput(run):
    """Without counts rates are null, and latencies stay."""
    summary = summarise(_change(run, usage=None, native=None))
    for name in ("tpot_s", "decode_tokens_per_s", "output_tokens_per_s_aggregate"):
        assert summary["metrics"][name]["n"] == 0
        assert summary["metrics"][name]["median"] is None
    assert summary["metrics"]["e2e_s"]["n"] == 70
    assert summary["token_counts"]["source"] is None
    assert summary["cached_share"] is None


def test_failures_count_in_rates_and_in_goodput(make_run):
    """The denominator of success and of goodput is all measured requests."""
    summary = summarise(make_run(failures=7))
    assert summary["requests"] == {"ok": 63, "failed": 7, "warmup": 1, "planned": 70}
    assert summary["failures"] == {"stall": 7}
    assert summary["success_rate"]["value"] == 0.9
    low, high = summary["success_rate"]["ci95"]
    assert low < 0.9 < high
    goodput = summary["goodput"]
    assert (goodput["good"], goodput["of"]) == (20, 70)
    assert goodput["fraction"] == pytest.approx(20 / 70, rel=1e-5)


def test_goodput_has_a_rate_over_the_time_of_the_blocks(run):
    """Good requests of the good case, divided by how long that case ran."""
    goodput = summarise(run)["cases"][0]["goodput"]
    rows = [r for r in run.measured if r["case"] == "chat-128"]
    spans = []
    for block in range(1, 6):
        members = [r for r in rows if r["block"] == block]
        spans.append(members[-1]["end_ns"] - members[0]["intended_ns"])
    assert goodput["good_requests_per_s"] == pytest.approx(20 / (sum(spans) / 1e9), rel=1e-5)


def test_without_limits_there_is_no_goodput(run):
    """Null, not 0 and not 100 %."""
    suite = {**run.config["suite"], "limits": {}}
    goodput = summarise(replace(run, config={**run.config, "suite": suite}))["goodput"]
    assert goodput["of"] == 70
    unknown = {"good", "unknown", "fraction", "ci95", "good_requests_per_s"}
    assert {goodput[name] for name in unknown} == {None}


def test_three_clocks_stand_side_by_side(run):
    """Native decode by the same formula is the client's within 1 %, the residual is the rest."""
    summary = summarise(run)
    client = summary["metrics"]["decode_tokens_per_s"]["median"]
    assert summary["native"]["decode_tokens_per_s"]["median"] == pytest.approx(client, rel=0.01)
    assert summary["native"]["prefill_tokens_per_s"]["median"] == pytest.approx(
        1000 / 3.9, rel=0.02
    )
    residuals = [request_metrics(row).residual_s for row in run.measured]
    assert summary["residual_s"]["median"] == pytest.approx(statistics.median(residuals), rel=1e-5)


def test_token_counts_name_their_source(run):
    """Usage, native, or mixed; early stops and contradictions are counted."""
    assert summarise(run)["token_counts"] == {
        "source": "usage",
        "early_stops": 0,
        "discrepancies": 0,
    }
    rows = list(run.rows)
    rows[1] = {**rows[1], "usage": None}
    rows[2] = {**rows[2], "finish_reason": "stop", "max_tokens": 40}
    rows[3] = {**rows[3], "native": {**rows[3]["native"], "decode_tokens": 31}}
    counts = summarise(replace(run, rows=tuple(rows)))["token_counts"]
    assert counts == {"source": "mixed", "early_stops": 1, "discrepancies": 1}


def test_a_killed_run_says_so(make_run):
    """No manifest: incomplete, with what there is."""
    summary = summarise(make_run(killed=True))
    assert (summary["status"], summary["incomplete_reason"]) == (
        "incomplete",
        "killed before it ended",
    )
    assert summary["requests"]["ok"] == 69
    assert summary["metrics"]["ttft_s"]["n"] == 69


def test_a_run_without_a_row_has_nulls(run):
    """A run that died before its first request is summarised without a number."""
    empty = replace(run, rows=(), telemetry=(), environment={"sessions": []}, manifest=None)
    summary = summarise(empty)
    assert summary["success_rate"] == {"value": None, "ci95": None}
    assert {m["n"] for m in summary["metrics"].values()} == {0}
    assert summary["memory"]["ram_peak_bytes"] is None
    assert summary["calibration"]["reason"]
    assert (summary["load_s"], summary["cold_start"]) == (None, None)
    assert summary["cases"] == []
    json.dumps(summary, allow_nan=False)


def test_calibration_is_the_worst_of_the_sessions(run):
    """The largest error counts, by size and not by sign, overall and by concurrency."""
    base = run.sessions[0]["calibration"]
    other = {**base, "ttft_error_s": -0.0003, "gap_error_p99_s": 0.0002}
    other["by_concurrency"] = [{**base, "concurrency": 4, "gap_error_p99_s": 0.0008}]
    calibration = summarise(_sessions(run, {}, {"calibration": other}))["calibration"]
    assert calibration["ttft_error_s"] == -0.0003
    assert calibration["gap_error_p99_s"] == 0.0004
    assert [level["concurrency"] for level in calibration["by_concurrency"]] == [1, 4]
    assert calibration["sessions_calibrated"] == 2
    assert calibration["reason"] is None


def test_memory_of_a_killed_session_comes_from_its_telemetry(run):
    """The peak names its source; a session that wrote none has its largest sample."""
    assert summarise(run)["memory"]["ram_peak_source"] == "VmHWM"
    killed = _sessions(run, {"memory": None, "load_s": None})
    memory = summarise(killed)["memory"]
    assert memory["ram_peak_bytes"] == max(s["engine_rss_bytes"] for s in run.telemetry)
    assert memory["ram_peak_source"] == "largest telemetry sample"
    small = {"ram_peak_bytes": 9, "ram_peak_source": "small", "vram_peak_bytes": 5}
    both = summarise(_sessions(run, {"memory": small}, {}))["memory"]
    assert (both["ram_peak_bytes"], both["ram_peak_source"]) == (700_000_000, "VmHWM")
    assert both["vram_peak_bytes"] == 5
    assert memory["vram_peak_bytes"] is None
    assert memory["model_file_bytes"] == 253_000_000


def test_load_is_a_sample_a_session(run):
    """Two sessions are two loads; the coldest, the first, stands at the top."""
    summary = summarise(_sessions(run, {}, {"load_s": 0.5}))
    assert summary["metrics"]["load_s"]["n"] == 2
    assert summary["load_s"] == 1.5
    assert [phase["name"] for phase in summary["cold_start"]] == ["spawn", "load", "first token"]
    assert summary["sessions"] == 2


def test_floats_have_six_digits(run):
    """Nothing in the metrics has more digits than the same run would repeat elsewhere."""
    gaps = [gap for row in run.measured for gap in request_gaps_s(row)]
    metric = summarise(run)["metrics"]["itl_s"]
    assert metric["mean"] == float(f"{math.fsum(gaps) / len(gaps):.6g}")


def test_energy_is_told_a_token_with_its_source(make_run):
    """4,500 J over the tokens of the measured requests; the warm-up came before."""
    run = make_run(gpu=True)
    tokens = sum(row["usage"]["completion_tokens"] for row in run.measured)
    found = summarise(run)["energy"]
    assert found["energy_j"] == 4500
    assert found["energy_j_per_output_token"] == pytest.approx(4500 / tokens, rel=1e-5)
    assert (found["source"], found["reason"]) == ("energy counter", None)


def test_energy_without_a_source_is_null_with_the_reason(run):
    """Neither 0 nor silence."""
    machine = {**run.sessions[0]["machine"], "gpus_unavailable": "NVML: not found"}
    found = summarise(_sessions(run, {"machine": machine}))["energy"]
    assert (found["energy_j"], found["energy_j_per_output_token"]) == (None, None)
    assert "NVML: not found" in found["reason"]


def test_a_session_that_was_killed_is_not_called_one_without_a_gpu(run):
    """Its energy was not read any more; that the machine has no GPU is not known."""
    machine = {**run.sessions[0]["machine"], "gpus": [{"name": "T4"}], "gpus_unavailable": None}
    killed = {"machine": machine, "energy": None, "telemetry": None}
    reason = summarise(_sessions(run, killed))["energy"]["reason"]
    assert reason == (
        "no source of energy was recorded: the session was cut before its energy was read"
    )


def test_energy_of_a_run_without_an_answer(make_run):
    """No token was made: that is another reason than tokens that nobody counted."""
    run = make_run(gpu=True)
    failure = {"reason": "reset", "detail": ""}
    failed = tuple({**row, "status": "failed", "failure": failure} for row in run.rows)
    found = summarise(replace(run, rows=failed))["energy"]
    assert found["energy_j_per_output_token"] is None
    assert found["reason"] == "no request was answered"


def test_energy_leaves_out_the_tokens_of_sessions_without_it(make_run):
    """A second session that measured nothing adds neither joules nor tokens."""
    run = make_run(gpu=True)
    half = len(run.rows) // 2
    rows = tuple({**r, "session": 1 + (i >= half)} for i, r in enumerate(run.rows))
    two = replace(_sessions(run, {}, {"energy": None}), rows=rows)
    tokens = sum(row["usage"]["completion_tokens"] for row in two.measured if row["session"] == 1)
    found = summarise(two)["energy"]
    assert found["energy_j_per_output_token"] == pytest.approx(4500 / tokens, rel=1e-5)
    assert found["sessions_measured"] == 1


def test_old_runs_have_no_interruptions_rather_than_none(run):
    """A session that did not watch is null; one that watched and saw nothing is 0."""
    assert summarise(run)["interruptions"]["count"] == 0
    assert summarise(_sessions(run, {"interruptions": None}))["interruptions"] is None


def test_vram_of_a_killed_session_comes_from_telemetry(make_run):
    """The peak, its source, the limit and what the engine says of itself."""
    run = make_run(gpu=True)
    memory = summarise(run)["memory"]
    assert (memory["vram_peak_bytes"], memory["vram_source"]) == (10**9, "per process")
    assert memory["vram_limit_bytes"] == 16 * 10**9
    killed = summarise(_sessions(run, {"memory": None}))["memory"]
    assert killed["vram_peak_bytes"] == max(s["engine_vram_bytes"] for s in run.telemetry)
    assert killed["vram_source"] == "largest telemetry sample"


def test_answers_that_are_json_are_counted_in_their_case_alone(make_run):
    """Block 3 of the synthetic run is cut before its last bracket: 8 of 10."""
    cases = {case["case"]: case for case in summarise(make_run(wide=True))["cases"]}
    found = cases["structured"]["structured_valid"]
    assert (found["valid"], found["of"], found["value"]) == (8, 10, 0.8)
    assert found["ci95"][0] < 0.8 < found["ci95"][1]
    assert cases["chat-128"]["structured_valid"] is None


def test_an_open_loop_tells_its_planned_and_its_real_rate(make_run):
    """Two a second were planned; sent 10 % slower, the rate is 10 % lower and the lag grows."""
    run = make_run(wide=True)

    def slower(row):
        if row["case"] != "open-2":
            return row
        position = int(row["id"][-4:])
        return {**row, "sent_ns": row["intended_ns"] + position * 55_555_556}

    slow = replace(run, rows=tuple(map(slower, run.rows)))
    closed, sent = (summarise(slow)["cases"][i]["arrivals"] for i in (0, -1))
    assert closed is None
    assert (sent["rate_per_s"], sent["planned_per_s"]) == (2.0, 2.0)
    assert sent["achieved_per_s"] == pytest.approx(1.8, rel=1e-3)
    assert sent["lag_s"]["max"] == pytest.approx(5 * 0.0555556, rel=1e-4)
    assert (sent["in_flight_limit"], sent["limited"]) == (8, 0)


def test_hardware_is_of_the_requests_of_the_case_alone(make_run):
    """Samples between and outside the requests of a case do not count."""
    run = make_run()
    inside = [(r["intended_ns"], r["end_ns"]) for r in run.measured if r["case"] == "context-1024"]
    samples = tuple(
        {**s, "engine_cpu_percent": 50.0}
        if any(start <= s["t_ns"] <= end for start, end in inside)
        else s
        for s in run.telemetry
    )
    only = replace(run, telemetry=samples,
                   rows=tuple(r for r in run.rows if r["case"] == "context-1024"))  # fmt: skip
    (case,) = summarise(only)["cases"]
    assert case["hardware"]["engine_cores"] == 0.5
    assert case["hardware"]["gpu_power_w"] is None


def test_records_of_the_first_version_are_read(run):
    """Without any of the later fields there are nulls, and no error."""
    config = copy.deepcopy(run.config)
    for case in config["suite"]["cases"]:
        for name in ("arrival", "rate_per_s", "turns", "thinking", "fixed_length"):
            del case[name]
    old = ("steal_percent", "swap_used_bytes", "gpus", "engine_vram_bytes", "engine_swap_bytes",
           "engine_major_faults_per_s")  # fmt: skip
    telemetry = tuple({k: v for k, v in s.items() if k not in old} for s in run.telemetry)
    session = {k: v for k, v in run.sessions[0].items() if k not in ("energy", "interruptions")}
    before = replace(run, config=config, telemetry=telemetry, environment={"sessions": [session]})
    summary = summarise(before)
    assert summary["interruptions"] is None
    assert summary["cases"][0]["arrivals"] is None
    assert summary["cases"][0]["fixed_length"] is None
    assert {warning["code"] for warning in summary["warnings"]} == {
        "few_samples_p90", "few_samples_p99",
    }  # fmt: skip
