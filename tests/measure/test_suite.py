"""Suites are checked, and a mistake names its file and line."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.measure.calibration import P99_FLOOR
from shoestring.measure.schedule import plan_batches
from shoestring.measure.suite import (
    PROMPT_KINDS,
    Case,
    Deadlines,
    Limits,
    Suite,
    WarmUp,
    builtin_suites,
    load_suite,
    parse_suite,
)

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
END = "requests_per_block = 5"
LONG = GOOD[GOOD.index('prompt = "document"') :].rstrip()
DIALOGUE = """\
prompt = "dialogue"
turns = 2
prompt_tokens = 256
output_tokens = 8
concurrency = 1
requests_per_block = 6"""


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
        ("seed = 7", "seed = 7\nfresh_engine = 1", "line 5: fresh_engine is 1: give true or false"),
        ("seed = 7", "seed = 7\nfresh_engine = true", "line 5: fresh_engine is true: then nothing"),
        ("[limits]", "[warmup]\nminimum = 0\nmaximum = 4\n[limits]", "line 8: maximum is 4"),
        ("[limits]", "[warmup]\nmaximum = 0\n[limits]", "line 7: maximum is 0: give a number from"),
        (END, f'{END}\narrival = "bursts"', "line 24: arrival is 'bursts': give closed, constant"),
        (END, f'{END}\narrival = "poisson"', "line 17: rate_per_s is missing: give a number above"),
        (END, f'{END}\narrival = "constant"\nrate_per_s = 0', "line 25: rate_per_s is 0: give a"),
        (END, f"{END}\nrate_per_s = 2", "line 24: rate_per_s is 2: a closed loop has none"),
        (END, f"{END}\nturns = 4", "line 24: turns is 4: only a dialogue has turns"),
        (END, f"{END}\nthinking = true", "line 24: thinking is True: only a reasoning prompt"),
        (END, f'{END}\nfixed_length = "no"', "line 24: fixed_length is 'no': give true or false"),
        ('"document"', '"dialogue"', "line 17: turns is missing: give a number from 2 to 16"),
        (
            '"document"',
            '"dialogue"\nturns = 17',
            "line 20: turns is 17: give a number from 2 to 16",
        ),
        (
            '"document"',
            '"dialogue"\nturns = 5',
            "line 21: prompt_tokens is 256: give a number from",
        ),
        (
            '"document"',
            '"dialogue"\nturns = 2',
            "line 24: requests_per_block is 5: give a multiple",
        ),
        (
            LONG,
            LONG.replace('"document"', '"dialogue"\nturns = 5').replace("256", "400"),
            "line 23: concurrency is 4: the turns of a dialogue would overtake",
        ),
        (
            LONG,
            f'{DIALOGUE}\narrival = "constant"\nrate_per_s = 1',
            "line 25: arrival is 'constant': the turns of a dialogue would overtake",
        ),
        (
            'prompt = "document"\nprompt_tokens = 256',
            'prompt = "rag"\nprompt_tokens = 64',
            "line 20: prompt_tokens is 64: give a number from 192",
        ),
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


def test_what_is_left_out_is_a_closed_loop_of_fixed_length():
    """A case of an older suite means what it meant."""
    case = parse_suite(GOOD.encode(), "mine.toml").cases[1]

    assert ("closed", None, None, None, True) == (
        case.arrival, case.rate_per_s, case.turns, case.thinking, case.fixed_length
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ('prompt = "rag"\narrival = "poisson"\nrate_per_s = 2', ("poisson", 2.0, None, None, True)),
        ('prompt = "reasoning"\nthinking = false', ("closed", None, None, False, False)),
        ('prompt = "reasoning"', ("closed", None, None, None, False)),
        ('prompt = "structured"', ("closed", None, None, None, False)),
        ('prompt = "structured"\nfixed_length = true', ("closed", None, None, None, True)),
        ('prompt = "chat"\nfixed_length = false', ("closed", None, None, None, False)),
    ],
)
def test_kinds_of_cases(changes, expected):
    """Each key is read where it has a meaning, and has its default elsewhere."""
    text = GOOD.replace('prompt = "document"', changes).replace(END, "requests_per_block = 6")
    case = parse_suite(text.encode(), "mine.toml").cases[1]

    assert expected == (
        case.arrival, case.rate_per_s, case.turns, case.thinking, case.fixed_length
    )  # fmt: skip


def test_a_dialogue_is_one_at_a_time():
    """Its turns come one after the other, in a closed loop with one slot."""
    case = parse_suite(GOOD.replace(LONG, DIALOGUE).encode(), "mine.toml").cases[1]

    assert ("closed", 1, 2, True) == (case.arrival, case.concurrency, case.turns, case.fixed_length)


def test_an_open_loop_may_have_room_for_more_than_it_sends():
    """There ``concurrency`` is only a limit."""
    text = GOOD.replace(END, 'requests_per_block = 2\narrival = "constant"\nrate_per_s = 0.5')

    assert 4 == parse_suite(text.encode(), "mine.toml").cases[1].concurrency


def test_no_warm_up_and_a_fresh_engine():
    """Both numbers are 0, the second by itself, and every block may start the engine."""
    text = GOOD.replace("[limits]", "[warmup]\nminimum = 0\n[limits]")
    suite = parse_suite(f"fresh_engine = true\n{text}".encode(), "mine.toml")

    assert (0, 0, True) == (suite.warmup.minimum, suite.warmup.maximum, suite.fresh_engine)


def test_the_context_holds_a_whole_conversation():
    """All turns, the answer, and a chat template around each text."""
    suite = parse_suite(GOOD.replace(LONG, DIALOGUE).encode(), "mine.toml")

    assert 256 + 8 + 64 + 2 * 16 == suite.max_context


def test_builtin_suites_are_good():
    """They load, have five blocks or more but for one, and carry their file's name."""
    names = list(builtin_suites())

    assert {
        "chat", "code", "cold-start", "concurrency", "feasibility", "large", "long-context",
        "multi-turn", "node", "open-loop", "predictability", "rag", "reasoning", "smoke",
        "structured",
    } == set(names)  # fmt: skip
    assert [(name, True) for name in names] == [
        (load_suite(name).name, load_suite(name).blocks >= 5 or name == "feasibility")
        for name in names
    ]


def test_builtin_suites_are_documented():
    """Each has its line in ``docs/suites.md``, with the number of its requests."""
    text = (Path(__file__).parents[2] / "docs" / "suites.md").read_text()
    for name in builtin_suites():
        suite = load_suite(name)
        requests = suite.blocks * sum(case.requests_per_block for case in suite.cases)
        assert re.search(rf"^\| `{name}` \|[^|]+\| {requests:,} \|", text, re.MULTILINE), name


def test_every_key_is_documented():
    """What a suite may say stands in ``docs/suites.md``."""
    text = (Path(__file__).parents[2] / "docs" / "suites.md").read_text()
    kinds = (Suite, Case, WarmUp, Limits, Deadlines)
    keys = {field.name for kind in kinds for field in dataclasses.fields(kind)}

    assert [] == sorted(key for key in keys - {"sha256", "cases"} if f"`{key}`" not in text
                        and f"[{key}]" not in text)  # fmt: skip
    assert [] == [kind for kind in PROMPT_KINDS if f"| `{kind}` |" not in text]


def test_predictability_has_enough_for_a_p99():
    """Each case has the samples that a 99th percentile needs."""
    suite = load_suite("predictability")

    assert all(suite.blocks * case.requests_per_block >= P99_FLOOR for case in suite.cases)


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
