import copy
from dataclasses import replace

import pytest

from shoestring.analysis.samples import measured_samples
from shoestring.analysis.warnings import RULES, run_warnings

QUIET = {"few_samples_p90", "few_samples_p99"}  # the synthetic run is short


def _warn(run):
    """Return code -> messages."""
    found = {}
    for warning in run_warnings(run, measured_samples(run)):
        found.setdefault(warning["code"], []).append(warning["message"])
    return found


def _rows(run, change):
    """Return the run with each measured row changed by a function."""
    return replace(
        run, rows=tuple(r if r["phase"] == "warmup" else {**r, **change(r)} for r in run.rows)
    )


def _stretched(run, factor):
    """Return the run with every latency of a block multiplied."""

    def stretch(row):
        start = row["intended_ns"]
        times = factor(row["block"])
        return {"events": [[start + int((t - start) * times), k, n] for t, k, n in row["events"]]}

    return _rows(run, stretch)


def _session(run, **changes):
    sessions = [{**run.sessions[0], **changes}]
    return replace(run, environment={**run.environment, "sessions": sessions})


def _telemetry(run, **fields):
    """Return the run with each telemetry field computed from its position, 0..1."""
    last = len(run.telemetry) - 1
    samples = [
        {**s, **{name: f(i / last) for name, f in fields.items()}}
        for i, s in enumerate(run.telemetry)
    ]
    return replace(run, telemetry=tuple(samples))


def test_a_quiet_run_is_only_told_that_it_is_short(run):
    """No rule fires without its cause."""
    assert set(_warn(run)) == QUIET


def test_every_message_is_one_line_with_a_next_step(make_run):
    """A warning is one line that says what was seen, and what to do."""
    for warning in run_warnings(run := make_run(blocks=2, failures=3), measured_samples(run)):
        assert set(warning) == {"code", "message"}
        assert "\n" not in warning["message"]
        assert ":" in warning["message"]


def test_failures_are_told_with_their_reasons(make_run):
    """The count, the total and the reason."""
    assert "3 of 70 requests failed (stall)" in _warn(make_run(failures=3))["failures"][0]


def test_few_blocks(make_run):
    """Four blocks are too few for an interval."""
    assert "chat-128 at concurrency 1 has 4;" in _warn(make_run(blocks=4))["few_blocks"][0]


def test_few_blocks_of_one_case(run):
    """A case that failed in one block is named, though others have answers in all five."""
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    lost = _rows(run, lambda r: failed if (r["case"], r["block"]) == ("chat-128", 3) else {})
    (message,) = _warn(lost)["few_blocks"]
    assert "below: chat-128 at concurrency 1 has 4. Set" in message


def test_unstable_blocks(run):
    """Blocks that alternate by 40 % are unstable and do not drift."""
    found = _warn(_stretched(run, lambda block: 1.4 if block % 2 else 1.0))
    assert any("ttft_s of chat-128 " in message for message in found["unstable"])
    assert "drift" not in found


def test_drifting_blocks(run):
    """Blocks that become 5 % slower each drift by 18 %, and stay within 10 % of spread."""
    found = _warn(_stretched(run, lambda block: 1 + 0.05 * (block - 1)))
    assert any("tpot_s of chat-128 " in m and "+18%" in m for m in found["drift"])
    assert "unstable" not in found


def test_a_small_drift_is_not_told(run):
    """A perfect order with a change of 2 % is no warning."""
    assert "drift" not in _warn(_stretched(run, lambda block: 1 + 0.005 * block))


@pytest.mark.parametrize(
    ("concurrency", "fires"), [(1, {"chat-128 at", "context-1024 at"}), (4, set())]
)
def test_near_the_error_floor_at_the_cases_own_concurrency(run, concurrency, fires):
    """Gaps of 20 ms against an error of 3 ms are near; the floor is that of the concurrency."""
    base = run.sessions[0]["calibration"]
    levels = [
        {**base, "concurrency": 1, "gap_error_p99_s": 0.003 if concurrency == 1 else 0.0001},
        {**base, "concurrency": 4, "gap_error_p99_s": 0.003},
    ]
    found = _warn(_session(run, calibration={**base, "by_concurrency": levels}))
    messages = found.get("near_error_floor", [])
    assert any("itl_s of chat-128-c4" in m for m in messages) is False  # 40 ms > 30 ms
    assert {
        name for name in ("chat-128 at", "context-1024 at") if any(name in m for m in messages)
    } == fires


def test_a_missing_calibration_is_told(run):
    """Neither silence nor an error of 0."""
    assert "1 of 1 sessions" in _warn(_session(run, calibration=None))["no_calibration"][0]


def test_a_run_without_sessions_has_no_calibration(run):
    """It is not told that 0 of 0 sessions lack it."""
    (message,) = _warn(replace(run, environment={"sessions": []}))["no_calibration"]
    assert message.startswith("no session is recorded, so")


