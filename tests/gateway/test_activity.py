"""What the dashboard shows: counted where it belongs, exact percentiles, bounded."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.gateway import activity, bins
from shoestring.gateway.activity import Activity, Outcome, Use
from shoestring.gateway.bins import Gauges, percentile

GOOD = Outcome(
    request_id="r1", t_utc="2026-11-22T00:00:00Z", key_id="k1", key_name="ana",
    address="127.0.0.1", operation="chat", model="qwen3:8b", variant="q4", engine="local",
    provider="ollama", status=200, failure=None, stream=True, cache="miss", queue_s=0.5,
    ttft_s=1.0, duration_s=2.0, input_tokens=10, output_tokens=20, answered_by="qwen3:8b",
)  # fmt: skip


class Clock:
    """A monotonic clock that goes when it is told to; the wall clock is a thousand seconds on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now_s

    def utc(self) -> float:
        """Return seconds since 1970."""
        return 1_000.0 + self.now_s


@pytest.fixture
def clock():
    """At nought."""
    return Clock()


@pytest.fixture
def shown(clock):
    """An activity whose first bin has just begun."""
    return Activity(clock, utc=clock.utc, chance=random.Random(1))


def test_the_bin_that_is_not_over_is_left_out(shown, clock):
    """A rate over part of a bin would look like a fall."""
    shown.note(GOOD)
    assert shown.series().t_utc_s == []
    clock.now_s = 5.0
    assert shown.series().t_utc_s == [1000.0]
    assert shown.series().requests_per_s == [1 / 5]


def test_percentiles_are_those_of_the_raw_times_of_a_bin(shown, clock):
    """Type 7 over 1..5 s; a bin without an answer has none."""
    for ttft_s in (3.0, 1.0, 5.0, 2.0, 4.0):
        shown.note(replace(GOOD, ttft_s=ttft_s, duration_s=6.0))
    clock.now_s = 10.0
    series = shown.series()
    assert series.ttft_p50_s == [3.0, None]
    assert series.ttft_p90_s == [pytest.approx(4.6), None]


def test_a_failed_and_a_remembered_answer_have_no_ttft(shown, clock):
    """They say nothing about how fast an engine is."""
    shown.note(replace(GOOD, status=502, failure="engine_lost"))
    shown.note(replace(GOOD, cache="hit"))
    shown.note(replace(GOOD, cache="joined"))
    clock.now_s = 5.0
    series = shown.series()
    assert (series.ttft_p50_s, series.output_tokens_per_s) == ([None], [0.0])
    assert (series.requests_per_s, series.errors_per_s) == ([3 / 5], [1 / 5])
    assert shown.totals().mean_inference_s is None


def test_tokens_are_spread_over_the_time_in_which_they_were_made(shown, clock):
    """20 tokens from 3 s to 13 s: 2 in each second, in whichever bin that lies."""
    clock.now_s = 13.0
    shown.note(replace(GOOD, ttft_s=2.0, duration_s=12.0))
    clock.now_s = 15.0
    assert shown.series().output_tokens_per_s == pytest.approx([4 / 5, 10 / 5, 6 / 5])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 2000), st.integers(1, 5000)), max_size=20))
