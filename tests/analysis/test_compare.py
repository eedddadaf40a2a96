import json
from dataclasses import replace

import pytest

from shoestring.analysis.compare import compare_runs
from shoestring.errors import BadRunError


def _slower(run, factor):
    """Return the run with every latency multiplied."""

    def stretch(row):
        start = row["intended_ns"]
        events = [[start + int((t - start) * factor), k, n] for t, k, n in row["events"]]
        return {**row, "events": events, "end_ns": start + int((row["end_ns"] - start) * factor)}

    return replace(run, rows=tuple(stretch(row) for row in run.rows))


def _verdicts(comparison, case=0):
    return {name: m["verdict"] for name, m in comparison["cases"][case]["metrics"].items()}


def _config(run, part, **changes):
    return replace(run, config={**run.config, part: {**run.config[part], **changes}})


def test_a_run_against_itself_shows_no_difference(run):
    """Every ratio is 1 and lies in its interval."""
    comparison = compare_runs(run, run)
    for case in comparison["cases"]:
        for metric in case["metrics"].values():
            assert metric["ratio"] == 1
            assert metric["verdict"] == "no difference shown"
            assert metric["ci95"][0] <= 1 <= metric["ci95"][1]
    assert comparison["differences"] == []
    assert comparison["comparable"] is True
    json.dumps(comparison, allow_nan=False)


def test_noise_alone_is_no_difference_in_ttft(make_run):
    """Two seeds of one truth are not told apart."""
    verdicts = _verdicts(compare_runs(make_run(seed=1), make_run(seed=2)))
    assert verdicts["ttft_s"] == "no difference shown"


def test_a_run_that_is_half_as_fast_is_slower_in_every_metric(run):
    """Longer times and lower rates are both slower; the ratio is b / a."""
    comparison = compare_runs(run, _slower(run, 2))
    assert set(_verdicts(comparison).values()) == {"slower"}
    metrics = comparison["cases"][0]["metrics"]
    assert metrics["ttft_s"]["ratio"] == pytest.approx(2, rel=1e-4)
    assert metrics["decode_tokens_per_s"]["ratio"] == pytest.approx(0.5, rel=1e-4)


def test_the_other_way_round_is_faster(run):
    """The verdict is about b."""
    assert set(_verdicts(compare_runs(_slower(run, 2), run)).values()) == {"faster"}


def test_too_few_blocks_give_no_verdict(make_run):
    """With four blocks on one side there is a ratio, no interval, no verdict."""
    comparison = compare_runs(make_run(blocks=5), make_run(blocks=4))
    assert set(_verdicts(comparison).values()) == {"too few blocks"}
    metric = comparison["cases"][0]["metrics"]["ttft_s"]
    assert metric["ci95"] is None
    assert metric["ratio"] is not None


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("model", {"sha256": "1" * 64}, "model sha256"),
        ("suite", {"sha256": "2" * 64}, "suite sha256"),
    ],
)
def test_another_suite_or_model_is_not_comparable_and_still_told(run, part, change, field):
    """The verdict is there, beside the reason why it is not like with like."""
    comparison = compare_runs(run, _config(run, part, **change))
    assert comparison["comparable"] is False
    assert [one["field"] for one in comparison["differences"]] == [field]
    metric = comparison["cases"][0]["metrics"]["ttft_s"]
    assert metric["comparable"] is False
    assert field in metric["reason"]
    assert metric["verdict"] == "no difference shown"


def test_another_machine_is_listed_and_comparable(run):
    """Machines are what one compares; the difference is named with both values."""
    session = run.sessions[0]
    machine = {**session["machine"], "cpu": {**session["machine"]["cpu"], "model": "other"}}
    other = replace(run, environment={"sessions": [{**session, "machine": machine}]})
    comparison = compare_runs(run, other)
    assert comparison["differences"] == [{"field": "CPU", "a": "synthetic", "b": "other"}]
    assert comparison["comparable"] is True


def test_cases_of_one_side_are_listed(run):
    """What cannot be compared is named, not dropped."""
    fewer = replace(run, rows=tuple(r for r in run.rows if r["case"] != "context-1024"))
    comparison = compare_runs(run, fewer)
    assert [case["case"] for case in comparison["cases"]] == ["chat-128", "chat-128-c4"]
    assert comparison["only_in_a"] == ["context-1024 at concurrency 1"]
    assert comparison["only_in_b"] == []