def test_few_samples_say_which_and_how_many_more(run):
    """Each case with what it lacks for p90 and p99."""
    found = _warn(run)
    assert "chat-128 at concurrency 1 has 20 (44 more)" in found["few_samples_p90"][0]
    assert "context-1024 at concurrency 1 has 10 (652 more)" in found["few_samples_p99"][0]
    assert found["few_samples_p99"][0].startswith("p99 of ttft_s, tpot_s and e2e_s needs 662")


def test_early_stops(run):
    """Answers shorter than asked for are counted."""
    found = _warn(_rows(run, lambda _: {"finish_reason": "stop", "max_tokens": 64}))
    assert found["early_stops"][0].startswith("70 answers")


def test_token_discrepancies(run):
    """The largest contradiction is shown with its sign."""
    found = _warn(_rows(run, lambda r: {"native": {**r["native"], "decode_tokens": 33}}))
    assert "70 answers, by up to -1 tokens" in found["token_discrepancies"][0]


def test_failures_contradict_nobody(run):
    """A cut answer is counted at two points in time, so its counts may differ."""
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    more = _rows(run, lambda r: {**failed, "native": {**r["native"], "decode_tokens": 33}})
    assert "token_discrepancies" not in _warn(more)


def test_unknown_tokens(run):
    """An engine that counts nothing is named as the cause of missing rates."""
    found = _warn(_rows(run, lambda _: {"usage": None, "native": None}))
    assert "no token count for 70 answers" in found["unknown_tokens"][0]


