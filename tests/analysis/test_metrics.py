from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.analysis.metrics import (
    RequestMetrics,
    request_gaps_s,
    request_metrics,
    token_source,
)

S = 1_000_000_000
COUNTS = {"output_tokens", "prompt_tokens", "cached_tokens", "token_discrepancy"}


def test_every_metric_of_a_plain_row_follows_its_formula(row):
    """A row with round numbers gives exactly the documented values."""
    assert asdict(request_metrics(row())) == {
        "ttft_s": 2.0, "first_chunk_s": 1.0, "first_reasoning_s": None, "first_answer_s": 2.0,
        "tpot_s": 1.0, "e2e_s": 5.0, "decode_tokens_per_s": 1.0, "prefill_tokens_per_s": 5.0,
        "output_tokens": 4, "prompt_tokens": 12, "cached_tokens": 2, "schedule_lag_s": 0.5,
        "connect_s": 0.25, "native_prefill_tokens_per_s": 8.0, "native_decode_tokens_per_s": 1.5,
        "early_stop": False, "token_discrepancy": 0, "residual_s": 0.75,
        "reasoning_share": 0.0, "native_prompt_s": 1.25, "native_load_s": None,
        "native_total_s": None,
    }  # fmt: skip


def test_latency_starts_at_the_intended_send(row):
    """A client that sent late does not look faster."""
    late = row(intended_ns=-S)
    assert request_metrics(late).ttft_s == 3.0
    assert request_metrics(late).e2e_s == 6.0
    assert request_metrics(late).schedule_lag_s == 1.5


