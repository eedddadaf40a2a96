import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.analysis.repeatability import (
    METRICS,
    ONE_VALUE_EACH,
    TOO_FEW_SESSIONS,
    repeatability,
    session_repeatability,
)

NUMBERS = st.floats(0.1, 1e4, allow_nan=False)
SESSIONS = st.lists(st.lists(NUMBERS, min_size=2, max_size=8), min_size=2, max_size=6)


def test_a_balanced_table_is_parted_as_by_hand():
    """Two sessions of 1, 3 and 5, 7: MSW 2, MSB 16, n0 2."""
    found = repeatability([[1.0, 3.0], [5.0, 7.0]])

    assert found.mean == 4.0
    assert found.within_sd == pytest.approx(math.sqrt(2))
    assert found.between_sd == pytest.approx(math.sqrt(7))
    assert found.between_share == pytest.approx(math.sqrt(7) / 4)
    assert found.intraclass_correlation == pytest.approx(7 / 9)
    assert (found.sessions, found.values, found.reason) == (2, 4, None)


def test_sessions_of_unlike_length_are_weighed():
    """By hand: 1, 2, 3 and 7: mean 3.25, MSW 1, MSB 18.75, n0 (4 - 10 / 4) / 1."""
    found = repeatability([[1.0, 2.0, 3.0], [7.0]])

    assert found.within_sd == pytest.approx(1.0)
    assert found.between_sd == pytest.approx(math.sqrt(17.75 / 1.5))


def test_what_was_put_in_is_found_again():
    """Of many simulated sessions both deviations come out as they were chosen."""
    rng = random.Random(1)
    sessions = []
    for _ in range(600):
        own = rng.gauss(100, 3)
        sessions.append([rng.gauss(own, 4) for _ in range(10)])
    found = repeatability(sessions)

    assert found.within_sd == pytest.approx(4, rel=0.05)
    assert found.between_sd == pytest.approx(3, rel=0.1)
    assert found.intraclass_correlation == pytest.approx(9 / 25, rel=0.15)


def test_equal_sessions_have_nothing_between_them():
    """Where sessions differ less than chance allows the deviation is 0, not imaginary."""
    found = repeatability([[1.0, 3.0], [3.0, 1.0]])

    assert found.between_sd == 0
    assert found.intraclass_correlation == 0


def test_sessions_without_any_spread_inside_are_all_between():
    """Two constants tell everything about their requests."""
    assert repeatability([[2.0, 2.0], [3.0, 3.0]]).intraclass_correlation == 1


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        ([], TOO_FEW_SESSIONS),
        ([[1.0, 2.0], []], TOO_FEW_SESSIONS),
        ([[1.0], [2.0]], ONE_VALUE_EACH),
    ],
)
def test_too_little_is_none_with_a_reason(sessions, reason):
    """Nothing is called repeatable that was not repeated."""
    found = repeatability(sessions)

    assert found.reason == reason
    assert (found.within_sd, found.between_sd, found.intraclass_correlation) == (None, None, None)


def test_a_mean_of_nothing_has_no_shares():
    """Shares of 0 are not given; the deviations are."""
    found = repeatability([[-1.0, 1.0], [-2.0, 2.0]])

    assert found.within_share is None
    assert "mean is 0" in found.reason
    assert found.within_sd > 0


@given(SESSIONS, st.floats(0.01, 100))
def test_shares_do_not_depend_on_the_unit(sessions, factor):
    """Seconds or milliseconds: the shares and the correlation stay."""
    before = repeatability(sessions)
    after = repeatability([[value * factor for value in values] for values in sessions])

    assert after.within_share == pytest.approx(before.within_share, rel=1e-6, abs=1e-9)
    assert after.between_share == pytest.approx(before.between_share, rel=1e-4, abs=1e-6)


@given(st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=2, max_size=6))
def test_of_like_sessions_the_within_variance_is_the_mean_of_theirs(sessions):
    """With as many values in each, MSW is the plain mean of the variances."""
    expected = statistics.mean(statistics.variance(values) for values in sessions)

    assert repeatability(sessions).within_sd ** 2 == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_each_run_is_a_session(run):
    """Runs of one suite are parted by case and metric; failures have no values."""
    rows = session_repeatability([run, run])
    case = next(one for one in rows if one["case"] == "chat-128")

    assert [one["metric"] for one in rows[: len(METRICS)]] == list(METRICS)
    assert case["sessions"][0] == case["sessions"][1]
    assert case["repeatability"]["between_sd"] == 0


def test_a_run_without_a_case_is_no_session_of_it(run):
    """What only one run has was not repeated, and says so."""
    short = replace(run, rows=tuple(row for row in run.rows if row["case"] != "chat-128"))
    rows = session_repeatability([run, short])
    case = next(one for one in rows if one["case"] == "chat-128")

    assert case["repeatability"]["reason"] == TOO_FEW_SESSIONS