def test_runs_without_a_common_case_are_refused(run):
    """One line names the cases of both."""
    renamed = replace(run, rows=tuple({**r, "case": "other"} for r in run.rows))
    with pytest.raises(
        BadRunError, match=r"no case in common: chat-128 at .* against other at"
    ) as it:
        compare_runs(run, renamed)
    assert "\n" not in str(it.value)


def test_metrics_that_one_side_lacks_have_no_verdict(run):
    """Unknown tokens on one side: null median, null ratio."""
    unknown = replace(run, rows=tuple({**r, "usage": None, "native": None} for r in run.rows))
    metric = compare_runs(run, unknown)["cases"][0]["metrics"]["tpot_s"]
    assert (metric["b"], metric["ratio"], metric["verdict"]) == (None, None, "too few blocks")


def _failed(run, count):
    """Return the run with the first requests of its first case failed."""
    chosen = {r["id"] for r in [r for r in run.measured if r["case"] == "chat-128"][:count]}
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    return replace(run, rows=tuple({**r, **failed} if r["id"] in chosen else r for r in run.rows))


def test_requests_of_both_sides_are_counted(run):
    """What ended well and what failed stands beside the metrics of each case."""
    cases = compare_runs(run, _failed(run, 3))["cases"]
    assert cases[0]["requests"] == {"a": {"ok": 20, "failed": 0}, "b": {"ok": 17, "failed": 3}}
    assert cases[1]["requests"]["b"] == {"ok": 40, "failed": 0}


@pytest.mark.parametrize(("count", "comparable"), [(3, True), (15, False)])
def test_unlike_success_is_not_comparable(run, count, comparable):
    """Intervals that do not overlap are told, in that case only and whichever side failed."""
    for a, b in ((run, _failed(run, count)), (_failed(run, count), run)):
        comparison = compare_runs(a, b)
        first, second, *_ = [case["metrics"]["ttft_s"] for case in comparison["cases"]]
        assert first["comparable"] is comparable
        assert ("the success rates differ" in (first["reason"] or "")) is not comparable
        assert second["comparable"] is True
        assert comparison["comparable"] is True


def test_reasons_add_up(run):
    """Another model and another success rate are both told."""
    other = _failed(_config(run, "model", sha256="1" * 64), 15)
    reason = compare_runs(run, other)["cases"][0]["metrics"]["ttft_s"]["reason"]
    assert reason == (
        "the runs differ in model sha256; the success rates differ: 20 of 20 against 5 of 20"
    )


@pytest.mark.parametrize("part", ["model", "suite"])
def test_another_name_of_the_same_file_is_comparable(run, part):
    """With equal hashes a name is only listed; with unknown ones it is all that is known."""
    comparison = compare_runs(run, _config(run, part, name="other"))
    assert [one["field"] for one in comparison["differences"]] == [part]
    assert comparison["comparable"] is True
    unknown = _config(run, part, sha256=None)
    comparison = compare_runs(unknown, _config(unknown, part, name="other"))
    assert comparison["reason"] == f"the runs differ in {part}"


def test_server_requests_and_our_own_version_are_listed(run):
    """They are no reason not to compare, and the reader should know them."""
    other = _config(run, "engine", base_url="http://127.0.0.1:8080/v1")
    other = replace(other, config={**other.config, "requests": other.config["requests"][:60]})
    versions = {**run.sessions[0]["versions"], "shoestring": "0.2.0"}
    other = replace(other, environment={"sessions": [{**run.sessions[0], "versions": versions}]})
    comparison = compare_runs(run, other)
    assert comparison["differences"] == [
        {"field": "base_url", "a": None, "b": "http://127.0.0.1:8080/v1"},
        {"field": "requests", "a": 70, "b": 60},
        {"field": "shoestring version", "a": "0.1.0", "b": "0.2.0"},
    ]
    assert comparison["comparable"] is True


def test_interleaved_runs_are_of_one_model_whatever_engines_call_it(run):
    """An engine that knows no hash is compared with the run that was made in turn with it."""
    other = _config(run, "model", name="gemma3:270m", sha256=None)
    assert compare_runs(run, other)["comparable"] is False
    a, b = (replace(one, config={**one.config, "run_id": name, "interleaved_with": [partner]})
            for one, name, partner in ((run, "a", "b"), (other, "b", "a")))  # fmt: skip
    assert compare_runs(a, b)["comparable"] is True
    unlike = replace(b, config={**b.config, "model": {**b.config["model"], "sha256": "1" * 64}})
    assert compare_runs(a, unlike)["comparable"] is False