def test_comments_are_no_chunk_and_role_chunks_are_no_token(row):
    """A keep-alive comment does not start first_chunk_s, an empty chunk does not start ttft_s."""
    events = [[S // 2, "comment", 0], [S, "role", 0], [S + 1, "empty", 0], [2 * S, "answer", 1]]
    metrics = request_metrics(row(events=events))
    assert (metrics.first_chunk_s, metrics.ttft_s) == (1.0, 2.0)


def test_reasoning_counts_as_first_token_and_is_told_apart(row):
    """TTFT is the first reasoning; the first answer comes later."""
    events = [[S, "reasoning", 3], [2 * S, "reasoning", 3], [4 * S, "answer", 3]]
    metrics = request_metrics(row(events=events))
    assert (metrics.ttft_s, metrics.first_reasoning_s, metrics.first_answer_s) == (1.0, 1.0, 4.0)
    assert request_gaps_s(row(events=events)) == [1.0, 2.0]


def test_reasoning_share_is_of_bytes(row):
    """Three chunks, of which the reasoning has six bytes of nine."""
    events = [[S, "reasoning", 3], [2 * S, "reasoning", 3], [4 * S, "answer", 3]]
    assert request_metrics(row(events=events)).reasoning_share == pytest.approx(6 / 9)


def test_reasoning_share_is_unknown_without_text_and_of_failures(row):
    """No text has no share, and a cut answer is not judged."""
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    assert request_metrics(row(events=[[S, "role", 0]])).reasoning_share is None
    assert request_metrics(row(**failed)).reasoning_share is None


def test_the_engines_load_is_not_residual(row):
    """TTFT of 2 s, of which the engine loaded 0.5 s and prefilled 1.25 s, leaves 0.25 s."""
    native = {**row()["native"], "load_s": 0.5, "total_s": 4.0}
    metrics = request_metrics(row(native=native))
    assert (metrics.residual_s, metrics.native_load_s, metrics.native_total_s) == (0.25, 0.5, 4.0)


def test_chunks_are_not_tokens(row):
    """Two chunks that hold four tokens give TPOT over three steps, and one raw gap."""
    packed = row(events=[[2 * S, "answer", 2], [5 * S, "answer", 2]])
    assert request_metrics(packed).tpot_s == 1.0
    assert request_gaps_s(packed) == [3.0]


def test_tokens_come_from_native_where_usage_is_missing(row):
    """Without usage the engine's native count is taken, and prompt = processed + cached."""
    metrics = request_metrics(row(usage=None))
    assert (metrics.output_tokens, metrics.prompt_tokens, metrics.cached_tokens) == (4, 12, 2)
    assert metrics.prefill_tokens_per_s == 5.0
    assert metrics.token_discrepancy is None
    assert token_source(row()) == "usage"
    assert token_source(row(usage=None)) == "native"
    assert token_source(row(usage=None, native=None)) is None


def test_tokens_that_nobody_counted_are_unknown(row):
    """Without any count there is no rate, though four chunks came; latencies stay."""
    metrics = request_metrics(row(usage=None, native=None))
    assert metrics.output_tokens is None
    assert metrics.tpot_s is None
    assert metrics.decode_tokens_per_s is None
    assert metrics.prefill_tokens_per_s is None
    assert metrics.early_stop is None
    assert (metrics.ttft_s, metrics.e2e_s) == (2.0, 5.0)


def test_unknown_cache_is_not_taken_for_no_cache(row):
    """A whole prompt count without a cached count gives no prefill rate."""
    usage = {"prompt_tokens": 12, "completion_tokens": 4, "cached_tokens": None}
    assert request_metrics(row(usage=usage, native=None)).prefill_tokens_per_s is None


def test_a_prompt_wholly_from_the_cache_has_no_prefill_rate(row):
    """Nothing was prefilled, so the rate is unknown and not zero."""
    usage = {"prompt_tokens": 12, "completion_tokens": 4, "cached_tokens": 12}
    metrics = request_metrics(row(usage=usage))
    assert metrics.prefill_tokens_per_s is None
    assert metrics.native_prefill_tokens_per_s is None


@pytest.mark.parametrize(
    ("tokens", "events"),
    [
        (1, [[2 * S, "answer", 1]]),
        (4, [[2 * S, "answer", 4]]),
        (1, [[S, "answer", 1], [S + 9, "answer", 1]]),
    ],
)
def test_one_token_or_one_chunk_has_no_decode(row, tokens, events):
    """Without a step or without a gap TPOT and decode rate are None, not 0."""
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "cached_tokens": 0}
    metrics = request_metrics(row(usage=usage, events=events))
    assert metrics.tpot_s is None
    assert metrics.decode_tokens_per_s is None
    assert metrics.ttft_s is not None


def test_a_failed_row_has_no_latencies(row):
    """Whatever is timed is None for a failure, though events came; it has no gaps."""
    failed = row(status="failed", failure={"reason": "stall", "detail": "x"}, finish_reason=None)
    metrics = asdict(request_metrics(failed))
    assert {name for name, value in metrics.items() if value is not None} == COUNTS
    assert request_gaps_s(failed) == []


def test_a_failure_before_anything_was_sent_is_readable(row):
    """A refused connection has null stamps and no events, and gives Nones."""
    failed = row(
        status="failed", failure={"reason": "connect", "detail": "x"}, events=[], sent_ns=None,
        headers_ns=None, connect_s=None, usage=None, native=None, finish_reason=None,
    )  # fmt: skip
    assert set(asdict(request_metrics(failed)).values()) == {None}


@pytest.mark.parametrize(
    ("finish", "tokens", "early"),
    [("stop", 3, True), ("length", 3, False), ("stop", 4, False), (None, 3, True)],
)
def test_early_stop_is_fewer_tokens_than_asked_for(row, finish, tokens, early):
    """An answer stopped early if it is short and the limit is not why."""
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "cached_tokens": 0}
    assert request_metrics(row(finish_reason=finish, usage=usage)).early_stop is early


def test_the_engine_contradicting_itself_is_shown_with_its_sign(row):
    """Discrepancy is usage minus native."""
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "cached_tokens": 2}
    assert request_metrics(row(usage=usage)).token_discrepancy == 1


@given(
    gaps_ns=st.lists(st.integers(1, 10**10), min_size=1, max_size=60),
    start_ns=st.integers(0, 10**15),
)
def test_gaps_add_up_to_decode_time(gaps_ns, start_ns):
    """For any stream: sum of gaps = e2e - TTFT, and decode rate = 1 / TPOT."""
    at_ns, events = start_ns + 5, [[start_ns + 5, "answer", 1]]
    for gap_ns in gaps_ns:
        at_ns += gap_ns
        events.append([at_ns, "answer", 1])
    row = {
        "status": "ok", "events": events, "intended_ns": start_ns,
        "usage": {"completion_tokens": len(events)},
    }  # fmt: skip
    metrics = request_metrics(row)
    assert sum(request_gaps_s(row)) == pytest.approx(metrics.e2e_s - metrics.ttft_s, abs=1e-6)
    assert metrics.decode_tokens_per_s == pytest.approx(1 / metrics.tpot_s)
    assert metrics.tpot_s == pytest.approx(sum(gaps_ns) / len(gaps_ns) / 1e9)


def test_every_field_is_a_number_or_none():
    """Frames and JSON rely on it."""
    assert {field.type for field in fields(RequestMetrics)} <= {
        "float | None", "int | None", "bool | None",
    }  # fmt: skip
