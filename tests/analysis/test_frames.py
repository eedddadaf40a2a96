from dataclasses import replace

import pytest

from shoestring.analysis.frames import (
    GAP_COLUMNS,
    REQUEST_COLUMNS,
    TELEMETRY_COLUMNS,
    gap_frame,
    request_frame,
    telemetry_frame,
)
from shoestring.analysis.metrics import request_metrics
from shoestring.errors import BadRunError


def test_request_frame_has_a_row_a_request(make_run):
    """Warm-ups and failures are there, with the documented columns in order."""
    frame = request_frame(make_run(failures=2))
    assert tuple(frame.columns) == REQUEST_COLUMNS
    assert len(frame) == 71
    assert frame["phase"].value_counts().to_dict() == {"measure": 70, "warmup": 1}
    assert frame["reason"].dropna().tolist() == ["stall", "stall"]
    assert frame.loc[frame["status"] == "failed", "ttft_s"].isna().all()


def test_request_frame_holds_what_request_metrics_says(run):
    """The frame is the same numbers, on the clock of the session."""
    frame = request_frame(run).set_index("id")
    row = run.rows[5]
    assert frame.loc[row["id"], "ttft_s"] == request_metrics(row).ttft_s
    assert frame.loc[row["id"], "start_s"] == row["intended_ns"] / 1e9
    assert frame.loc[row["id"], "end_s"] == row["end_ns"] / 1e9
    targets = frame.groupby("case")["prompt_tokens_target"].first().to_dict()
    assert targets == {"chat-128": 128, "chat-128-c4": 128, "context-1024": 1024}


def test_good_is_yes_no_or_unknown(make_run):
    """A failure and a request over a limit are not good; a warm-up is neither."""
    frame = request_frame(make_run(failures=1)).set_index("id")
    assert frame.loc["b1-chat-128-0000", "good"]
    assert not frame.loc["b1-context-1024-0000", "good"]  # TTFT of 4 s over a limit of 2 s
    assert not frame.loc["b1-chat-128-c4-0000", "good"]  # TPOT of 40 ms over 30 ms
    assert frame["good"].dtype == "boolean"
    assert frame[frame["status"] == "failed"]["good"].tolist() == [False]
    assert frame[frame["phase"] == "warmup"]["good"].isna().all()


def test_a_limit_that_cannot_be_judged_is_unknown(run, row):
    """A one-token answer has no TPOT: it is neither good nor bad."""
    one = row(usage={"prompt_tokens": 9, "completion_tokens": 1}, events=[[10**9, "answer", 1]])
    assert request_frame(replace(run, rows=(one,)))["good"].isna().all()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"speed": 1}, "limits speed to 1: "),
        ({"decode_tokens_per_s": 20}, "limits decode_tokens_per_s to 20: "),
        ({"ttft_s": "fast"}, "limits ttft_s to 'fast': "),
        ({"ttft_s": 2, "e2e_s": None}, "limits e2e_s to None: "),
    ],
)
def test_an_unknown_limit_is_the_users_mistake(run, limits, said):
    """A suite that limits something else than a time of a request gives one clear line."""
    suite = {**run.config["suite"], "limits": limits}
    with pytest.raises(BadRunError, match=f"{said}give seconds for one of ttft_s, tpot_s, e2e_s"):
        request_frame(replace(run, config={**run.config, "suite": suite}))


def test_gap_frame_has_the_raw_gaps_of_whole_answers(make_run):
    """Failures and warm-ups give no gaps; a gap's time is that of its end."""
    run = make_run(failures=2)
    frame = gap_frame(run)
    assert tuple(frame.columns) == GAP_COLUMNS
    assert len(frame) == 68 * 31
    first = frame[frame["id"] == "b1-chat-128-0000"]
    events = [t for t, kind, _ in run.rows[1]["events"] if kind == "answer"]
    assert first["t_s"].tolist() == [t / 1e9 for t in events[1:]]
    assert first["index"].tolist() == list(range(31))
    assert first["gap_s"].sum() == pytest.approx((events[-1] - events[0]) / 1e9)


def test_telemetry_frame_has_null_where_nothing_was_readable(run):
    """A missing sensor is NaN, not 0."""
    frame = telemetry_frame(run)
    assert tuple(frame.columns) == TELEMETRY_COLUMNS
    assert len(frame) == len(run.telemetry)
    assert frame["temperature_c"].isna().all()
    assert frame["t_s"].tolist()[:3] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("build", [request_frame, gap_frame, telemetry_frame])
def test_an_empty_run_gives_the_same_columns_and_types(run, build):
    """A run that was cut before its first request can be plotted like any other."""
    empty = build(replace(run, rows=(), telemetry=()))
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == build(run).dtypes.to_dict()
