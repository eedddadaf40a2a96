"""The grammar of the model's name."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.truth.schedule import (
    BEHAVIOURS,
    EXAMPLE,
    Schedule,
    behaviour_table,
    format_schedule,
    parse_schedule,
)

times_ns = st.integers(0, 9_999_999 * 10**6)
counts = st.integers(1, 10_000)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Draw any schedule that the grammar allows."""
    tokens = draw(st.integers(1, 100_000))
    after = st.none() | st.integers(0, tokens)
    stall = draw(after)
    ending = draw(st.sampled_from(["", "nofinal", "error", "reset", "http"]))
    usage = draw(st.sampled_from(["", "nousage", "usageinfinish"]))
    shape = draw(st.sampled_from(["", "utf8", "coalesce"]))
    return Schedule(
        draw(times_ns), draw(times_ns), tokens,
        role=draw(st.booleans()), empty=draw(st.just(0) | counts), pack=draw(counts),
        reasoning=draw(st.integers(0, min(tokens, 10_000))),
        coalesce=draw(counts) if shape == "coalesce" else 1, utf8=shape == "utf8",
        keepalive=draw(st.booleans()), nousage=usage == "nousage",
        usageinfinish=usage == "usageinfinish", nofinal=ending == "nofinal",
        error=draw(st.integers(0, tokens)) if ending == "error" else None,
        reset=draw(st.integers(0, tokens)) if ending == "reset" else None,
        http=draw(st.integers(400, 599)) if ending == "http" else None,
        badjson=draw(after), stall=stall,
        stall_ns=draw(st.none() | times_ns) if stall is not None else None,
        slowheaders=draw(times_ns), falsekeepalive=draw(st.booleans()),
    )  # fmt: skip


@given(schedules())
def test_a_name_gives_back_its_schedule(schedule: Schedule) -> None:
    """Every schedule survives being written as a name and read again."""
    assert parse_schedule(format_schedule(schedule)) == schedule


@given(st.text(max_size=40) | st.text("0123456789.:+-abcdeilnorstux", max_size=30))
def test_any_other_name_is_refused_in_one_line(text: str) -> None:
    """Text that is no schedule raises the user's error and nothing else."""
    for name in (text, f"{EXAMPLE}+{text}"):
        try:
            parse_schedule(name)
        except BadValueError as error:
            assert "\n" not in str(error)  # noqa: PT017  # names that are right raise nothing


def test_milliseconds_may_have_decimals() -> None:
    """Times are exact to the nanosecond."""
    schedule = parse_schedule("truth-ttft0.5-itl2.000001-n3")
    assert (schedule.ttft_ns, schedule.itl_ns, schedule.tokens) == (500_000, 2_000_001, 3)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt-4", "'gpt-4'"),
        ("truth-ttft50-itl10", "truth-ttft50-itl10"),
        ("truth-ttft-1-itl10-n3", "ttft-1"),
        ("truth-ttft1-itl1-n0", "n0"),
        ("truth-ttft1-itl1-n100001", "n100001"),
        (f"{EXAMPLE}+", "'+' is unknown"),
        (f"{EXAMPLE}+slow", "'+slow' is unknown"),
        (f"{EXAMPLE}+stall", "+stallK[:MS]"),
        (f"{EXAMPLE}+stall3:", "+stall3:"),
        (f"{EXAMPLE}+role1", "+role1"),
        (f"{EXAMPLE}+http200", "+http200"),
        (f"{EXAMPLE}+error33", "+error33"),
        (f"{EXAMPLE}+pack0", "+pack0"),
        (f"{EXAMPLE}+empty1+empty2", "+empty2"),
        (f"{EXAMPLE}+error1+reset2", "+error and +reset"),
        (f"{EXAMPLE}+utf8+coalesce2", "+utf8 and +coalesce"),
        (f"{EXAMPLE}+nousage+usageinfinish", "+nousage and +usageinfinish"),
        (f"{EXAMPLE}+stall٣", "+stall٣"),
    ],
)
def test_a_wrong_name_is_told_which_part(name: str, part: str) -> None:
    """The message names the part that cannot be used."""
    with pytest.raises(BadValueError) as caught:
        parse_schedule(name)
    assert part in str(caught.value)


def test_a_stall_moves_what_comes_after_it() -> None:
    """Tokens from K on, and the end, are due later by the stall; those before are not."""
    schedule = parse_schedule("truth-ttft10-itl5-n4+stall2:100")
    assert [schedule.due_ns(i) // 10**6 for i in range(4)] == [10, 15, 120, 125]
    assert schedule.end_due_ns(4) // 10**6 == 125
    assert schedule.end_due_ns(1) // 10**6 == 10


def test_every_behaviour_is_a_field_and_documented() -> None:
    """The table of the documentation is the code's own; no field of a schedule is left out."""
    page = Path(__file__).parents[2] / "docs" / "truth.md"
    assert behaviour_table() in page.read_text(encoding="utf-8")
    fields = {field.name for field in dataclasses.fields(Schedule)}
    names = {behaviour.name for behaviour in BEHAVIOURS}
    assert fields - names == {"ttft_ns", "itl_ns", "tokens", "stall_ns"}
    assert names <= fields