def test_prefix_cache(run):
    """Half of the prompt from the cache is told, one token is not."""
    found = _warn(
        _rows(
            run,
            lambda r: {"usage": {**r["usage"], "cached_tokens": r["usage"]["prompt_tokens"] // 2}},
        )
    )
    assert found["prefix_cache"][0].startswith("50%")


def test_frequency_drift(run):
    """A clock that falls by a fifth over the session is told."""
    found = _warn(_telemetry(run, frequency_hz=lambda x: 2.5e9 * (1 - 0.25 * x)))
    assert "-21%" in found["frequency_drift"][0]


def test_temperature_drift(run):
    """A rise of 16 degrees is told, a fall is not."""
    assert "temperature_drift" in _warn(_telemetry(run, temperature_c=lambda x: 50 + 20 * x))
    assert "temperature_drift" not in _warn(_telemetry(run, temperature_c=lambda x: 70 - 20 * x))


def test_a_busy_machine(run):
    """The engine uses one of two cores and the machine is full: others use half."""
    found = _warn(_telemetry(run, cpu_percent=lambda _: 100.0, engine_cpu_percent=lambda _: 100.0))
    assert "50 % of the CPU" in found["busy_machine"][0]


def test_stolen_time_is_not_the_work_of_others(run):
    """The host took the other half: that is named, and no program here is blamed."""
    found = _warn(
        _telemetry(
            run,
            cpu_percent=lambda _: 100.0,
            engine_cpu_percent=lambda _: 100.0,
            steal_percent=lambda _: 50.0,
        )
    )
    assert "stolen_time" in found
    assert "busy_machine" not in found


def test_free_answers_do_not_stop_early(run):
    """Where the suite lets an answer end, its end is no fault."""
    config = copy.deepcopy(run.config)
    for case in config["suite"]["cases"][:2]:
        case["fixed_length"] = False
    stopped = _rows(run, lambda _: {"finish_reason": "stop", "max_tokens": 64})
    found = _warn(replace(stopped, config=config))
    assert found["early_stops"][0].startswith("10 answers")  # of the third case


def test_a_dialogue_may_use_the_cache(run):
    """What a dialogue sends again is meant to be cached."""
    config = copy.deepcopy(run.config)
    for case in config["suite"]["cases"]:
        case["prompt"] = "dialogue"
    cached = _rows(run, lambda r: {"usage": {**r["usage"], "cached_tokens": 64}})
    assert "prefix_cache" in _warn(cached)
    assert "prefix_cache" not in _warn(replace(cached, config=config))


def test_late_sends_of_an_open_loop(make_run):
    """A lag of 80 ms at 2 requests a second is told, one of 40 ms is not."""
    run = make_run(wide=True)

    def late(ns):
        return _rows(run, lambda r: {"sent_ns": r["intended_ns"] + ns})

    (message,) = _warn(late(80_000_000))["late_sends"]
    assert message.startswith("open-2 at concurrency 8 was to send 2 requests/s")
    assert "0.08 s late" in message
    assert "latencies hold that wait" in message
    assert "late_sends" not in _warn(late(40_000_000))


def test_requests_that_waited_at_the_limit_are_late_sends(make_run):
    """With a limit of one in flight, each request that was due during another one waited."""
    run = make_run(wide=True)
    config = copy.deepcopy(run.config)
    config["suite"]["cases"][-1]["concurrency"] = 1
    (message,) = _warn(replace(run, config=config))["late_sends"]
    assert "25 requests had to wait at 1 in flight" in message  # all but the first of a block


def test_stolen_time(run):
    """A host that takes 3 % away is told, one that takes 1 % is not."""
    assert "took 3.0 %" in _warn(_telemetry(run, steal_percent=lambda _: 3.0))["stolen_time"][0]
    assert "stolen_time" not in _warn(_telemetry(run, steal_percent=lambda _: 1.0))


def test_swapping(run):
    """A page of the engine is told, and so is growth of the machine's swap; old swap is not."""
    engine = _warn(_telemetry(run, engine_swap_bytes=lambda x: 5_000_000 * (x > 0.5)))
    machine = _warn(_telemetry(run, swap_used_bytes=lambda x: 1e9 + 1e8 * x))
    assert "5 MB of the engine" in engine["swapping"][0]
    assert "grew by 100 MB" in machine["swapping"][0]
    assert "swapping" not in _warn(_telemetry(run, swap_used_bytes=lambda _: 1e9))


def test_page_faults_come_in_bursts(run):
    """A tenth of the samples with 1,000 faults a second is about 100 a second; few are none."""
    bursts = [{**s, "engine_major_faults_per_s": 1000.0 * (i % 10 == 0)}
              for i, s in enumerate(run.telemetry)]  # fmt: skip
    (message,) = _warn(replace(run, telemetry=tuple(bursts)))["page_faults"]
    assert 60 < float(message.split()[3]) < 140
    assert "page_faults" not in _warn(_telemetry(run, engine_major_faults_per_s=lambda _: 5.0))


def _throttled(run, causes, every):
    samples = [
        {**s, "gpus": [{"index": 0, "throttle": causes if i % every == 0 else []}]}
        for i, s in enumerate(run.telemetry)
    ]
    return _warn(replace(run, telemetry=tuple(samples)))


def test_throttling_is_named(run):
    """A tenth of the samples throttled by heat is told with its cause; other causes are not."""
    assert (
        "software thermal slowdown 10%"
        in _throttled(run, ["software thermal slowdown"], 10)["throttling"][0]
    )
    assert "throttling" not in _throttled(run, ["software thermal slowdown"], 30)
    assert "throttling" not in _throttled(run, ["sync boost", "reliability"], 1)
    assert "board limit" in _throttled(run, ["board limit"], 1)["throttling"][0]


@pytest.mark.parametrize(("vram", "gpus", "fires"), [
    (6_000_000_000, [{"name": "T4"}], True), (0, [{"name": "T4"}], True), (0, [], False),
    (9_000_000_000, [{"name": "T4"}], False), (None, [{"name": "T4"}], False),
])  # fmt: skip
def test_vram_spill(run, vram, gpus, fires):
    """A model partly beside a GPU is told; on a machine without one, RAM is where it belongs."""
    base = run.sessions[0]
    told = {"total_bytes": 9_000_000_000, "vram_bytes": vram}
    machine = {**base["machine"], "gpus": gpus}
    found = _warn(
        _session(run, machine=machine, memory={**base["memory"], "engine_reported": told})
    )
    assert ("vram_spill" in found) is fires


def test_an_engine_that_was_gone(run):
    """How often, why, and for how long."""
    gone = {"t_ns": 1, "reason": "died", "down_s": 2.5, "recovered": True, "restarted": True}
    (message,) = _warn(_session(run, interruptions=[gone, gone]))["engine_gone"]
    assert "gone (died 2), 5 s in all; of 2 times it came back 2" in message
    assert "read engine.log" in message


def test_a_server_that_was_away(run):
    """A server that is not ours was not started again: nothing is cold, and its log is its own."""
    away = {"t_ns": 1, "reason": "away", "down_s": 60.0, "recovered": False, "restarted": False}
    (message,) = _warn(_session(run, interruptions=[away]))["engine_gone"]
    assert "of 1 times it came back 0: look at the server's own log" in message


def test_sessions_on_unlike_machines(run):
    """What differs is named; memory that differs by pages does not."""
    first = run.sessions[0]
    cpu = {**first["machine"]["cpu"], "model": "other"}
    second = {**first, "session": 2, "machine": {**first["machine"], "cpu": cpu}}
    found = _warn(replace(run, environment={"sessions": [first, second]}))
    assert "differ in CPU," in found["unlike_sessions"][0]
    second["machine"] = {**first["machine"], "memory_bytes": 25_000_004_096}
    assert "unlike_sessions" not in _warn(replace(run, environment={"sessions": [first, second]}))


def test_rules_are_silent_where_nothing_was_recorded(run):
    """A run without sessions, telemetry and answers breaks no rule's code."""
    bare = replace(run, rows=(), telemetry=(), environment={"sessions": []})
    assert set(_warn(bare)) == {"few_blocks", "no_calibration"}


def test_every_rule_is_in_the_list():
    """A rule that is written is also run."""
    from shoestring.analysis import noise, warnings

    written = {
        name
        for name, value in {**vars(warnings), **vars(noise)}.items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__annotations__", {}).get("return") == "Iterator[Warned]"
    }
    assert written == {rule.__name__ for rule in RULES}
