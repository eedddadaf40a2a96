"""Suites are checked, and a mistake names its file and line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.measure.schedule import plan_batches
from shoestring.measure.suite import builtin_suites, load_suite, parse_suite

GOOD = """\
name = "mine"
description = "Mine."
blocks = 2
seed = 7

[limits]
ttft_s = 1

[[case]]
name = "short"
prompt = "chat"
prompt_tokens = 32
output_tokens = 8
concurrency = 1
requests_per_block = 2

[[case]]
name = "long"
prompt = "document"
prompt_tokens = 256
output_tokens = 8
concurrency = 4
requests_per_block = 5
"""


def test_a_good_suite_is_read():
    """Values and defaults of a suite come out as written."""
    suite = parse_suite(GOOD.encode(), "mine.toml")

    assert ("mine", 2, 4, 328) == (
        suite.name, suite.blocks, suite.max_concurrency, suite.max_context
    )  # fmt: skip
    assert (1.0, 0.2) == (suite.limits.ttft_s, suite.limits.tpot_s)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('prompt = "document"', 'prompt = "poem"', "line 19: prompt is 'poem'"),
        ("concurrency = 4", "concurrency = 0", "line 22: concurrency is 0"),
        ("concurrency = 4", "concurrency = true", "line 22: concurrency is True"),
        ("output_tokens = 8\nconcurrency = 4", "concurrency = 4", "line 17: output_tokens is miss"),
        ("ttft_s = 1", "ttft_ms = 1", "line 7: ttft_ms is unknown"),
        ("ttft_s = 1", 'ttft_s = "1"', "line 7: ttft_s is '1'"),
        ('name = "long"', 'name = "short"', "line 18: name is 'short' a second time"),
        ('name = "mine"', 'name = "../mine"', "line 1: name is '../mine'"),
        ("blocks = 2", "blocks = 0", "line 3: blocks is 0"),
        ("seed = 7", "seed = ", "line 4: not TOML"),
        ("seed = 7", "", "line 1: seed is missing"),
        ("requests_per_block = 5", "requests_per_block = 5\nmodel = 1", "line 24: model is unkn"),
        ("requests_per_block = 5", "requests_per_block = 10001", "line 23: requests_per_block is"),
        ("requests_per_block = 5", "requests_per_block = 3", "line 23: requests_per_block is less"),
        ("[limits]\nttft_s = 1", "limits = 3", "line 6: limits is 3"),
    ],
)
def test_mistakes_name_file_and_line(old, new, message):
    """Each mistake is one line with the file, the line and the value."""
    with pytest.raises(BadValueError, match=re.escape(message)) as caught:
        parse_suite(GOOD.replace(old, new, 1).encode(), "mine.toml")

    assert str(caught.value).startswith("mine.toml, line ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text):
    """Whatever a suite file holds, the error is ours."""
    with pytest.raises(BadValueError):
        parse_suite(text.encode("utf-8", "surrogatepass"), "s.toml")


def test_builtin_suites_are_good():
    """The suites in the package load, have five blocks, and carry their file's name."""
    names = list(builtin_suites())

    assert {"chat", "concurrency", "long-context", "smoke"} <= set(names)
    assert [(name, True) for name in names] == [
        (load_suite(name).name, load_suite(name).blocks >= 5) for name in names
    ]


@pytest.mark.parametrize("name", ["smok", "nowhere.toml", "a/b"])
def test_unknown_suites(name):
    """A suite that is not there is named."""
    with pytest.raises(BadValueError, match=re.escape(name)):
        load_suite(name)


def test_blocks_hold_every_case_in_shuffled_order():
    """Each block has each case once, ids are unique, and the order depends on the seed alone."""
    suite = load_suite("smoke")
    batches = plan_batches(suite)

    ids = [planned.id for batch in batches for planned in batch.requests]
    orders = [[b.case.name for b in batches if b.block == n] for n in range(1, suite.blocks + 1)]
    assert (
        len(ids) == len(set(ids)) == suite.blocks * sum(c.requests_per_block for c in suite.cases)
    )
    assert all(set(order) == {case.name for case in suite.cases} for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert batches == plan_batches(suite)


@given(st.integers(1, 200))
def test_requests_are_dealt_evenly(requests):
    """A wanted total is met exactly, and no cell gets two more than another."""
    suite = parse_suite(GOOD.encode(), "mine.toml")
    batches = plan_batches(suite, requests)

    sizes = [len(batch.requests) for batch in batches]
    cells = suite.blocks * len(suite.cases)
    assert requests == sum(sizes)
    assert max(sizes) - (min(sizes) if len(sizes) == cells else 0) <= 1
