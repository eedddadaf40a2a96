"""When requests are meant to leave: sorted, seeded, at the wanted rate, the same after a resume."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.measure.schedule import Planned, plan_batches
from shoestring.measure.suite import Case, Suite, parse_suite

BASE = b"""\
name = "s"
description = "S."
blocks = 3
seed = 5
[[case]]
name = "c"
prompt = "chat"
prompt_tokens = 32
output_tokens = 8
concurrency = 4
requests_per_block = 6
"""


def suite(seed: int = 5, **case: object) -> Suite:
    """A suite of one case."""
    base = parse_suite(BASE, "s.toml")
    return dataclasses.replace(base, seed=seed, cases=(dataclasses.replace(base.cases[0], **case),))


def arrivals(of: Suite, block: int = 1, requests: int | None = None) -> list[float | None]:
    """The planned moments of one block."""
    batch = next(b for b in plan_batches(of, requests) if b.block == block)
    return [planned.arrival_s for planned in batch.requests]


def test_a_closed_loop_has_no_moments():
    """Where requests wait for slots, nothing is planned, and the record says null."""
    assert [None] * 6 == arrivals(suite())
    assert Planned("a", 1, "c", 1).to_json()["arrival_s"] is None


@given(st.floats(0.01, 1000), st.integers(1, 60))
def test_a_constant_rate_is_even(rate, count):
    """The first leaves at once, the others one period apart."""
    moments = arrivals(suite(arrival="constant", rate_per_s=rate, requests_per_block=count))

    assert moments == pytest.approx([number / rate for number in range(count)], abs=1e-9)


@given(st.floats(0.01, 1000), st.integers(0, 2**31 - 1), st.integers(2, 60))
def test_poisson_moments_are_sorted_and_seeded(rate, seed, count):
    """They rise, come again from the same seed, and differ between blocks and seeds."""
    poisson = suite(seed, arrival="poisson", rate_per_s=rate, requests_per_block=count)
    moments = arrivals(poisson)

    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments == arrivals(poisson)
    assert moments != arrivals(poisson, block=2)
    assert moments != arrivals(dataclasses.replace(poisson, seed=seed + 1))


@given(st.floats(0.1, 100), st.integers(1, 20))
def test_fewer_requests_are_the_first_of_many(rate, count):
    """A wanted total cuts the plan short and moves nothing."""
    poisson = suite(arrival="poisson", rate_per_s=rate, requests_per_block=20)

    assert arrivals(poisson)[:count] == arrivals(poisson, requests=3 * count)


def test_poisson_has_the_wanted_mean_rate_and_exponential_gaps():
    """Of 10,000 gaps the mean is 1/rate, and as many as should be exceed it."""
    moments = arrivals(suite(arrival="poisson", rate_per_s=4.0, requests_per_block=10_000))
    gaps = [after - before for before, after in pairwise(moments)]

    assert sum(gaps) / len(gaps) == pytest.approx(0.25, rel=0.05)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_the_limit_in_flight_is_no_more_than_the_requests():
    """Rows never claim room that was not used."""
    case = Case("c", "chat", 32, 8, 50, 6, arrival="poisson", rate_per_s=1.0)
    batch = plan_batches(dataclasses.replace(suite(), cases=(case,)))[0]

    assert 6 == batch.concurrency == batch.requests[0].concurrency
