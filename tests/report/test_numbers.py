import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.analysis.summary import summarise
from shoestring.report.numbers import macro_names, numbers_json, numbers_tex, run_numbers


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), unique=True))
def test_macros_are_letters_only_and_unique(names):
    """Whatever a case is called, its macro is legal in LaTeX and nobody else's."""
    macros = macro_names(names)

    assert all(re.fullmatch(r"SS[A-Za-z]*", macro) for macro in macros.values())
    assert len(set(macros.values())) == len(names)


def test_macros_spell_digits_and_drop_units():
    """A name reads as words: digits are spelled, the unit is in the text."""
    assert macro_names(["ttft_median_s", "chat-128.ttft_p90_s", "load_s"]) == {
        "ttft_median_s": "SSTtftMedian",
        "chat-128.ttft_p90_s": "SSChatOneTwoEightTtftPNineZero",
        "load_s": "SSLoad",
    }


def test_numbers_carry_value_unit_and_text(run):
    """Each number has the value for programs and the text for prose."""
    numbers = json.loads(numbers_json(run_numbers(summarise(run))))

    assert numbers["load_s"] == {"value": 1.5, "unit": "s", "text": "1.50\xa0s"}
    assert numbers["chat-128.ttft_p99_s"]["value"] is None
    assert numbers["chat-128.ttft_p99_s"]["text"] == "—"
    assert all(set(number) == {"value", "unit", "text"} for number in numbers.values())


def test_no_case_overwrites_another(uneven):
    """A name at two concurrencies gives two sets of numbers, told apart by the concurrency."""
    numbers = run_numbers(summarise(uneven))

    assert numbers["chat-128-c1.requests_ok"]["value"] == 20
    assert numbers["chat-128-c4.requests_ok"]["value"] == 39
    assert "context-1024.requests_ok" in numbers
    assert "chat-128.requests_ok" not in numbers


@pytest.mark.parametrize("name", ["file:/srv/me/m.gguf", "file:m.gguf", "/srv/me/m.gguf"])
def test_no_number_holds_a_folder(name, run, changed):
    """A model is named without the folder that it lies in."""
    odd = changed(run, change_config=lambda config: config["model"].update(name=name))

    assert run_numbers(summarise(odd))["model"]["text"] in ("file:m.gguf", "m.gguf")


def test_what_explains_the_speed_can_be_quoted(run):
    """The interval of the success rate and the engine's own rates are numbers too."""
    numbers = run_numbers(summarise(run))

    assert numbers["success_rate_ci95_low"]["value"] < 67 / 70
    assert numbers["native_decode_tokens_per_s_median"]["unit"] == "tokens/s"
    assert numbers["early_stops"]["value"] == 0


def test_tex_defines_every_number_once(run):
    """Every number has one macro, set in characters that LaTeX takes."""
    numbers = run_numbers(summarise(run))
    tex = numbers_tex(numbers)
    defined = re.findall(r"\\newcommand{\\(SS[A-Za-z]+)}{(.*)}\n", tex)

    assert len(defined) == len({name for name, _ in defined}) == len(numbers)
    assert dict(defined)["SSLoad"] == "1.50~s"
    assert tex.isascii()
