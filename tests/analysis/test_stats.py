import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.analysis import stats

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
BLOCKS = st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=5, max_size=9)


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.sampled_from([50, 90, 99]))
def test_percentile_is_numpys_linear_one(values, q):
    """Our interpolation is the documented method."""
    enough = (values * stats.PERCENTILE_FLOORS[99])[: stats.PERCENTILE_FLOORS[99] + len(values)]
    assert stats.percentile(enough, q) == pytest.approx(np.percentile(enough, q), abs=1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=40))
def test_median_is_the_median_from_one_sample_on(values):
    """The 50th percentile needs no more than one sample."""
    assert stats.percentile(values, 50) == pytest.approx(statistics.median(values), abs=1e-9)


@pytest.mark.parametrize(("q", "floor"), [(50, 1), (90, 64), (99, 662)])
def test_percentiles_below_their_floor_are_none(q, floor):
    """One sample fewer than the floor gives None, the floor itself gives a number."""
    assert stats.percentile([1.0] * (floor - 1), q) is None
    assert stats.percentile([1.0] * floor, q) == 1.0


@pytest.mark.parametrize("q", [90, 99])
def test_floors_follow_from_the_binomial_rule(q):
    """A floor is the least n with at least two samples above the percentile, 99 % sure."""

    def doubt(n: int) -> float:
        share = q / 100
        return share**n + n * (1 - share) * share ** (n - 1)

    floor = stats.PERCENTILE_FLOORS[q]
    assert doubt(floor) <= 0.01 < doubt(floor - 1)


@given(BLOCKS, st.integers(0, 2**31))
@settings(max_examples=40)
def test_resampled_medians_are_those_of_pooled_resamples(blocks, seed):
    """The bisection gives what pooling and sorting each resample gives."""
    draws = np.random.default_rng(seed).integers(len(blocks), size=(stats.RESAMPLES, len(blocks)))[
        :10
    ]
    expected = [np.median(np.concatenate([blocks[i] for i in draw])) for draw in draws]
    assert stats.bootstrap_medians(blocks, seed=seed)[:10] == pytest.approx(expected)


@given(BLOCKS, st.integers(0, 2**31))
@settings(max_examples=40)
def test_the_interval_is_repeatable_and_inside_the_data(blocks, seed):
    """Same seed, same interval; low <= high; never outside what was measured."""
    interval = stats.bootstrap_median_ci(blocks, seed=seed)
    assert interval == stats.bootstrap_median_ci(blocks, seed=seed)
    low, high = interval
    values = [value for block in blocks for value in block]
    assert min(values) <= low <= high <= max(values)


@given(BLOCKS)
@settings(max_examples=25)
def test_a_lower_level_gives_a_narrower_interval(blocks):
    """The 50 % interval lies inside the 95 % one."""
    low, high = stats.bootstrap_median_ci(blocks, 0.95, seed=3)
    inner_low, inner_high = stats.bootstrap_median_ci(blocks, 0.5, seed=3)
    assert low <= inner_low <= inner_high <= high


def test_fewer_than_five_filled_blocks_give_no_interval():
    """Four blocks, or five of which one is empty, are too few."""
    assert stats.bootstrap_median_ci([[1.0]] * 4) is None
    assert stats.bootstrap_median_ci([[1.0]] * 4 + [[]]) is None
    assert stats.bootstrap_median_ci([[1.0]] * 5) == (1.0, 1.0)


def test_whole_blocks_are_resampled_not_single_values():
    """Blocks that differ give a wide interval, however many values each holds."""
    apart = [[float(level)] * 100 for level in range(5)]
    low, high = stats.bootstrap_median_ci(apart)
    assert high - low >= 3


@pytest.mark.parametrize(("blocks", "least"), [(5, 0.86), (10, 0.90)])
def test_the_interval_covers_the_true_median(blocks, least):
    """In simulated runs whose truth is known the documented coverage is reached."""
    noise = np.random.default_rng(7)
    hits, runs = 0, 200
    for _ in range(runs):
        shift = noise.normal(0, 1, size=(blocks, 1))
        low, high = stats.bootstrap_median_ci((shift + noise.normal(0, 1, (blocks, 8))).tolist())
        hits += low <= 0 <= high
    assert hits / runs >= least


def test_a_ratio_needs_five_blocks_on_both_sides_and_a_divisor():
    """No interval from four blocks, or over a median of 0."""
    good, few = [[2.0]] * 5, [[2.0]] * 4
    assert stats.bootstrap_ratio_ci(good, few) is None
    assert stats.bootstrap_ratio_ci(few, good) is None
    assert stats.bootstrap_ratio_ci(good, [[0.0]] * 5) is None
    assert stats.bootstrap_ratio_ci([[3.0]] * 5, good) == (1.5, 1.5)


@pytest.mark.parametrize(("freedom", "true"), [(4, 2.7764), (6, 2.4469), (9, 2.2622), (19, 2.0930)])
def test_students_quantile_is_close(freedom, true):
    """The expansion is within 0.5 % of the tabulated 97.5 % points."""
    assert stats.student_quantile(0.975, freedom) == pytest.approx(true, rel=0.005)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_a_proportion(counts):
    """0 <= low <= k / n <= high <= 1, and never of zero width."""
    successes, trials = counts
    low, high = stats.wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert high > low


def test_wilson_has_the_published_value():
    """9 of 10 is 0.596 to 0.982; nothing of nothing is unknown."""
    assert stats.wilson_interval(9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)
    assert stats.wilson_interval(0, 0) is None


def test_coefficient_of_variation_has_n_minus_1_in_its_denominator():
    """1, 2, 3 have standard deviation 1 and mean 2."""
    assert stats.coefficient_of_variation([1, 2, 3]) == pytest.approx(0.5)
    assert stats.coefficient_of_variation([1]) is None
    assert stats.coefficient_of_variation([-1, 1]) is None


@given(st.lists(NUMBERS, min_size=3, max_size=20, unique=True))
def test_spearman_knows_order_and_not_size(values):
    """Sorted values give 1, reversed -1, anything else lies between."""
    assert stats.spearman(sorted(values)) == pytest.approx(1)
    assert stats.spearman(sorted(values, reverse=True)) == pytest.approx(-1)
    assert -1.000001 <= stats.spearman(values) <= 1.000001


def test_spearman_of_ties_and_of_nothing():
    """Ties share a rank; equal values and two values tell no trend."""
    assert stats.spearman([1, 2, 2, 3]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert stats.spearman([5, 5, 5]) is None
    assert stats.spearman([1, 2]) is None


def test_theil_sen_is_the_change_over_the_run():
    """A straight line gives its change; one odd block does not make a trend."""
    assert stats.theil_sen_change([8, 9, 10, 11, 12]) == pytest.approx(0.4)
    assert stats.theil_sen_change([10, 10, 90, 10, 10]) == 0
    assert stats.theil_sen_change([1]) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_keeps_six_digits_and_can_be_repeated(value):
    """Rounding is close, idempotent, and survives JSON."""
    rounded = stats.round_significant(value)
    assert rounded == pytest.approx(value, rel=5.1e-6, abs=1e-300)
    assert stats.round_significant(rounded) == rounded
    assert json.loads(json.dumps(rounded)) == rounded


def test_rounding_leaves_counts_and_text_alone():
    """Only floats are rounded; tuples become lists, as JSON has them."""
    value = {"bytes": 25_000_000_001, "x": (1.23456789, None), "name": "1.23456789", "yes": True}
    assert stats.round_significant(value) == {
        "bytes": 25_000_000_001, "x": [1.23457, None], "name": "1.23456789", "yes": True,
    }  # fmt: skip