def test_each_bin_holds_its_share_of_every_answer(requests):
    """Against the plain definition; what lies before the oldest bin is left out."""
    clock = Clock()
    shown = Activity(clock, utc=clock.utc)
    clock.now_s = 2_500.0  # an answer may have begun before the oldest bin
    answers = []
    for wait_s, lasted_s, tokens in requests:
        clock.now_s += wait_s
        answer = replace(GOOD, ttft_s=0.0, duration_s=lasted_s, output_tokens=tokens)
        shown.note(answer)
        answers.append((clock.now_s - lasted_s, clock.now_s, tokens))
    clock.now_s = 5.0 * (clock.now_s // 5 + 1)

    def share(start_s, end_s, tokens, from_s):
        if start_s == end_s:
            return tokens * (from_s <= end_s < from_s + 5)
        overlap_s = min(end_s, from_s + 5) - max(start_s, from_s)
        return tokens * max(0.0, overlap_s) / (end_s - start_s)

    series = shown.series()
    for t_utc_s, rate in zip(series.t_utc_s, series.output_tokens_per_s, strict=True):
        wanted = sum(share(*answer, t_utc_s - 1_000) for answer in answers)
        assert rate * 5 == pytest.approx(wanted, rel=1e-6, abs=1e-3)


def test_time_without_requests_is_nought_and_not_missing(shown, clock):
    """The gateway was up: rates are 0, percentiles unknown."""
    shown.note(GOOD)
    clock.now_s = 22.0
    series = shown.series()
    assert series.requests_per_s == [0.2, 0, 0, 0]
    assert series.t_utc_s == [1000, 1005, 1010, 1015]
    assert series.ttft_p50_s[1:] == [None, None, None]


def test_a_step_of_the_wall_clock_moves_no_bin(shown, clock):
    """What was drawn at a place stays there."""
    clock.now_s = 5.0
    first = shown.series().t_utc_s
    clock.utc = lambda: 99_999.0
    clock.now_s = 12.0
    assert shown.series().t_utc_s[:1] == first


def test_gauges_are_the_last_of_a_bin_and_missing_where_none_was_read(shown, clock):
    """No reading is not 0."""
    shown.sample(Gauges(1, 2, 3, 4))
    shown.sample(Gauges(5, 6, None, 8))
    clock.now_s = 10.0
    series = shown.series()
    assert series.queue_waiting == [5, None]
    assert series.active_requests == [6, None]
    assert series.model_memory_bytes == [None, None]
    assert series.gateway_memory_bytes == [8, None]


def test_after_a_long_sleep_there_is_a_quarter_of_an_hour(shown, clock):
    """Not one bin for each 5 s of a week."""
    shown.note(GOOD)
    clock.now_s = 7 * 86_400.0
    series = shown.series()
    assert len(series.t_utc_s) == bins.BINS
    assert series.requests_per_s == [0.0] * bins.BINS
    assert series.t_utc_s[-1] == 1_000 + 7 * 86_400 - 5


def test_of_very_many_answers_in_a_bin_a_fair_sample_stays(shown, clock):
    """Memory is bounded, and the median of a rising row stays in the middle."""
    many = 5 * bins.RAW_TTFTS
    for number in range(many):
        shown.note(replace(GOOD, ttft_s=float(number), duration_s=float(number)))
    assert len(shown._bins._bins[-1].ttfts) == bins.RAW_TTFTS
    clock.now_s = 5.0
    assert shown.series().ttft_p50_s[0] == pytest.approx(many / 2, rel=0.1)
    assert shown._bins._bins[0].ttfts == []


def test_recent_is_newest_first_and_bounded(shown):
    """However many are asked for."""
    for number in range(activity.RECENT + 3):
        shown.note(replace(GOOD, request_id=str(number)))
    newest = str(activity.RECENT + 2)
    assert [outcome.request_id for outcome in shown.recent(2)] == [newest, str(activity.RECENT + 1)]
    assert len(shown.recent(10**9)) == activity.RECENT
    assert shown.recent(-1) == []


def test_totals_are_of_what_engines_made(shown):
    """The mean leaves queue, failures and answers from memory out."""
    assert shown.totals().mean_inference_s is None
    shown.note(GOOD)
    shown.note(replace(GOOD, duration_s=4.5, input_tokens=None, output_tokens=None))
    shown.note(replace(GOOD, cache="hit", duration_s=0.001))
    shown.note(replace(GOOD, status=429, failure="rate_limit", engine="", duration_s=0.0))
    totals = shown.totals()
    assert totals.mean_inference_s == pytest.approx((1.5 + 4.0) / 2)
    assert (totals.requests, totals.errors, totals.rejected) == (4, 1, 1)
    assert (totals.input_tokens, totals.output_tokens) == (10, 20)


@pytest.mark.parametrize(
    ("status", "failure", "failed", "rejected", "inferred"),
    [
        (200, None, False, False, True),
        (200, "engine_lost", True, False, False),  # the stream broke
        (499, "client_left", False, False, False),
        (401, "no_key", True, True, False),
        (429, "rate_limit", True, True, False),
        (503, "queue_full", True, True, False),
        (502, "engine_lost", True, False, False),
        (404, None, True, True, False),
    ],
)
def test_what_counts_as_failed_and_what_as_turned_away(status, failure, failed, rejected, inferred):
    """A client that left is no error of ours."""
    outcome = replace(GOOD, status=status, failure=failure)
    assert (outcome.failed, outcome.rejected, outcome.inferred) == (failed, rejected, inferred)


def test_a_key_s_use_holds_what_it_was_sent(shown):
    """Also from memory; nobody's requests are nobody's."""
    shown.note(GOOD)
    shown.note(replace(GOOD, cache="hit", t_utc="2026-11-22T00:00:09Z"))
    shown.note(replace(GOOD, status=429, input_tokens=None, output_tokens=None))
    shown.note(replace(GOOD, key_id=""))
    assert shown.use_of("k1") == Use(3, 1, 20, 40, "2026-11-22T00:00:00Z")
    assert shown.use_of("") == shown.use_of("nobody") == Use()


def test_the_keys_longest_unused_are_forgotten(shown):
    """Ten thousand are kept; the one that is used again stays."""
    shown.note(GOOD)
    for number in range(activity.KEYS):
        if number == 5:
            shown.note(GOOD)
        shown.note(replace(GOOD, key_id=f"n{number}"))
    assert len(shown._uses) == activity.KEYS
    assert shown.use_of("k1").requests == 2
    assert shown.use_of("n0").requests == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_lies_among_its_values(values, share):
    """Between the least and the largest; the ends are these."""
    values.sort()
    found = percentile(values, share)
    slack = 1e-9 * values[-1]
    assert values[0] - slack <= found <= values[-1] + slack
    assert (percentile(values, 0.0), percentile(values, 1.0)) == (values[0], values[-1])
